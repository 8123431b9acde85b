"""A sweep: from a plan to a study in the store. What the store has is not made again; the rest becomes jobs."""

from __future__ import annotations

import datetime
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from onnxptq.cache import content_key
from onnxptq.foreign_text import one_line
from onnxptq.quantization.plugins import library_versions
from onnxptq.runtimes.cpu import CLIPS
from onnxptq.runtimes.selection import saturates
from onnxptq.sweeps.engine import Engine, JobOutcome
from onnxptq.sweeps.job import SweepJob
from onnxptq.sweeps.local import cores
from onnxptq.sweeps.model_context import PART_SAMPLES, ModelContext, open_context, versions
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


Watch = Callable[[State], None]


@dataclass(frozen=True)
class CellGrid:
    """A plan on its inputs.

    Attributes:
        plan: what is crossed with what.
        contexts: by model.
        keys: content key of each cell, in the order of the grid.
        runtimes: identity of each runtime.
        digest: of the run: the plan and all that it is applied to.
    """

    plan: Plan
    contexts: Mapping[str, ModelContext]
    keys: Mapping[CellKey, str]
    runtimes: Mapping[str, Mapping[str, str]]
    digest: str

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line each."""
        lines = [line for context in self.contexts.values() for line in context.inputs.warnings]
        if clipping := [name for name, identity in self.runtimes.items() if saturates(identity)]:
            lines.append(
                f'{", ".join(clipping)}: {CLIPS} runtimes = ["cpu:exact"] in a plan (--init) judges without it.'
            )
        return tuple(dict.fromkeys(lines))


def open_grid(plan: Plan, store: Store, engine: Engine) -> CellGrid:
    """Looks at the models and the data of a plan.

    Raises:
        OnnxptqError: one of them cannot be used, or a runtime does not load.
    """
    contexts = {name: open_context(plan, name, store.cache) for name in plan.models}
    runtimes = {name: engine.identity(name) for name in plan.runtimes}
    keys = {key: contexts[key.model].cell_key(key, runtimes[key.runtime]) for key in plan.grid}
    digest = content_key("run", plan=plan.to_dict(), cells=list(keys.values()))
    return CellGrid(plan, contexts, keys, runtimes, digest)


def sweep(
    grid: CellGrid,
    store: Store,
    engine: Engine,
    *,
    command: str = "",
    progress: Watch = lambda state: None,
) -> str:
    """Makes every cell of a grid that the store does not have; failed ones are tried again.

    Args:
        grid: from `open_grid`.
        store: where results go, each job's in one transaction.
        engine: who does the work; entered already.
        command: the command line, for the report.
        progress: called as results come in.

    Returns:
        The name of the run.

    Raises:
        OutputError: results cannot be kept any more. What is stored stays.
        OnnxptqError: a model or its data turned out to be unusable.
    """
    run = store.start(_empty_study(grid, command), grid.digest, list(grid.keys.values()))
    known = {key: cell for key in set(grid.keys.values()) if (cell := known_cell(store, key))}
    count = _Count(grid, known, engine.workers, progress)
    missing = [key for key, content in distinct(grid.keys).items() if content not in known]
    for cells in _results(grid, missing, store, engine):
        store.put({grid.keys[cell.key]: cell for cell in cells})
        count.add(cells)
    if not count.failed:
        store.finish(run, _now())
    return run


def estimate(todo: Sequence[CellKey], measured: Sequence[Cell], workers: int) -> float | None:
    """Seconds that `todo` takes, from cells that were measured, each method by its own; None where none was.

    What cells share is counted with the one that made it, and sets are done as a whole: so the mean is right, and a
    median would not be.
    """
    if not measured:
        return None
    seconds: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell in measured:
        seconds[cell.key.model, cell.key.method].append(sum(cell.seconds.values()))
    means = {maker: fmean(each) for maker, each in seconds.items()}
    usual = fmean(means.values())
    return sum(means.get((key.model, key.method), usual) for key in todo) / workers


def known_cell(store: Store, content: str) -> Cell | None:
    """A cell that was made before and whose predictions stand, without its groups and ranges."""
    cell = store.get(content)
    return _slim(cell) if cell and cell.status == DONE and store.stands(cell) else None


def _slim(cell: Cell) -> Cell:
    # Groups and ranges lie in the store; thousands of cells with theirs would fill memory.
    return replace(cell, report={}, ranges={})


def distinct(keys: Mapping[CellKey, str]) -> dict[CellKey, str]:
    """One cell of each content: a sampler in place of a set's own makes equal cells of several sets."""
    first: dict[str, CellKey] = {}
    for key, content in keys.items():
        first.setdefault(content, key)
    return {key: content for content, key in first.items()}


def _results(grid: CellGrid, missing: Sequence[CellKey], store: Store, engine: Engine) -> Iterator[tuple[Cell, ...]]:
    """Runs jobs until each missing cell has a result. A job whose worker died is done again cell by cell.

    For each model: first what all its jobs share, so that no two workers make it at once; then the parts of large
    calibration sets; then the cells.
    """
    by_model = {model: [key for key in missing if key.model == model] for model in grid.plan.models}
    cache = store.cache.root.resolve()
    running: Counter[str] = Counter()

    def submit(jobs: Iterable[SweepJob]) -> None:
        for job in jobs:
            engine.submit(job)
            running[job.model] += 1

    submit(SweepJob(grid.plan, model, (), cache, engine.threads) for model, keys in by_model.items() if keys)
    while running.total():
        outcome = engine.wait()
        job = outcome.job
        running[job.model] -= 1
        if outcome.error is not None:
            raise outcome.error
        if outcome.died:
            again, failed = _after_death(outcome, by_model[job.model])
            submit(again)
            if failed:
                yield failed
                continue
        elif job.part is None and job.cells:
            yield outcome.result.cells
            continue
        keys, context = by_model[job.model], grid.contexts[job.model]
        if not job.cells and not outcome.died:
            submit(replace(job, cells=(key,), part=part) for key, part in _parts(keys, context))
        if not running[job.model]:
            submit(replace(job, cells=batch, part=None) for batch in batches(keys, context, engine.workers))


def _after_death(outcome: JobOutcome, keys: Sequence[CellKey]) -> tuple[list[SweepJob], tuple[Cell, ...]]:
    """What is done again after a worker died of a job, and the cells that are given up for it."""
    job, deaths = outcome.job, outcome.job.attempt + 1
    if len(job.cells) > 1:
        return [replace(job, cells=(key,)) for key in job.cells], ()
    if deaths < ATTEMPTS:
        return [replace(job, attempt=deaths)], ()
    if job.part is not None:
        return [], ()  # The cells that need the part will make it, or say why not.
    reason = f"its worker {outcome.died}, {deaths} times"
    return [], tuple(Cell(key, FAILED, error=reason) for key in job.cells or keys)


def _parts(keys: Sequence[CellKey], context: ModelContext) -> list[tuple[CellKey, tuple[int, int]]]:
    """The parts of the calibration sets that are large enough to be observed by several workers."""
    size = context.plan.calib_size or 0
    count = -(-size // PART_SAMPLES)
    if count < 2:
        return []
    sets = {(context.recipe(key).calibration, key.seed, context.recipe(key).environments): key for key in keys}
    return [(key, (part, count)) for key in sets.values() for part in range(count)]


def batches(keys: Sequence[CellKey], context: ModelContext, workers: int) -> Iterator[tuple[CellKey, ...]]:
    """Jobs of a model. A set is never divided: one pass serves all its methods, and equal ranges meet in one job.

    Each takes at most half of what would be a worker's share of the rest, so that the last jobs are small and all
    workers end at about the same time.
    """
    at_once = min(BATCH_CELLS, BATCH_BYTES // max(1, context.inputs.model.size))

    def drawn(key: CellKey) -> tuple[str, int, bool]:
        return context.recipe(key).calibration, key.seed, key.runtime == "cpu"

    left = len(keys)
    batch: list[CellKey] = []
    for _, group in itertools.groupby(sorted(keys, key=drawn), key=drawn):
        one = list(group)
        if batch and len(batch) + len(one) > min(at_once, -(-left // (2 * workers))):
            yield tuple(batch)
            left -= len(batch)
            batch = []
        batch += one
    if batch:
        yield tuple(batch)


class _Count:
    """Counts the cells of the grid, those of equal content as one result each."""

    def __init__(self, grid: CellGrid, known: Mapping[str, Cell], workers: int, progress: Watch) -> None:
        self._workers = workers
        self._grid = grid
        self._results = dict(known)
        self._measured: list[Cell] = []
        self._progress = progress
        self._known = sum(content in known for content in grid.keys.values())
        self._show()

    @property
    def failed(self) -> int:
        """Cells of the grid that failed."""
        return sum(cell.status == FAILED for cell in self._found())

    def _found(self) -> list[Cell]:
        return [self._results[content] for content in self._grid.keys.values() if content in self._results]

    def add(self, cells: Iterable[Cell]) -> None:
        """More results."""
        for cell in cells:
            self._results[self._grid.keys[cell.key]] = slim = _slim(cell)
            self._measured.append(slim)
        self._show()

    def _show(self) -> None:
        todo = [key for key, content in distinct(self._grid.keys).items() if content not in self._results]
        self._progress(
            State(
                cells=len(self._grid.keys),
                known=self._known,
                done=len(self._found()),
                failed=self.failed,
                seconds_left=estimate(todo, self._measured, self._workers),
            )
        )


def _empty_study(grid: CellGrid, command: str) -> Study:
    created = _now()
    recipes = {grid.contexts[key.model].recipe(key) for key in grid.keys}
    steps = [step for recipe in recipes for step in recipe.weight_transforms]
    return Study(
        run=f"{created[:10]}-{grid.digest[:6]}",
        name=one_line(grid.plan.title),
        created=created,
        plan=grid.plan.to_dict(),
        cells=tuple(Cell(key, FAILED) for key in grid.keys),
        versions={**versions(), **library_versions(steps)},
        machine=_machine(grid),
        command=command,
    )


def _machine(grid: CellGrid) -> dict[str, object]:
    from onnxptq.runtimes import cpu_features

    gpus = sorted({identity["gpu"] for identity in grid.runtimes.values() if identity.get("gpu")})
    return {"cpu": " ".join(cpu_features()), "cores": cores(), **({"gpu": ", ".join(gpus)} if gpus else {})}


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
