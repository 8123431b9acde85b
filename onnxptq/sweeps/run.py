"""A sweep: from a plan to a study in the store. What the store has is not made again; the rest becomes jobs."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from statistics import median

from onnxptq.cache import content_key
from onnxptq.sweeps.bench import Bench, open_bench, versions
from onnxptq.sweeps.engine import Engine, Outcome
from onnxptq.sweeps.job import Job
from onnxptq.sweeps.local import LocalEngine, cores
from onnxptq.sweeps.plan import Plan
from onnxptq.sweeps.store import Store
from onnxptq.sweeps.study import DONE, FAILED, Cell, CellKey, Study

BATCH_CELLS = 16
"""Cells in one job at most: they share the reading, decoding and corrupting of the samples that they are judged on."""

BATCH_BYTES = 512 * 2**20
"""FP32 bytes of the models of one job at most: all of them are loaded at once."""

ATTEMPTS = 2
"""How often a cell may take its worker with it before it counts as failed: once may be chance (memory was short)."""


@dataclass(frozen=True)
class State:
    """How far a sweep is.

    Attributes:
        cells: in the grid.
        known: of these, found in the store.
        done: of these, with a result by now.
        failed: of `done`.
        seconds_left: estimated, or None before anything was measured.
    """

    cells: int
    known: int
    done: int
    failed: int
    seconds_left: float | None


Progress = Callable[[State], None]


@dataclass(frozen=True)
class Grid:
    """A plan on its inputs.

    Attributes:
        plan: what is crossed with what.
        benches: by model.
        keys: content key of each cell, in the order of the grid.
        digest: of the run: the plan and all that it is applied to.
    """

    plan: Plan
    benches: Mapping[str, Bench]
    keys: Mapping[CellKey, str]
    digest: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line each."""
        return tuple(dict.fromkeys(line for bench in self.benches.values() for line in bench.inputs.warnings))


def open_grid(plan: Plan, store: Store) -> Grid:
    """Looks at the models and the data of a plan.

    Raises:
        OnnxptqError: one of them cannot be used, or a runtime does not load.
    """
    benches = {name: open_bench(plan, name, store.room) for name in plan.models}
    keys = {key: benches[key.model].cell_key(key) for key in plan.grid}
    digest = content_key("run", plan=plan.to_dict(), cells=list(keys.values()))
    return Grid(plan, benches, keys, digest)


def sweep(grid: Grid, store: Store, engine: Engine | None = None, command: str = "", progress: Progress = print) -> str:
    """Makes every cell of a grid that the store does not have; failed ones are tried again.

    Args:
        grid: from `open_grid`.
        store: where results go, each job's in one transaction.
        engine: who does the work; None is one process a core.
        command: the command line, for the report.
        progress: called as results come in.

    Returns:
        The name of the run.

    Raises:
        OutputError: results cannot be kept any more. What is stored stays.
        OnnxptqError: a model or its data turned out to be unusable.
    """
    run = store.start(_empty_study(grid, command), grid.digest, list(grid.keys.values()))
    known = {key: cell for key in set(grid.keys.values()) if (cell := store.get(key)) and cell.status == DONE}
    count = _Count(grid, known, progress)
    missing = [key for key, content in _distinct(grid.keys).items() if content not in known]
    with ExitStack() as stack:
        if missing:
            engine = stack.enter_context(engine or LocalEngine(min(cores(), len(missing))))
            count.workers = engine.workers
            for outcome in _outcomes(grid, missing, store, engine):
                store.put({grid.keys[cell.key]: cell for cell in outcome.cells})
                count.add(outcome.cells)
    store.finish(run, _now())
    return run


@dataclass(frozen=True)
class Ahead:
    """What a sweep would do.

    Attributes:
        cells: in the grid.
        distinct: of different content: each is made once.
        known: of the distinct ones, found in the store.
        todo: of the distinct ones, still to be made.
        workers: how many would make them.
        seconds: how long that would take; None where nothing is known and nothing could be measured.
        corruptions: what models are judged under.
        samples: rows that each model is judged on, of the first model.
    """

    cells: int
    distinct: int
    known: int
    todo: int
    workers: int
    seconds: float | None
    corruptions: tuple[str, ...]
    samples: int

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        return {**asdict(self), "corruptions": list(self.corruptions)}


def look_ahead(grid: Grid, store: Store, engine: Engine) -> Ahead:
    """What a sweep would do. One missing cell is made, and kept, to measure how long the others take."""
    distinct = _distinct(grid.keys)
    known = {key: cell for key, content in distinct.items() if (cell := store.get(content)) and cell.status == DONE}
    missing = [key for key in distinct if key not in known]
    measured = list(known.values())
    if missing:
        with engine:
            for outcome in _outcomes(grid, missing[:1], store, engine):
                store.put({grid.keys[cell.key]: cell for cell in outcome.cells})
                measured += [cell for cell in outcome.cells if cell.status == DONE]
    todo = max(0, len(missing) - 1)
    samples = next(iter(grid.benches.values())).samples
    return Ahead(
        cells=len(grid.keys),
        distinct=len(distinct),
        known=len(known),
        todo=todo,
        workers=engine.workers,
        seconds=estimate(grid, measured, todo, engine.workers),
        corruptions=samples.corruptions,
        samples=len(samples),
    )


def estimate(grid: Grid, cells: Iterable[Cell], todo: int, workers: int) -> float | None:
    """Seconds that `todo` more cells take, from those that were measured; None where none was."""
    measured = [cell.seconds for cell in cells if cell.seconds]
    if not measured:
        return None
    plan = grid.plan
    # A pass serves all methods, targets and runtimes of one set; its seconds are those of the cells that made it.
    passes = todo / max(1, len(plan.methods) * len(plan.targets) * len(plan.runtimes))
    seconds = 0.0
    for part, times in (("calibrate", passes), ("quantize", todo), ("evaluate", todo)):
        spent = [one.get(part, 0.0) for one in measured if one.get(part, 0.0) > 0.0]
        seconds += times * median(spent) if spent else 0.0
    return seconds / workers


def _distinct(keys: Mapping[CellKey, str]) -> dict[CellKey, str]:
    """One cell of each content: a sampler in place of a set's own makes equal cells of several sets."""
    first: dict[str, CellKey] = {}
    for key, content in keys.items():
        first.setdefault(content, key)
    return {key: content for content, key in first.items()}


def _outcomes(grid: Grid, missing: Sequence[CellKey], store: Store, engine: Engine) -> Iterator[Outcome]:
    """Runs jobs until each missing cell has a result. A job whose worker died is done again cell by cell."""
    open_jobs = 0

    def submit(jobs: Iterable[Job]) -> None:
        nonlocal open_jobs
        for job in jobs:
            engine.submit(job)
            open_jobs += 1

    by_model = {model: [key for key in missing if key.model == model] for model in grid.plan.models}
    room = store.room.root.resolve()
    # First what all jobs of a model share, so that no two workers make it at once.
    submit(Job(grid.plan, model, (), room, engine.threads) for model, keys in by_model.items() if keys)
    while open_jobs:
        outcome = engine.wait()
        open_jobs -= 1
        job = outcome.job
        if outcome.error is not None:
            raise outcome.error
        if outcome.died:
            again = job.attempt + 1
            if len(job.cells) > 1:
                submit(replace(job, cells=(key,)) for key in job.cells)
            elif again < ATTEMPTS:
                submit([replace(job, attempt=again)])
            else:
                reason = f"its worker {outcome.died}, {again} times"
                failed = job.cells or tuple(by_model[job.model])
                yield replace(outcome, cells=tuple(Cell(key, FAILED, error=reason) for key in failed))
        elif job.cells:
            yield outcome
        else:
            batches = _batches(by_model[job.model], grid.benches[job.model], engine.workers)
            submit(replace(job, cells=batch) for batch in batches)


def _batches(keys: Sequence[CellKey], bench: Bench, workers: int) -> Iterator[tuple[CellKey, ...]]:
    """Jobs of a model: whole calibration sets, so that one pass serves all their methods."""
    most = max(1, min(BATCH_CELLS, BATCH_BYTES // max(1, bench.inputs.model.size), -(-len(keys) // workers)))

    def drawn(key: CellKey) -> tuple[str, int, bool]:
        return bench.recipe(key).calibration, key.seed, key.runtime == "cpu"

    batch: list[CellKey] = []
    for _, group in itertools.groupby(sorted(keys, key=drawn), key=drawn):
        for key in group:
            if len(batch) >= most:
                yield tuple(batch)
                batch = []
            batch.append(key)
    if batch:
        yield tuple(batch)


class _Count:
    """Counts the cells of the grid, those of equal content as one result each."""

    def __init__(self, grid: Grid, known: Mapping[str, Cell], progress: Progress) -> None:
        self.workers = 1
        self._grid = grid
        self._results = dict(known)
        self._measured: list[Cell] = []
        self._progress = progress
        self._known = sum(content in known for content in grid.keys.values())
        self._show()

    def add(self, cells: Iterable[Cell]) -> None:
        """More results."""
        for cell in cells:
            self._results[self._grid.keys[cell.key]] = cell
            self._measured.append(cell)
        self._show()

    def _show(self) -> None:
        found = [self._results[content] for content in self._grid.keys.values() if content in self._results]
        todo = len({*self._grid.keys.values()} - {*self._results})
        self._progress(
            State(
                cells=len(self._grid.keys),
                known=self._known,
                done=len(found),
                failed=sum(cell.status == FAILED for cell in found),
                seconds_left=estimate(self._grid, self._measured, todo, self.workers),
            )
        )


def _empty_study(grid: Grid, command: str) -> Study:
    created = _now()
    return Study(
        run=f"{created[:10]}-{grid.digest[:6]}",
        name=grid.plan.title,
        created=created,
        plan=grid.plan.to_dict(),
        cells=tuple(Cell(key, FAILED) for key in grid.keys),
        versions=versions(),
        machine=_machine(grid),
        command=command,
    )


def _machine(grid: Grid) -> dict[str, object]:
    from onnxptq.runtimes import cpu_features

    identities = (bench.runtime(name).identity() for bench in grid.benches.values() for name in grid.plan.runtimes)
    gpus = sorted({identity["gpu"] for identity in identities if identity.get("gpu")})
    return {"cpu": " ".join(cpu_features()), "cores": cores(), **({"gpu": ", ".join(gpus)} if gpus else {})}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
