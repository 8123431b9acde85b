"""The store of sweeps: one SQLite file in the cache. Cells are kept by their content, runs say which cells are theirs.

A cell is written in one transaction and carries a digest of itself: what is there is whole, and what was damaged on the
disk is as if it were not there. WAL mode lets two sweeps write at once.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxptq.cache import Cache, user_cache
from onnxptq.errors import DataError, OutputError, UsageError, did_you_mean
from onnxptq.sweeps.plan import Plan, plan_from_dict
from onnxptq.sweeps.read_only import open_to_read
from onnxptq.sweeps.study import FAILED, RESUME, Cell, CellKey, Study

SCHEMA_VERSION = 1

_BUSY_SECONDS = 60.0
"""How long a writer waits for another one; a cell takes about a millisecond to write."""

METRICS = (
    "fp32_average",
    "int8_average",
    "average_drop",
    "worst_group",
    "worst_accuracy",
    "largest_drop_group",
    "largest_drop",
    "crossfit_drop",
    "crossfit_drop_low",
    "crossfit_drop_high",
    "cvar10_drop",
    "flip_rate",
    "sqnr_db",
)
"""Of a cell's report, as columns of the view `metrics`."""

_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS store (schema_version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS runs (
    run TEXT PRIMARY KEY, digest TEXT NOT NULL UNIQUE, name TEXT NOT NULL, created TEXT NOT NULL, finished TEXT,
    plan TEXT NOT NULL, versions TEXT NOT NULL, machine TEXT NOT NULL, command TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS cells (
    cell TEXT PRIMARY KEY, status TEXT NOT NULL, error TEXT NOT NULL, report TEXT NOT NULL, ranges TEXT NOT NULL,
    recipe_digest TEXT NOT NULL, model_digest TEXT NOT NULL, seconds TEXT NOT NULL, int8_bytes INTEGER NOT NULL,
    predictions TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS grid (
    run TEXT NOT NULL REFERENCES runs, position INTEGER NOT NULL, cell TEXT NOT NULL, model TEXT NOT NULL,
    calibration TEXT NOT NULL, strategy TEXT NOT NULL, method TEXT NOT NULL, target TEXT NOT NULL,
    runtime TEXT NOT NULL, seed INTEGER NOT NULL, PRIMARY KEY (run, position));
CREATE VIEW IF NOT EXISTS metrics AS
    SELECT grid.run, position, model, calibration, strategy, method, target, runtime, seed, status, error,
    {", ".join(f"json_extract(report, '$.{name}') AS {name}" for name in METRICS)},
    int8_bytes, recipe_digest, model_digest, predictions
    FROM grid JOIN cells USING (cell);
"""

_TEXTS = (
    "status",
    "error",
    "report",
    "ranges",
    "recipe_digest",
    "model_digest",
    "seconds",
    "int8_bytes",
    "predictions",
)


@dataclass(frozen=True)
class RunSummary:
    """One line of `onnxptq runs list`.

    Attributes:
        run: its name.
        name: the plan's title.
        created: ISO 8601, UTC.
        finished: the same, or None while cells are missing or damaged, or failed: `--resume` goes on with these.
        cells, done, failed: how many there are, how many have a result, and how many of these failed.
    """

    run: str
    name: str
    created: str
    finished: str | None
    cells: int
    done: int
    failed: int


class Store:
    """Runs and cells in one cache folder. Made where there is none.

    Args:
        cache: where it lies.
        read: only to read: nothing is made, and the folder need not be one that can be written.

    Raises:
        DataError: the file is damaged, or of a newer version.
        OutputError: it cannot be written.
        UsageError: there is none to read.
    """

    def __init__(self, cache: Cache, *, read: bool = False) -> None:
        self.cache = cache
        self.path = (cache.lookup("sweeps") if read else cache.folder("sweeps")) / "sweeps.sqlite"
        self._read = read
        with self._explained():
            if read:
                self._connection = open_to_read(self.path, _BUSY_SECONDS, "store")
                self._check_version()
                return
            _make_for_this_user(self.path)
            self._connection = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            # A cell that was said to be stored is stored, also when the power fails.
            self._connection.execute("PRAGMA synchronous = FULL")
            self._prepare()

    def close(self) -> None:
        """Ends the connection; the last one folds the journal into the file."""
        self._connection.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def run_of(self, digest: str) -> str | None:
        """The run of this plan on these inputs, or None."""
        with self._explained():
            row = self._connection.execute("SELECT run FROM runs WHERE digest = ?", (digest,)).fetchone()
        return row[0] if row else None

    def start(self, study: Study, digest: str, cells: Sequence[str]) -> str:
        """Begins a run, or finds the one of the same digest that is there already.

        Args:
            study: the run without results: its grid is that of `study.cells`.
            digest: of the plan and all that it is applied to.
            cells: the content key of each cell of the grid.

        Returns:
            The name of the run.
        """
        row = (study.run, digest, study.name, study.created, _json(study.plan), _json(study.versions))
        with self._explained(), self._transaction():
            self._connection.execute(
                "INSERT OR IGNORE INTO runs (run, digest, name, created, plan, versions, machine, command) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (*row, _json(study.machine), study.command),
            )
            name: str = self._connection.execute("SELECT run FROM runs WHERE digest = ?", (digest,)).fetchone()[0]
            # Its row number grows with each start: the run that ran last has the largest.
            self._connection.execute("INSERT OR REPLACE INTO started VALUES (?)", (name,))
            self._connection.executemany(
                "INSERT OR IGNORE INTO grid VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (name, position, cell, *asdict(one.key).values())
                    for position, (cell, one) in enumerate(zip(cells, study.cells, strict=True))
                ],
            )
        return name

    def put(self, cells: Mapping[str, Cell]) -> None:
        """Keeps results by their content key, all of them or none."""
        rows = [(key, *(values := _row(cell)), _digest(key, values)) for key, cell in cells.items()]
        with self._explained(), self._transaction():
            self._connection.executemany("INSERT OR REPLACE INTO cells VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def get(self, key: str) -> Cell | None:
        """The result with this content key, without its place in a grid; None where there is none, or it is damaged."""
        with self._explained():
            row = self._connection.execute(
                f"SELECT {', '.join(_TEXTS)}, digest FROM cells WHERE cell = ?", (key,)
            ).fetchone()
        if row is None or _digest(key, row[:-1]) != row[-1]:
            return None
        values = dict(zip(_TEXTS, row[:-1], strict=True))
        for name in ("report", "ranges", "seconds"):
            values[name] = json.loads(values[name])
        values["ranges"] = {tensor: (low, high) for tensor, (low, high) in values["ranges"].items()}
        return Cell(_NOWHERE, **values)

    def stands(self, cell: Cell) -> bool:
        """Whether a cell's predictions lie where it says, to their last byte; True where it keeps none."""
        from onnxptq.evaluation.predictions import predictions_stand

        return not cell.predictions or predictions_stand(self.cache.root / cell.predictions)

    def finish(self, run: str, when: str) -> None:
        """Notes that every cell of a run is done."""
        with self._explained(), self._transaction():
            self._connection.execute("UPDATE runs SET finished = ? WHERE run = ?", (when, run))

    def runs(self) -> list[RunSummary]:
        """All runs, the one that ran last at the end.

        Damaged rows count as missing, as they do for whoever makes them again.
        """
        # One state of the file: another sweep may begin a run in between.
        with self._explained(), self._transaction("BEGIN"):
            status = self._statuses()
            rows = self._connection.execute(f"SELECT run, name, created, finished FROM {self._in_order()}").fetchall()
            grid = self._connection.execute("SELECT run, cell FROM grid").fetchall()
        found: dict[str, list[str | None]] = {run: [] for run, *_ in rows}
        for run, cell in grid:
            found[run].append(status.get(cell))
        return [_summary(run, name, created, finished, found[run]) for run, name, created, finished in rows]

    def _in_order(self) -> str:
        """The table of runs in the order of their last start; a store of before knows when they were made."""
        known = "SELECT count(*) FROM sqlite_master WHERE name = 'started'"
        if not self._connection.execute(known).fetchone()[0]:
            return "runs ORDER BY created, rowid"
        return "runs LEFT JOIN started USING (run) ORDER BY coalesce(started.rowid, 0), created, runs.rowid"

    def _statuses(self) -> dict[str, str]:
        """Of each cell whose row is whole."""
        rows = self._connection.execute(f"SELECT cell, {', '.join(_TEXTS)}, digest FROM cells")
        return {key: values[0] for key, *values, digest in rows if _digest(key, values) == digest}

    def find(self, run: str) -> str:
        """The full name of a run from its name, a prefix that only it has, or "last".

        Raises:
            UsageError: there is none, or several.
        """
        with self._explained():
            rows = self._connection.execute(f"SELECT run FROM {self._in_order()}").fetchall()
        names = [str(name) for (name,) in rows]
        if not names:
            raise UsageError(f"there is no run in {self.path}. `onnxptq sweep` makes one.")
        if run == "last":
            return names[-1]
        found = [run] if run in names else [name for name in names if name.startswith(run)]
        if not found:
            raise UsageError(f"there is no run {run!r} in {self.path}. {did_you_mean(run, [*names, 'last'])}")
        if len(found) > 1:
            raise UsageError(f"several runs are called {run!r}: {', '.join(found)}. Give more of the name.")
        return found[0]

    def unfinished(self, plan: Plan | None) -> Plan:
        """The plan of the last run with missing, damaged or failed cells; `plan` itself where it is that of one.

        Raises:
            UsageError: there is no such run.
        """
        begun = [one.run for one in self.runs() if one.finished is None]
        with self._explained():
            texts = dict(self._connection.execute("SELECT run, plan FROM runs").fetchall())
        plans = [plan_from_dict(json.loads(texts[run]), f"the plan of {run}") for run in reversed(begun)]
        found = next((one for one in plans if plan is None or one == plan), None)
        if found is None:
            raise UsageError(self._nothing_to_resume(plan))
        return found

    def _nothing_to_resume(self, plan: Plan | None) -> str:
        with self._explained():
            rows = self._connection.execute("SELECT run, plan FROM runs ORDER BY created DESC, rowid DESC").fetchall()
        done = next((run for run, text in rows if plan is None or json.loads(text) == plan.to_dict()), None)
        if done is None:
            which = "run" if plan is None else "run of this plan"
            return f"there is no {which} in {self.path}. Leave --resume out to start one."
        which = "every run" if plan is None else f"the run {done} of this plan"
        report = self.cache.command(f"onnxptq report {done}")
        return f"{which} in {self.path} is finished: {report}"

    def study(self, run: str) -> Study:
        """A run with all its cells that have a result. Raises UsageError as `find` does."""
        run = self.find(run)
        with self._explained():
            columns = "name, created, plan, versions, machine, command"
            row = self._connection.execute(f"SELECT {columns} FROM runs WHERE run = ?", (run,)).fetchone()
            grid = self._connection.execute(
                "SELECT cell, model, calibration, strategy, method, target, runtime, seed FROM grid WHERE run = ? "
                "ORDER BY position",
                (run,),
            ).fetchall()
        name, created, plan, versions, machine, command = row
        found = ((CellKey(*place), self.get(cell)) for cell, *place in grid)
        return Study(
            run=run,
            name=name,
            created=created,
            plan=json.loads(plan),
            cells=tuple(replace(cell, key=key) for key, cell in found if cell is not None),
            versions=json.loads(versions),
            machine=json.loads(machine),
            command=command,
            store=self.cache.option,
        )

    @property
    def resume(self) -> str:
        """The command line that goes on with what did not finish."""
        return self.cache.command(RESUME)

    def _prepare(self) -> None:
        tables = self._connection.execute("SELECT count(*) FROM sqlite_master WHERE name = 'store'").fetchone()[0]
        if not tables:
            with self._transaction():
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    self._connection.execute(statement)
                if not self._connection.execute("SELECT count(*) FROM store").fetchone()[0]:
                    self._connection.execute("INSERT INTO store VALUES (?)", (SCHEMA_VERSION,))
        self._connection.execute("CREATE TABLE IF NOT EXISTS started (run TEXT PRIMARY KEY)")
        self._check_version()

    def _check_version(self) -> None:
        version = self._connection.execute("SELECT schema_version FROM store").fetchone()[0]
        if version != SCHEMA_VERSION:
            self.close()
            raise DataError(
                f"the store {self.path} has schema {version}; this version reads {SCHEMA_VERSION}. "
                "Update onnxptq, or give another folder with --store."
            )

    @contextmanager
    def _transaction(self, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
        # At once, and not at the first write: two that read first and then want to write would lock each other out.
        self._connection.execute(begin)
        try:
            yield
        except BaseException:
            self._rolled_back()
            raise
        self._connection.execute("COMMIT")

    def _rolled_back(self) -> None:
        if self._connection.in_transaction:  # A full disk has rolled it back already.
            self._connection.execute("ROLLBACK")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if self._read:
                raise DataError(
                    f"the store {self.path} cannot be read: {error}. Copy its folder to where you can write, and give "
                    "that with --store."
                ) from error
            raise OutputError(
                f"the store {self.path} cannot be written: {error}. Free some space, or give another folder with "
                "--store; what is stored stays, and the sweep goes on from there."
            ) from error
        except sqlite3.DatabaseError as error:
            raise DataError(
                f"the store {self.path} is damaged ({error}). Move it away: the sweep makes it again, and finds the "
                "predictions that it made."
            ) from error


def _summary(run: str, name: str, created: str, finished: str | None, cells: Sequence[str | None]) -> RunSummary:
    done, failed = len(cells) - cells.count(None), cells.count(FAILED)
    whole = done == len(cells) and not failed
    return RunSummary(run, name, created, finished if whole else None, len(cells), done, failed)


_NOWHERE = CellKey("", "", "", "", "", "", 0)


def load_study(run: str = "last", store: Path | None = None) -> Study:
    """A run with its cells.

    Args:
        run: its name, a prefix that only it has, or "last".
        store: the folder of `--store`; None is the cache.

    Raises:
        UsageError: there is no such run, or several, or no store.
        DataError: the store is damaged, or of a newer version.
    """
    with Store(cache_of(store), read=True) as opened:
        return opened.study(run)


def cache_of(store: str | Path | None) -> Cache:
    """The cache of a store: the folder of `--store`, or the user's cache."""
    if store is None:
        return replace(user_cache(), may_move=False)
    return Cache(Path(store), option=f"--store {shlex.quote(str(store))}")


def _make_for_this_user(path: Path) -> None:
    """Makes the file where there is none: SQLite would let everybody read it, and gives its journal the same rights."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise OutputError(
            f"the store {path} cannot be written: {error.strerror}. Give another folder with --store."
        ) from error


def _row(cell: Cell) -> tuple[Any, ...]:
    texts = {"report": _json(cell.report), "ranges": _json(cell.ranges), "seconds": _json(cell.seconds)}
    return tuple(texts.get(name, getattr(cell, name)) for name in _TEXTS)


def _digest(key: str, values: Sequence[Any]) -> str:
    """Of a row: what a disk did to it shows."""
    return hashlib.sha256(_json([key, *values]).encode()).hexdigest()


def _json(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Halves of characters, as in names of files that are no UTF-8, as JSON escapes them.
    return text.encode(errors="backslashreplace").decode()
