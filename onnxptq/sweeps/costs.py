"""What the parts of a sweep cost on one worker, measured on a few samples: an estimate before any cell is made."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSet
from onnxptq.calibrators.statistics import CalibrationStatistics, merge
from onnxptq.errors import DataError, OnnxptqError
from onnxptq.evaluation import Predictions, compare, predict
from onnxptq.evaluation.model_under_test import WorkerPool
from onnxptq.evaluation.run import predict_each
from onnxptq.evaluation.sample_runner import BATCH
from onnxptq.graphs import Model, load_model
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS
from onnxptq.quantization.static import environments_of
from onnxptq.recipe import Recipe
from onnxptq.sweeps.kept_samples import KeptSamples
from onnxptq.sweeps.model_context import ModelContext
from onnxptq.sweeps.study import CellKey

_PASS_SAMPLES = 8
"""Calibration samples of each environment that are observed."""

_QUANTIZE_SECONDS = 6.0
"""For making INT8 models. Methods that do not get their turn are taken for the dearest that did."""

_JUDGE_SECONDS = 1.0
"""For FP32, on as many rows as that takes; each runtime then judges one INT8 model on them."""

_FIRST_ROWS = 16
"""To judge on, to begin with: a large model takes seconds for so many, a small one loads longer than it runs."""

Maker = tuple[str, str]
"""Method and target."""


@dataclass(frozen=True)
class Costs:
    """Seconds on one worker, on a machine as busy as it was.

    Attributes:
        opened: until a worker knows the model and its data.
        warm: of the first pass and the first INT8 model, beyond those that follow: what is loaded and compiled once.
        draws: of one set, by its sampler.
        sample: one calibration sample in a pass.
        quantize: one INT8 model. Methods that learn are not among them: one may take as long as all others.
        row: one sample to judge on, read, decoded and corrupted.
        row_bytes: its size in memory.
        reference: FP32 on one row.
        judge: one INT8 model on one row, by runtime: from loading it to its report.
        count: samples in the set.
        spent: on measuring all this.
    """

    opened: float
    warm: float
    draws: Mapping[str, float]
    sample: float
    quantize: Mapping[Maker, float]
    row: float
    row_bytes: float
    reference: float
    judge: Mapping[str, float]
    count: int
    spent: float


def sampler_of(recipe: Recipe) -> str:
    """How the set of a recipe is drawn, without what is done to its samples."""
    return str(replace(CalibrationSet.parse(recipe.calibration), shifts=()))


def is_learned(recipe: Recipe) -> bool:
    """Whether weights are learned, which takes minutes and is not measured."""
    return any(WEIGHT_TRANSFORMS.get(step.name).takes_progress for step in recipe.weight_transforms)


def measure(context: ModelContext, cells: Sequence[CellKey], opened: float) -> Costs:
    """Measures the parts of the cells of one set. Beside the folded model nothing is kept of it.

    Args:
        context: of the model.
        cells: of one calibration set, strategy and seed: all methods, targets and runtimes.
        opened: seconds that opening the context took.

    Raises:
        OnnxptqError: the set cannot be drawn, or not one of its cells can be made.
    """
    started = time.perf_counter()
    _ = context.folded
    draws: dict[str, float] = {}
    for key in context.plan.grid:
        recipe = context.recipe(key)
        if sampler_of(recipe) not in draws:
            with suppress(OnnxptqError):  # The cells of a set that cannot be drawn fail, and take no time.
                draws[sampler_of(recipe)] = _seconds(partial(context.draw, recipe))
    with tempfile.TemporaryDirectory(prefix="onnxptq.sweep.") as folder:
        cache = Cache(Path(folder))
        warm, sample, statistics = _observed(context, cells)
        warm_too, quantize, model = _quantized(context, cells, statistics, cache)
        samples = _few(context, Cache(cache.root / "few"))  # What it predicts must not be found when it is timed.
        row_bytes = 0.0

        def read() -> None:
            nonlocal row_bytes
            for _, feeds in samples.batches(BATCH):
                row_bytes += sum(array.nbytes for array in feeds.values())

        row = _seconds(read) / len(samples)
        reference = _seconds(lambda: predict([context.reference], samples, cache)) / len(samples)
        judge = {name: _judged(context, model, name, samples, cache) for name in context.plan.runtimes}
    return Costs(
        opened=opened,
        warm=warm + warm_too,
        draws=draws,
        sample=sample,
        quantize=quantize,
        row=row,
        row_bytes=row_bytes / len(samples),
        reference=reference,
        judge=judge,
        count=context.draw(context.recipe(cells[0])).count,
        spent=opened + time.perf_counter() - started,
    )


def _seconds(step: Callable[[], object]) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _observed(context: ModelContext, cells: Sequence[CellKey]) -> tuple[float, float, dict[str, CalibrationStatistics]]:
    """Seconds that the first sample takes longer, those of one sample, and what was seen of each environment."""
    environments = {
        name: replace(samples, count=min(samples.count, _PASS_SAMPLES))
        for recipe in map(context.recipe, cells)
        for name, samples in environments_of(recipe, context.draw(recipe)).items()
    }
    warm = _seconds(lambda: context.collect(replace(next(iter(environments.values())), count=1)))
    started = time.perf_counter()
    seen = {name: context.collect(samples, name) for name, samples in environments.items()}
    sample = (time.perf_counter() - started) / sum(map(len, environments.values()))
    return max(0.0, warm - sample), sample, seen


def _quantized(
    context: ModelContext, cells: Sequence[CellKey], seen: Mapping[str, CalibrationStatistics], cache: Cache
) -> tuple[float, dict[Maker, float], Model]:
    """Seconds that the first model takes longer, those of one model each, and the last model."""
    seconds: dict[Maker, float] = {}
    warm, error = 0.0, None
    path = cache.root / "int8.onnx"
    for maker, recipe in {(key.method, key.target): context.recipe(key) for key in cells}.items():
        if is_learned(recipe) or sum(seconds.values()) > _QUANTIZE_SECONDS:
            continue
        make = partial(_quantize, context, recipe, seen, path, cache)
        try:
            seconds[maker] = took = _seconds(make)
            if len(seconds) == 1:
                seconds[maker] = _seconds(make)
                warm = max(0.0, took - seconds[maker])
        except OnnxptqError as reason:
            error = reason  # Its cells will fail, which takes no time worth counting.
            seconds[maker] = 0.0
    if not path.exists():
        raise error or DataError(f"nothing can be measured of {context.name}: all methods learn.")
    return warm, seconds, load_model(path, written_here=True)


def _quantize(
    context: ModelContext, recipe: Recipe, seen: Mapping[str, CalibrationStatistics], path: Path, cache: Cache
) -> None:
    samples = context.draw(recipe)
    known = merge(*(seen[name] for name in environments_of(recipe, samples))) if context.observes(recipe) else None
    context.quantize(recipe, samples, known, path, cache)


def _few(context: ModelContext, cache: Cache) -> KeptSamples:
    """So many of the samples to judge on that FP32 takes `_JUDGE_SECONDS`."""
    whole = context.samples

    def first(count: int) -> KeptSamples:
        chosen = whole.dataset.select(np.arange(min(count, len(whole.dataset))))
        return KeptSamples(whole.task, chosen, whole.corruptions, whole.seed)

    count = max(1, _FIRST_ROWS // len(whole.corruptions))
    while True:
        took = _seconds(partial(predict, [context.reference], first(count), cache))
        if count >= len(whole.dataset) or took > _JUDGE_SECONDS / 4:
            return first(max(count, int(count * _JUDGE_SECONDS / took)))
        count *= 4


def _judged(context: ModelContext, model: Model, name: str, samples: KeptSamples, cache: Cache) -> float:
    """Seconds a row."""

    def judge() -> None:
        with WorkerPool(cache) as pool:
            judged = pool.model(model, context.runtime(name))
            reference, run = predict_each([context.reference, judged], samples, cache)
        if isinstance(reference, Predictions) and isinstance(run, Predictions):
            compare(reference, run, context.plan.groups, minimum_samples=context.minimum_samples)

    return _seconds(judge) / len(samples)
