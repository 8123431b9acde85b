"""What a sweep would do, and how long it would take: `onnxptq sweep --dry-run`."""

from __future__ import annotations

import heapq
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from onnxptq.evaluation.run import predictions_place
from onnxptq.sweeps.costs import Costs, is_learned, sampler_of
from onnxptq.sweeps.engine import Engine
from onnxptq.sweeps.job import SweepJob
from onnxptq.sweeps.kept_samples import KEPT_BYTES
from onnxptq.sweeps.model_context import ModelContext
from onnxptq.sweeps.run import CellGrid, batches, distinct, known_cell
from onnxptq.sweeps.store import Store
from onnxptq.sweeps.study import CellKey

_MEASURING = 4
"""Workers that measure at once at most, each another set: as many at work as there will be, and sets differ."""

SURE = 1.5
"""By this factor an estimate may be off, either way, where the machine stays as busy as it was (docs/sweep.md)."""


@dataclass(frozen=True)
class Ahead:
    """What a sweep would do. `known` and `todo` add up to `distinct`.

    Attributes:
        cells: in the grid.
        distinct: of different content: each is made once.
        known: of the distinct ones, found in the store.
        todo: of the distinct ones, still to be made.
        workers: how many would make them.
        seconds: how long that would take; None where nothing could be measured.
        measured_seconds: what measuring it took. No cell was made for it.
        not_estimated: methods that learn: they are not in `seconds`.
        not_measured: models of which nothing could be made, each with the reason: they are not in `seconds` either.
        corruptions: what models are judged under.
        samples: rows that each model is judged on, of the first model.
    """

    cells: int
    distinct: int
    known: int
    todo: int
    workers: int
    seconds: float | None
    measured_seconds: float
    not_estimated: tuple[str, ...]
    not_measured: Mapping[str, str]
    corruptions: tuple[str, ...]
    samples: int

    def to_dict(self) -> dict[str, object]:
        """As JSON types."""
        lists = {"corruptions": list(self.corruptions), "not_estimated": list(self.not_estimated)}
        return {**asdict(self), **lists}


def look_ahead(grid: CellGrid, store: Store, engine: Engine) -> Ahead:
    """What a sweep would do. No cell is made: workers measure what the parts of cells cost, on a few samples.

    A set of which nothing can be made is not counted: its cells will fail at once.

    Raises:
        OnnxptqError: a model or its data turned out to be unusable.
    """
    started = time.perf_counter()
    cells = distinct(grid.keys)
    missing = [key for key, content in cells.items() if known_cell(store, content) is None]
    measured, not_measured, start = _measured(grid, missing, store, engine)
    learned = {key.method for key in missing if is_learned(grid.contexts[key.model].recipe(key))}
    samples = next(iter(grid.contexts.values())).samples
    return Ahead(
        cells=len(grid.keys),
        distinct=len(cells),
        known=len(cells) - len(missing),
        todo=len(missing),
        workers=engine.workers,
        seconds=_wall(grid, missing, measured, start, store, engine.workers) if measured else None,
        measured_seconds=time.perf_counter() - started,
        not_estimated=tuple(sorted(learned)),
        not_measured=not_measured,
        corruptions=samples.corruptions,
        samples=len(samples),
    )


def _measured(
    grid: CellGrid, missing: Sequence[CellKey], store: Store, engine: Engine
) -> tuple[dict[str, list[Costs]], dict[str, str], float]:
    """What workers measured, by model; why they measured nothing of others; the seconds until a worker is at work."""
    jobs = []
    for model in dict.fromkeys(key.model for key in missing):
        sets: dict[tuple[str, str, int], list[CellKey]] = defaultdict(list)
        for key in missing:
            if key.model == model:
                sets[key.calibration, key.strategy, key.seed].append(key)
        count = max(1, min(len(sets), engine.workers, _MEASURING) // len(grid.plan.models))
        for chosen in list(sets.values())[:: -(-len(sets) // count)]:
            jobs.append(
                SweepJob(grid.plan, model, tuple(chosen), store.cache.root.resolve(), engine.threads, measuring=True)
            )
    started = time.perf_counter()
    for job in jobs:
        engine.submit(job)
    found: dict[str, list[Costs]] = defaultdict(list)
    reasons: dict[str, str] = {}
    starts = []
    for _ in jobs:
        outcome = engine.wait()
        if outcome.error is not None:
            raise outcome.error
        if outcome.result.costs is None:
            reasons.setdefault(outcome.job.model, outcome.result.why or f"its worker {outcome.died}")
        else:
            starts.append(time.perf_counter() - started - outcome.result.costs.spent)
            found[outcome.job.model].append(outcome.result.costs)
    not_measured = {model: why for model, why in reasons.items() if model not in found}
    return found, not_measured, min(starts, default=0.0)


def _wall(
    grid: CellGrid,
    missing: Sequence[CellKey],
    measured: Mapping[str, Sequence[Costs]],
    start: float,
    store: Store,
    workers: int,
) -> float:
    """Seconds until the last of the jobs that `sweep` would submit has ended, taken by workers as they get free."""
    free = [(0.0, number) for number in range(workers)]
    opened: set[tuple[int, str]] = set()
    warm: set[tuple[int, str]] = set()  # A preparation only opens the context: no pass is loaded, no quantizer.
    read: set[tuple[int, str]] = set()
    prepared: dict[str, float] = {}
    end = 0.0
    by_model = {model: [key for key in missing if key.model == model] for model in measured}
    jobs: list[tuple[str, tuple[CellKey, ...]]] = [(model, ()) for model in by_model]
    for model, keys in by_model.items():
        jobs += [(model, batch) for batch in batches(keys, grid.contexts[model], workers)]
    for model, cells in jobs:
        at, worker = heapq.heappop(free)
        context, costs, place = grid.contexts[model], measured[model], (worker, model)
        at = max(at, prepared.get(model, 0.0))
        if place not in opened:
            at += fmean(one.opened for one in costs) + (start if all(known != worker for known, _ in opened) else 0.0)
            opened.add(place)
        if cells:
            at += fmean(_batch(cells, context, one, warm=place in warm, read=place in read) for one in costs)
            warm.add(place)
            read.add(place)
        else:
            if not predictions_place(context.reference, context.samples, store.cache).is_file():
                at += len(context.samples) * fmean(one.row + one.reference for one in costs)
                read.add(place)
            prepared[model] = at
        heapq.heappush(free, (at, worker))
        end = max(end, at)
    return end


def _batch(cells: Sequence[CellKey], context: ModelContext, costs: Costs, *, warm: bool, read: bool) -> float:
    """Seconds of one job, on a worker that is warm or made no cell of the model yet, and read its samples or not."""
    recipes = {(context.recipe(key), key.method, key.target) for key in cells}
    drawn = {(recipe.calibration, recipe.seed): sampler_of(recipe) for recipe, _, _ in recipes}
    passes = {
        (recipe.calibration, recipe.seed, environment): min(environment.size or costs.count, costs.count)
        for recipe, _, _ in recipes
        if not recipe.weight_transforms and recipe.engine != "stock"
        for environment in recipe.environments
    }
    dearest = max(costs.quantize.values())
    rows = len(context.samples)
    kept = rows * costs.row_bytes <= KEPT_BYTES
    runtimes = {key.runtime for key in cells}
    return sum(
        [
            0.0 if warm else costs.warm,
            *(costs.draws.get(sampler, 0.0) for sampler in drawn.values()),
            costs.sample * sum(passes.values()),
            *(
                costs.quantize.get((method, target), dearest)
                for recipe, method, target in recipes
                if not is_learned(recipe)
            ),
            rows * sum(costs.judge[key.runtime] for key in cells),
            0.0 if kept and read else rows * costs.row * (1 if kept else len(runtimes)),
        ]
    )
