"""From a folded FP32 model, drawn samples and a recipe to an INT8 file: the path that every quantization takes."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.methods import RANGE_METHODS, Range
from onnxptq.calibrators.statistics import CalibrationStatistics, merge
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.graphs import Model
from onnxptq.quantization._stock import quantize_with_ranges
from onnxptq.quantization.collect import collect
from onnxptq.quantization.outputs import leave_outputs_in_float
from onnxptq.quantization.plan import CalibrationPlan, plan_calibration
from onnxptq.quantization.plugins import bounded, transformed
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.stock import stock_ranges
from onnxptq.quantization.targets import TARGETS
from onnxptq.recipe import Environment, Recipe

ENGINES = ("one-pass", "stock")

Progress = Callable[[int], None]


def quantize_folded(
    model: Model,
    folded: Path,
    samples: CalibrationSamples,
    recipe: Recipe,
    output: Path,
    *,
    progress: Progress = lambda samples: None,
) -> None:
    """Writes the INT8 model of a recipe, without provenance.

    Args:
        model: what `folded` was made from.
        folded: the FP32 model after `quant_pre_process`.
        samples: the drawn calibration set.
        recipe: how.
        output: the file to write.
        progress: called with 1 for every calibration sample that was run.

    Raises:
        UsageError: the recipe names what there is not.
        DataError: a sample gives NaN or infinity, or does not fit the model.
    """
    settings = quantizer_settings(recipe, folded)
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        source = transformed(folded, samples, recipe.weight_transforms, Path(folder))
        ranges = _ranges(model, source, samples, recipe, settings, progress)
        quantize_with_ranges(source, bounded(ranges, source, samples, recipe.bounds), output, settings)
    if recipe.float_outputs:
        leave_outputs_in_float(output)


def quantizer_settings(recipe: Recipe, folded: Path) -> QuantizerSettings:
    """The settings of the recipe's target, with the nodes that stay in float.

    Raises:
        UsageError: an unknown target, or a node that the folded model does not have.
    """
    settings = TARGETS.get(recipe.target).settings
    if not recipe.float_nodes:
        return settings
    names = node_names(folded)
    excluded: dict[str, None] = {}
    for pattern in recipe.float_nodes:
        matches = fnmatch.filter(names, pattern)
        if not matches:
            raise UsageError(
                f"the model has no node {pattern!r} after folding. {did_you_mean(pattern, names[:200])} "
                "Patterns such as '/head/*' work too."
            )
        excluded.update(dict.fromkeys(matches))
    return replace(settings, nodes_to_exclude=tuple(excluded))


def node_names(folded: Path) -> list[str]:
    """Names of the nodes of a model."""
    import onnx

    return [node.name for node in onnx.load(str(folded), load_external_data=False).graph.node]


def _ranges(
    model: Model,
    source: Path,
    samples: CalibrationSamples,
    recipe: Recipe,
    settings: QuantizerSettings,
    progress: Progress,
) -> Mapping[str, Range]:
    environments = {_name(environment): samples.environment(environment) for environment in recipe.environments}
    if recipe.engine == "stock":
        batch = fixed_batch(model)
        return stock_ranges(source, list(environments.values()), recipe.ranges, settings, batch)
    if recipe.engine != "one-pass":
        raise UsageError(f"unknown engine {recipe.engine!r}. {did_you_mean(recipe.engine, ENGINES)}")
    plan = plan_calibration(source, settings)
    statistics = collect_environments(source, environments, recipe, plan, progress)
    # The quantizer wants a range for names that it never uses: any value serves.
    unused = dict.fromkeys(plan.cached, (np.float32(0), np.float32(1)))
    return {**unused, **ranges_from(statistics, recipe, settings)}


def collect_environments(
    source: Path,
    environments: Mapping[str, CalibrationSamples],
    recipe: Recipe,
    plan: CalibrationPlan,
    progress: Progress,
) -> CalibrationStatistics:
    """One pass of inference over every environment; only the tensors that the quantizer reads are observed."""
    histograms = RANGE_METHODS.get(recipe.ranges.name).needs_histogram
    parts = [
        collect(source, _counted(samples, progress), plan.observed, environment=name, histograms=histograms)
        for name, samples in environments.items()
    ]
    return merge(*parts)


def ranges_from(statistics: CalibrationStatistics, recipe: Recipe, settings: QuantizerSettings) -> Mapping[str, Range]:
    """The range that the recipe's method gives each observed tensor."""
    method = RANGE_METHODS.get(recipe.ranges.name)
    return {
        tensor: method.range(statistics.per_environment(tensor), settings.quantization, **recipe.ranges.keywords)
        for tensor in statistics.tensors
    }


def fixed_batch(model: Model) -> int:
    """The batch that the model has fixed, or 1."""
    return next((s.shape[0] for s in model.signature.inputs if s.shape and s.shape[0] is not None), 1) or 1


def _name(environment: Environment) -> str:
    return environment.shifts if environment.size is None else f"{environment.shifts}[:{environment.size}]"


def _counted(samples: CalibrationSamples, progress: Progress) -> Iterator[tuple[str, dict[str, object]]]:
    for item in samples:
        yield item  # type: ignore[misc]
        progress(1)
