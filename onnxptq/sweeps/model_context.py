"""One model of a plan in its context: what its cells share is made once and kept while they are worked on."""

from __future__ import annotations

import platform
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from onnxptq.cache import Cache, content_key, user_cache
from onnxptq.calibration import check_labels, draw_from, draws_here, with_calibration_side
from onnxptq.calibrators import CalibrationSamples, CalibrationSet, meant_for
from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.calibrators.samples import DECODED_BYTES, DecodedSamples
from onnxptq.calibrators.statistics import CalibrationStatistics, merge
from onnxptq.data import Dataset
from onnxptq.data.versions import data_versions
from onnxptq.errors import DataError
from onnxptq.evaluation import EvaluationSamples, ModelUnderTest, default_corruptions, named_corruptions
from onnxptq.evaluation.groups import check_groupings
from onnxptq.evaluation.report import MINIMUM_SAMPLES, REPORT_VERSION
from onnxptq.graphs import fold
from onnxptq.graphs.external import has_external_data
from onnxptq.inputs import DataOptions, Inputs, check_fits, resolve_for_quantization
from onnxptq.int8_file import space_for
from onnxptq.judging import EVALUATION_SEED
from onnxptq.methods import fitted
from onnxptq.quantization.collect import CalibrationPass
from onnxptq.quantization.harm import quantize_without_harm
from onnxptq.quantization.passes import observe, statistics_place
from onnxptq.quantization.plugins import library_versions
from onnxptq.quantization.static import Quantized, environments_of, quantizer_settings
from onnxptq.quantization.writer import writer_for
from onnxptq.recipe import Recipe
from onnxptq.runtimes.selection import Runtime, ready, resolve_runtime
from onnxptq.sweeps.kept_samples import KeptSamples
from onnxptq.sweeps.plan import BUILTIN, Plan, compose, recipe_of
from onnxptq.sweeps.study import CellKey

PART_SAMPLES = 256
"""Samples of a calibration set that are observed in one go. A larger set is observed in parts, on several workers."""

_KEPT = 4
"""Drawn sets and their statistics that are kept: cells come set by set, and their neighbours need them again."""

_NO_DATA = "no data"
"""The key of the side of sets of noise, beside the sources of foreign ones."""

K = TypeVar("K")
V = TypeVar("V")


@dataclass
class ModelContext:
    """A model with its data, and what was made of both so far.

    Attributes:
        plan: whose model it is.
        name: what the plan calls the model.
        cache: where everything that is made is kept.
        inputs: what was resolved; the evaluation side is the one that all cells are judged on.
        samples: what the models are judged on.
        places: where files that the plan names lie on this machine, if elsewhere.
    """

    plan: Plan
    name: str
    cache: Cache
    inputs: Inputs
    samples: EvaluationSamples
    places: Mapping[str, str] = field(default_factory=dict)
    _drawn: OrderedDict[Any, CalibrationSamples] = field(default_factory=OrderedDict)
    _observed: OrderedDict[Any, CalibrationStatistics] = field(default_factory=OrderedDict)
    _decoded: DecodedSamples = field(default_factory=lambda: DecodedSamples(DECODED_BYTES))
    _sides: dict[str, Inputs] = field(default_factory=dict)
    _runtimes: dict[str, Runtime] = field(default_factory=dict)

    @cached_property
    def folded(self) -> Path:
        """The FP32 model after `quant_pre_process`."""
        return fold(self.inputs.model, self.cache)

    @property
    def reference(self) -> ModelUnderTest:
        """The FP32 model, which runs on the CPU of this environment."""
        return ModelUnderTest(self.inputs.model)

    def recipe(self, key: CellKey) -> Recipe:
        """What makes the INT8 model of a cell, with the augmentations of its task where the method wants them."""
        task = self.inputs.task
        meant = replace(key, calibration=meant_for(key.calibration, task), strategy=meant_for(key.strategy, task))
        return fitted(recipe_of(self.plan, meant), task)

    def runtime(self, name: str) -> Runtime:
        """A runtime of the plan. Raises RuntimeUnavailableError where it does not load here."""
        if name not in self._runtimes:
            # Environments are added to the user's cache, wherever this sweep keeps its results.
            self._runtimes[name] = ready(resolve_runtime(name, user_cache()))
        return self._runtimes[name]

    def draw(self, recipe: Recipe) -> CalibrationSamples:
        """The calibration set of a recipe, drawn from the side that it draws from."""

        def make() -> CalibrationSamples:
            calibration_set = CalibrationSet.parse(recipe.calibration)
            drawn = draw_from(self._side(calibration_set), calibration_set, recipe.size, recipe.seed)
            return replace(drawn, decoded=self._decoded)

        return _kept(self._drawn, (recipe.calibration, recipe.size, recipe.seed), make)

    @cached_property
    def tensors(self) -> tuple[str, ...]:
        """All that any method and target of the plan reads of a calibration pass, so that one pass serves them all."""
        external = has_external_data(self.folded)
        observed: set[str] = set()
        for key in self.plan.grid:
            recipe = self.recipe(key)
            if (key.calibration, key.seed) == (self.plan.calibrations[0], self.plan.seeds[0]):
                settings = quantizer_settings(recipe, self.folded)
                observed.update(writer_for(self.folded, settings, external=external).plan.observed)
        return tuple(sorted(observed))

    @cached_property
    def histograms(self) -> bool:
        """Whether any method of the plan reads histograms."""
        recipes = (self.recipe(key) for key in self.plan.grid)
        return any(RANGE_METHODS.get(recipe.ranges.name).needs_histogram for recipe in recipes)

    def statistics(self, recipe: Recipe, samples: CalibrationSamples) -> tuple[CalibrationStatistics | None, float]:
        """What passes over a recipe's environments left, and the seconds that they took: 0.0 where they were known.

        None where the pass needs a changed model, which is made while the cell is quantized.
        """
        if not self.observes(recipe):
            return None, 0.0
        seconds, parts = 0.0, []
        for name, environment in environments_of(recipe, samples).items():
            started = time.perf_counter()
            key = (name, environment.digest)
            known = key in self._observed
            parts.append(_kept(self._observed, key, partial(self._observe, name, environment), _KEPT * 8))
            seconds += 0.0 if known else time.perf_counter() - started
        return merge(*parts), seconds

    def observes(self, recipe: Recipe) -> bool:
        """Whether statistics of the folded model serve a recipe, beside those of all others."""
        return not recipe.weight_transforms and recipe.engine != "stock"

    def quantize(
        self,
        recipe: Recipe,
        samples: CalibrationSamples,
        statistics: CalibrationStatistics | None,
        path: Path,
        cache: Cache,
    ) -> Quantized:
        """Writes the INT8 model of a recipe to `path`; arguments and errors as of `quantize_without_harm`."""
        with space_for(self.inputs.model, path.parent):
            return quantize_without_harm(
                self.inputs.model,
                self.folded,
                samples,
                recipe,
                path,
                statistics=statistics,
                task=self.inputs.task,
                cache=cache,
            )

    @property
    def minimum_samples(self) -> int:
        """Samples from which a group is judged."""
        return self.plan.minimum_samples or MINIMUM_SAMPLES

    def cell_key(self, key: CellKey, runtime: Mapping[str, str]) -> str:
        """The content key of a cell: everything that decides its ranges and its report.

        Args:
            key: where it stands.
            runtime: identity of its runtime, on the machine that judges it.
        """
        import onnx

        recipe = self.recipe(key)
        data = self.calibration_data(recipe)
        return content_key(
            "cell",
            model=self.inputs.model.digest,
            recipe=recipe.digest,
            calibration={"digest": data.get("digest"), "split": data.get("split")},
            evaluation=self.samples.dataset.digest,
            task=self.samples.task.name,
            preprocessing=self.samples.task.specification,
            corruptions=list(self.samples.corruptions),
            evaluation_seed=self.samples.seed,
            groups=list(self.plan.groups),
            # Left out where it was not given, so that cells of before are found.
            **({"minimum_samples": self.plan.minimum_samples} if self.plan.minimum_samples else {}),
            runtime=dict(runtime),
            report=REPORT_VERSION,
            versions={
                **data_versions(),
                "onnx": onnx.__version__,
                "python": platform.python_version(),
                **library_versions(recipe.weight_transforms),
            },
        )

    def calibration_data(self, recipe: Recipe) -> Mapping[str, Any]:
        """Where the set of a recipe draws its samples: "digest", "split" and more; nothing for sets of noise."""
        return self._side(CalibrationSet.parse(recipe.calibration)).data

    def parts(self, samples: CalibrationSamples) -> int:
        """In how many parts a calibration set is observed: each is kept, and may be another worker's."""
        return -(-len(samples) // PART_SAMPLES)

    def observe_part(self, recipe: Recipe, part: int, parts: int) -> list[Path]:
        """Observes one part of each environment of a recipe; gives the files that hold the statistics."""
        files = []
        for name, samples in environments_of(recipe, self.draw(recipe)).items():
            if part < self.parts(samples):
                share = replace(samples, shard=(part, self.parts(samples)))
                self._observe_share(name, share)
                tensors, histograms = self.tensors, self.histograms
                files.append(statistics_place(self.cache, self.folded, share, tensors, histograms, False))
        return files

    def collect(self, samples: CalibrationSamples, environment: str = "") -> CalibrationStatistics:
        """A pass over samples that is kept nowhere."""
        return self._pass.collect(samples, environment=environment)

    def _observe(self, name: str, samples: CalibrationSamples) -> CalibrationStatistics:
        count = self.parts(samples)
        # Exact, so byte for byte what one pass over all samples leaves.
        return merge(*(self._observe_share(name, replace(samples, shard=(part, count))) for part in range(count)))

    def _observe_share(self, name: str, samples: CalibrationSamples) -> CalibrationStatistics:
        return observe(
            self.folded,
            {name: samples},
            self.tensors,
            histograms=self.histograms,
            cache=self.cache,
            open_pass=lambda: self._pass,
        )

    @cached_property
    def _pass(self) -> CalibrationPass:
        # All sets run in one session: loading the model takes as long as some ten samples.
        return CalibrationPass(self.folded, self.tensors, histograms=self.histograms)

    def _side(self, calibration_set: CalibrationSet) -> Inputs:
        source = calibration_set.foreign if calibration_set.needs_data else _NO_DATA
        if source not in self._sides:
            there = calibration_set
            if there.foreign:
                there = replace(there, foreign=self.places.get(there.foreign, there.foreign))
            self._sides[source] = with_calibration_side(self.inputs, there, self.plan.options, self.cache)
            check_fits(self._sides[source].calibration, self.inputs.task)
        return self._sides[source]


def open_context(plan: Plan, name: str, cache: Cache, places: Mapping[str, str] | None = None) -> ModelContext:
    """Finds the model and its data; nothing is computed yet. `places` as in `ModelContext`.

    Raises:
        OnnxptqError: the model or the data cannot be used, or a name does not fit them.
    """
    texts = [compose(calibration, strategy) for calibration in plan.calibrations for strategy in plan.strategies]
    needs_data = any(draws_here(CalibrationSet.parse(text)) for text in texts)
    places = places or {}
    model = None if name == BUILTIN else places.get(name, name)
    options = options_at(plan.options, places)
    inputs = resolve_for_quantization(model, options, cache, needs_data=needs_data, evaluate=True)
    if inputs.evaluation is None:
        raise DataError(f"there is no data to judge {name} on. Give data, or calib_data and eval_data, in the plan.")
    for text in texts:
        check_labels(CalibrationSet.parse(text), inputs.calibration)
    check_groupings([*inputs.evaluation.attributes, "corruption"], plan.groups)
    evaluation = _at_most(inputs.evaluation, plan.eval_size)
    check_fits(evaluation, inputs.task)
    if plan.corruptions:
        corruptions = named_corruptions(plan.corruptions, inputs.task)
    else:
        corruptions = default_corruptions(inputs.task, plan.families)
    samples = KeptSamples(inputs.task, evaluation, corruptions, EVALUATION_SEED)
    return ModelContext(plan, name, cache, inputs, samples, places)


def options_at(options: DataOptions, places: Mapping[str, str]) -> DataOptions:
    """The data at the places where it lies on this machine."""
    named = {key: getattr(options, key) for key in ("data", "calib_data", "eval_data")}
    return replace(options, **{key: places.get(source, source) for key, source in named.items() if source})


def _at_most(dataset: Dataset, size: int | None) -> Dataset:
    """The dataset, or `size` of its samples: chosen by content, so that the order of its rows does not matter."""
    if size is None or size >= len(dataset):
        return dataset
    return dataset.select(np.sort(np.argsort(dataset.fingerprints, kind="stable")[:size]))


def _kept(kept: OrderedDict[K, V], key: K, make: Callable[[], V], most: int = _KEPT) -> V:
    if key in kept:
        kept.move_to_end(key)
        return kept[key]
    kept[key] = make()
    while len(kept) > most:
        kept.popitem(last=False)
    return kept[key]


def versions() -> Mapping[str, str]:
    """Of all that decides a study's numbers."""
    import onnx

    from onnxptq.runtimes.installation import import_onnxruntime

    return {
        **{key: value for key, value in data_versions().items() if key != "shifts"},
        "onnx": onnx.__version__,
        "onnxruntime": import_onnxruntime().__version__,
        "python": platform.python_version(),
    }
