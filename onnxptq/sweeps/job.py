"""The job: some cells of one model, from their recipes to their reports. Every engine runs this one function."""

from __future__ import annotations

import functools
import platform
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSet
from onnxptq.calibrators.methods import Range
from onnxptq.errors import OnnxptqError, OutputError
from onnxptq.evaluation import Predictions, compare
from onnxptq.evaluation.model_under_test import WorkerPool
from onnxptq.evaluation.paired import GroupLayout, lay_out
from onnxptq.evaluation.run import predict, predict_each, predictions_place
from onnxptq.evaluation.sanity import reference_notes
from onnxptq.graphs import Model, load_model
from onnxptq.runtimes.cpu import limit_cores
from onnxptq.runtimes.isolated import WorkerError
from onnxptq.sweeps.costs import Costs, measure
from onnxptq.sweeps.model_context import ModelContext, open_context
from onnxptq.sweeps.plan import Plan
from onnxptq.sweeps.study import DONE, FAILED, Cell, CellKey

_SIDE_BY_SIDE = 4
"""Models that run side by side in processes of their own, each with a copy of a provider."""


@dataclass(frozen=True)
class SweepJob:
    """Work for one worker.

    Attributes:
        plan: what the cells belong to.
        model: as the plan names it.
        cells: of that model; () only prepares it: the folded graph and the FP32 predictions.
        cache: root of the cache where everything is kept.
        threads: threads inside one operator of every session.
        part: (i, n): only the statistics of the i-th of n parts of the first cell's calibration set, counted from 0.
        places: where files that the plan names lie on this machine, if elsewhere.
        attempt: how often a worker died of it before.
        measuring: only what the parts of its cells cost is measured; they are of one calibration set.
    """

    plan: Plan
    model: str
    cells: tuple[CellKey, ...]
    cache: Path
    threads: int
    part: tuple[int, int] | None = None
    places: Mapping[str, str] = field(default_factory=dict)
    attempt: int = 0
    measuring: bool = False


@dataclass(frozen=True)
class Result:
    """What a job made.

    Attributes:
        cells: in the order of the job; none of a job that only prepares, or whose set could not be drawn.
        files: what it left in the cache and other workers or the user will read, relative to the cache.
        costs: of a job that measures; None where nothing could be made.
        why: of a job that measures, why it has no costs.
    """

    cells: tuple[Cell, ...] = ()
    files: tuple[str, ...] = ()
    costs: Costs | None = None
    why: str = ""


def run_job(job: SweepJob) -> Result:
    """The cells of a job. What is wrong with one cell fails that cell alone.

    Raises:
        OutputError: nothing can be kept any more (the disk is full).
        OnnxptqError: the model or the data cannot be used.
    """
    limit_cores(job.threads)
    started = time.perf_counter()
    context = _context(job)
    if job.measuring:
        costs = attempt(functools.partial(measure, context, job.cells, time.perf_counter() - started))
        return Result(costs=costs) if isinstance(costs, Costs) else Result(why=str(costs))
    if not job.cells:
        _ = context.folded
        predict([context.reference], context.samples, context.cache)
        return Result(files=_present(context, [predictions_place(context.reference, context.samples, context.cache)]))
    if job.part is not None:
        parts = attempt(functools.partial(context.observe_part, context.recipe(job.cells[0]), *job.part))
        return Result(files=_present(context, parts) if isinstance(parts, list) else ())
    with tempfile.TemporaryDirectory(prefix="onnxptq.sweep.") as folder:
        made = _Maker(context, Path(folder)).all(job.cells)
        judged = _judged(context, [one for one in made if isinstance(one, _Made)])
    cells = tuple(_cell(key, one, judged, context) for key, one in zip(job.cells, made, strict=True))
    return Result(cells, tuple(dict.fromkeys(cell.predictions for cell in cells if cell.predictions)))


def _present(context: ModelContext, paths: Sequence[Path]) -> tuple[str, ...]:
    """Paths relative to the cache, of files that are there."""
    return tuple(path.relative_to(context.cache.root).as_posix() for path in paths if path.is_file())


def _context(job: SweepJob) -> ModelContext:
    return _open(job.plan, job.model, job.cache, tuple(sorted(job.places.items())))


@functools.lru_cache(maxsize=2)
def _open(plan: Plan, model: str, cache: Path, places: tuple[tuple[str, str], ...]) -> ModelContext:
    """Kept in the worker: jobs of one model follow each other."""
    return open_context(plan, model, Cache(cache), dict(places))


@dataclass(frozen=True)
class _Made:
    """An INT8 model and how it came about.

    Attributes:
        model: the file, without provenance, so that equal ranges make equal digests.
        ranges: of each quantized tensor.
        recipe_digest: what made it.
        seconds: "calibrate" and "quantize".
        runtime: what it will be judged on.
    """

    model: Model
    ranges: Mapping[str, Range]
    recipe_digest: str
    seconds: Mapping[str, float]
    runtime: str


class _Maker:
    """Makes the INT8 models of a job; cells of one recipe share one."""

    def __init__(self, context: ModelContext, folder: Path) -> None:
        self._context = context
        self._folder = folder
        self._made: dict[str, _Made] = {}

    def all(self, keys: Sequence[CellKey]) -> list[_Made | str]:
        """A model for each cell, or why there is none."""
        return [attempt(functools.partial(self._one, key)) for key in keys]

    def _one(self, key: CellKey) -> _Made:
        recipe = self._context.recipe(key)
        if recipe.digest in self._made:
            return replace(self._made[recipe.digest], runtime=key.runtime, seconds={"calibrate": 0.0, "quantize": 0.0})
        samples = self._context.draw(recipe)
        statistics, calibrated = self._context.statistics(recipe, samples)
        started = time.perf_counter()
        path = self._folder / f"{len(self._made)}.onnx"
        quantized = self._context.quantize(recipe, samples, statistics, path, self._context.cache)
        seconds = {"calibrate": calibrated, "quantize": time.perf_counter() - started}
        made = _Made(load_model(path, written_here=True), quantized.ranges, recipe.digest, seconds, key.runtime)
        self._made[recipe.digest] = made
        return made


@dataclass(frozen=True)
class _Judged:
    """What one INT8 model did on one runtime: its report, or why there is none; the seconds of it; and what is wrong
    with FP32 on these samples."""

    report: Mapping[str, Any] | None
    error: str
    seconds: float
    predictions: str = ""
    before_blame: tuple[str, ...] = ()


def _judged(context: ModelContext, made: Sequence[_Made]) -> dict[tuple[str, str], _Judged]:
    """By (digest, runtime): models of equal digests are judged once, and all on one pass through the samples."""
    found: dict[tuple[str, str], _Judged] = {}
    for runtime in dict.fromkeys(one.runtime for one in made):
        models = list({one.model.digest: one.model for one in made if one.runtime == runtime}.values())
        size = len(models) if context.runtime(runtime).here else _SIDE_BY_SIDE
        for start in range(0, len(models), size):
            part = models[start : start + size]
            found |= _judge_together(context, part, runtime)
    return found


def _judge_together(context: ModelContext, models: Sequence[Model], runtime: str) -> dict[tuple[str, str], _Judged]:
    started = time.perf_counter()
    with WorkerPool(context.cache) as pool:
        chosen = [pool.model(model, context.runtime(runtime)) for model in models]
        reference, *runs = predict_each([context.reference, *chosen], context.samples, context.cache)
        places = [predictions_place(one, context.samples, context.cache) for one in chosen]
    assert isinstance(reference, Predictions), "predict_each raises what the reference fails with"
    each = (time.perf_counter() - started) / len(models)
    layout = lay_out(reference, context.plan.groups)
    before_blame = reference_notes(reference)
    judged = {}
    for model, run, place in zip(models, runs, places, strict=True):
        started = time.perf_counter()
        outcome = run if isinstance(run, OnnxptqError) else attempt(_reporting(context, reference, run, layout))
        report = outcome if isinstance(outcome, dict) else None
        seconds = each + time.perf_counter() - started
        kept = _present(context, [place])
        error = "" if report else str(outcome)
        judged[model.digest, runtime] = _Judged(report, error, seconds, kept[0] if kept else "", before_blame)
    return judged


def _reporting(
    context: ModelContext, reference: Predictions, run: Predictions, layout: GroupLayout
) -> Callable[[], dict[str, Any]]:
    least = context.minimum_samples
    return lambda: compare(reference, run, context.plan.groups, layout=layout, minimum_samples=least).to_dict()


def _cell(key: CellKey, made: _Made | str, judged: dict[tuple[str, str], _Judged], context: ModelContext) -> Cell:
    if isinstance(made, str):
        return Cell(key, FAILED, error=made)
    result = judged[made.model.digest, made.runtime]
    if result.report is None:
        return Cell(key, FAILED, error=_line(result.error), recipe_digest=made.recipe_digest)
    # The first cell of a digest in a job pays for it; those that follow found it done.
    judged[made.model.digest, made.runtime] = replace(result, seconds=0.0)
    reference = context.inputs.model.path.name
    origin = _origin(key, context)
    if result.before_blame:
        origin["before_blame"] = list(result.before_blame)
    return Cell(
        key=key,
        status=DONE,
        report={**result.report, "model": _name(key, context), "reference": reference, "origin": origin},
        ranges={tensor: (float(low), float(high)) for tensor, (low, high) in sorted(made.ranges.items())},
        recipe_digest=made.recipe_digest,
        model_digest=made.model.digest,
        seconds={**made.seconds, "evaluate": result.seconds},
        int8_bytes=made.model.size,
        predictions=result.predictions,
    )


def _origin(key: CellKey, context: ModelContext) -> dict[str, Any]:
    """What a cell was made of, by digest, what it was judged under, and on what system."""
    return {
        "model": context.inputs.model.digest,
        "data": context.calibration_data(context.recipe(key)).get("digest"),
        "evaluation": context.samples.dataset.digest,
        "corruptions": list(context.samples.corruptions),
        "system": platform.platform(),
    }


def _name(key: CellKey, context: ModelContext) -> str:
    """What reports call the INT8 model: it has no file of its own."""
    calibration = CalibrationSet.parse(context.recipe(key).calibration).short
    return f"{Path(key.model).stem}.{calibration}.{key.method}.{key.target}"


def attempt(step: Callable[[], Any]) -> Any:
    """What `step` gives, or in one line why it gives nothing.

    Raises:
        OutputError: nothing can be kept any more, so there is no use in going on.
    """
    try:
        return step()
    except OutputError:
        raise
    except (OnnxptqError, WorkerError, MemoryError) as error:
        return _line(str(error) or "out of memory")
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _line(f"a bug of ours: {type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})")


def _line(text: str) -> str:
    return " ".join(text.split())
