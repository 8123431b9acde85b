"""From a folded FP32 model, drawn samples and a recipe to an INT8 file: the path that every quantization takes."""

from __future__ import annotations

import fnmatch
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.methods import RANGE_METHODS, Range
from onnxptq.calibrators.statistics import CalibrationStatistics
from onnxptq.errors import ModelError, RuntimeUnavailableError, UsageError, did_you_mean
from onnxptq.graphs import Model
from onnxptq.graphs.external import has_external_data
from onnxptq.graphs.float_parts import check_quantizable_operators, check_quantized, float_parts
from onnxptq.graphs.normalizers import input_chains, mixed_units
from onnxptq.graphs.passed_through import restore_passed_through
from onnxptq.graphs.post_processing import post_processing
from onnxptq.graphs.skeleton import skeleton
from onnxptq.progress import Advance, Progress, silent, uncounted
from onnxptq.quantization.grids import Grid, moved_grids
from onnxptq.quantization.masked_scores import swallowed_scores
from onnxptq.quantization.outputs import leave_outputs_in_float
from onnxptq.quantization.passes import observe
from onnxptq.quantization.plugins import bounded, calibrated, transformed
from onnxptq.quantization.remainder import nodes_beyond_fp16, remainder_in_fp16
from onnxptq.quantization.renormalized import not_renormalized
from onnxptq.quantization.runnable import runnable
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.stock_calibrators import stock_ranges
from onnxptq.quantization.targets import target_settings
from onnxptq.quantization.writer import FastWriter, quantize_with_ranges, writer_for
from onnxptq.recipe import Environment, Recipe
from onnxptq.runtimes import probe
from onnxptq.tasks import Task

ENGINES = ("one-pass", "one-pass-fast", "one-pass-cuda", "stock")
"""Ours; ours on the graph that ONNX Runtime optimised, or on the CUDA provider, so that values may differ in the last
bits; ONNX Runtime's own."""

_ENGINE_NOTES = {
    "one-pass-fast": "calibrated on the optimised graph: ranges may differ in the last bits from those of the stock "
    "calibrators.",
    "one-pass-cuda": "calibrated on the CUDA provider: ranges may differ from those of the CPU as far as it rounds "
    "otherwise.",
}


@dataclass(frozen=True)
class Quantized:
    """What became of a quantization, beside the file.

    Attributes:
        ranges: (lower, upper) of each quantized tensor, after the bounds.
        notes: one line for each thing that a user should know, such as why the reference wrote the file.
        dropped: steps of a guarded recipe that were left out since they did harm.
    """

    ranges: Mapping[str, Range]
    notes: tuple[str, ...]
    dropped: tuple[str, ...] = ()


def quantize_folded(
    model: Model,
    folded: Path,
    samples: CalibrationSamples | None,
    recipe: Recipe,
    output: Path,
    *,
    statistics: CalibrationStatistics | None = None,
    task: Task | None = None,
    cache: Cache | None = None,
    progress: Advance = uncounted,
    transforming: Progress = silent,
) -> Quantized:
    """Writes the INT8 model of a recipe, without provenance.

    Args:
        model: what `folded` was made from.
        folded: the FP32 model after `quant_pre_process`.
        samples: the drawn calibration set; None where `statistics` stand for it.
        recipe: how.
        output: the file to write.
        statistics: what a pass over the recipe's environments left, where it was made before.
        task: of the model, for bounds that ask it; None takes that of the samples.
        cache: where statistics are found and kept.
        progress: called with the number of calibration samples done since the last call.
        transforming: called with stage, done and total by weight transforms that take long.

    Raises:
        UsageError: the recipe names what there is not.
        DataError: a sample gives NaN or infinity, or does not fit the model.
    """
    check_engine(recipe, runs=statistics is None)
    if samples is None and (statistics is None or recipe.weight_transforms or recipe.engine == "stock"):
        raise UsageError("from statistics alone weights cannot be changed, and ONNX Runtime's calibrators cannot run.")
    task = task or (samples.task if samples else None)
    settings = quantizer_settings(recipe, folded)
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        changed = transformed(folded, samples, recipe.weight_transforms, Path(folder), settings, transforming)
        source, settings = changed.model, changed.settings
        environments = environments_of(recipe, samples)
        observed = calibrated(source, environments, recipe.weight_transforms, Path(folder), settings)
        external = has_external_data(source)
        chosen: Mapping[str, Range]
        if recipe.engine == "stock":
            batch = model.core.signature.fixed_batch or 1
            ranges = stock_ranges(observed, list(environments.values()), recipe.ranges, settings, batch)
            chosen = runnable(bounded(ranges, source, task, recipe.bounds), source)
            quantize_with_ranges(source, chosen, output, settings, external=external)
            notes: tuple[str, ...] = ()
        else:
            # A changed model's file is gone afterwards, so its writer is of no use to another call.
            writer = (writer_for if source == folded else FastWriter)(source, settings, external=external)
            if statistics is None:
                statistics = observe(
                    observed,
                    environments,
                    writer.plan.observed,
                    histograms=RANGE_METHODS.get(recipe.ranges.name).needs_histogram,
                    optimized=is_optimized(recipe),
                    provider=provider_of(recipe),
                    cache=cache,
                    progress=progress,
                )
            ranges = ranges_from(statistics, recipe, settings, writer.plan.observed)
            chosen = runnable(bounded(ranges, source, task, recipe.bounds), source)
            reason = writer.write(chosen, output)
            notes = (f"ONNX Runtime's quantizer wrote the file: {reason}.",) if reason else ()
        notes = (*changed.notes, *notes, *_enlarged(output, changed.grids), *swallowed_scores(chosen, source))
    if recipe.float_outputs:
        notes += leave_outputs_in_float(output)
    if recipe.remainder == "fp16":
        notes += remainder_in_fp16(output, nodes_beyond_fp16(folded, samples, cache) if samples else ())
    restore_passed_through(output, model.core.path)
    check_quantized(output, folded, settings.nodes_to_exclude)
    notes += (
        post_processing_notes(recipe, folded)
        + units_notes(recipe, folded)
        + not_renormalized(recipe.weight_transforms, folded)
        + float_parts(folded)
    )
    return Quantized(chosen, notes)


def post_processing_nodes(folded: Path) -> tuple[str, ...]:
    """Names of the nodes behind a detector's last weights that stay in float, () where there is no such thing."""
    return tuple(node.name for node in post_processing(skeleton(folded).graph) if node.name)


def post_processing_notes(recipe: Recipe, folded: Path) -> tuple[str, ...]:
    """One line where a detector's post-processing stays in float."""
    nodes = () if recipe.quantize_post_processing else post_processing_nodes(folded)
    if not nodes:
        return ()
    return (
        f"the post-processing behind the last weights stays in float ({len(nodes)} nodes, {nodes[0]} to {nodes[-1]}): "
        "it joins boxes and scores, which one scale cannot serve. --quantize-post-processing quantizes it.",
    )


def _enlarged(output: Path, grids: Mapping[str, Grid]) -> tuple[str, ...]:
    """One line where weights did not stay on the grid that they were rounded for."""
    moved = moved_grids(output, grids)
    if not moved:
        return ()
    return (
        f"ONNX Runtime's quantizer enlarged the scale of {len(moved)} rounded weights ({', '.join(moved[:3])}), so "
        "that their biases fit int32; it rounded them anew.",
    )


def check_engine(recipe: Recipe, *, runs: bool = True) -> None:
    """Whether the recipe's engine is there and, where it is to run, can run here.

    Raises:
        UsageError: there is no such engine.
        RuntimeUnavailableError: the provider that it runs on does not load.
    """
    if recipe.engine not in ENGINES:
        raise UsageError(f"unknown engine {recipe.engine!r}. {did_you_mean(recipe.engine, ENGINES)}")
    provider = provider_of(recipe)
    if runs and provider != "cpu" and not (status := probe(provider)).loads:
        raise RuntimeUnavailableError(
            f"the engine {recipe.engine!r} runs on the execution provider {provider!r}, which does not load here: "
            f"{status.reason}. {status.remedy} Leave --engine out to calibrate on the CPU."
        )


def is_optimized(recipe: Recipe) -> bool:
    """Whether calibration runs on the graph that ONNX Runtime optimised."""
    return recipe.engine == "one-pass-fast"


def provider_of(recipe: Recipe) -> str:
    """The execution provider that observes the calibration set. First passes of two (moments) stay on the CPU."""
    return "cuda" if recipe.engine == "one-pass-cuda" else "cpu"


def engine_notes(engine: str) -> tuple[str, ...]:
    """What is not as with the default engine, in one line."""
    return (_ENGINE_NOTES[engine],) if engine in _ENGINE_NOTES else ()


def environments_of(recipe: Recipe, samples: CalibrationSamples | None) -> dict[str, CalibrationSamples]:
    """The recipe's copies of the calibration set by name."""
    if samples is None:
        return {}
    return {_name(environment): samples.environment(environment) for environment in recipe.environments}


def quantizer_settings(recipe: Recipe, folded: Path) -> QuantizerSettings:
    """The settings of the recipe's target, with the nodes that stay in float.

    Raises:
        UsageError: an unknown target, or a node that the folded model does not have.
        ModelError: the quantizer has no INT8 for anything in the model.
    """
    check_quantizable_operators(folded)
    settings = target_settings(recipe.target, folded)
    if recipe.float_normalizers:
        settings = replace(settings, nodes_to_exclude=(*settings.nodes_to_exclude, *normalizer_nodes(folded)))
        _check_layers_left(folded)
    if not recipe.quantize_post_processing and (nodes := post_processing_nodes(folded)):
        settings = replace(settings, nodes_to_exclude=(*settings.nodes_to_exclude, *nodes))
    if not recipe.float_nodes:
        return settings
    names = node_names(folded)
    excluded: dict[str, None] = {}
    for pattern in recipe.float_nodes:
        # A name may hold the brackets of a pattern, as "/layers[0]/Conv" does.
        matches = [pattern] if pattern in names else fnmatch.filter(names, pattern)
        if not matches:
            raise UsageError(
                f"the model has no node {pattern!r} after folding. {did_you_mean(pattern, names[:200])} "
                "Patterns such as '/head/*' work too."
            )
        excluded.update(dict.fromkeys(matches))
    return replace(settings, nodes_to_exclude=(*settings.nodes_to_exclude, *excluded))


def normalizer_nodes(folded: Path) -> tuple[str, ...]:
    """Names of the nodes that standardize an input of a model, or read its columns of different units in one layer."""
    graph = skeleton(folded).graph
    nodes = [node for chain in input_chains(graph) if chain.normalizer is not None for node in chain.nodes]
    nodes += [node for place in mixed_units(graph) for node in place.nodes]
    return tuple(dict.fromkeys(node.name for node in nodes if node.name))


def _check_layers_left(folded: Path) -> None:
    """Raises ModelError where the only layers of a model are those that must stay in float."""
    graph = skeleton(folded).graph
    read = {node.name for place in mixed_units(graph) for node in place.nodes}
    layers = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")]
    if layers and all(node.name in read for node in layers):
        raise ModelError(
            f"the only layer of the model ({layers[0].name}) reads columns of different units, which one scale of INT8 "
            "cannot serve, so there is nothing to quantize. Deploy the model as it is; --robust-no-float-normalizer "
            "quantizes it nevertheless."
        )


def units_notes(recipe: Recipe, folded: Path) -> tuple[str, ...]:
    """One line for each input whose columns of different units share a scale, or would without the recipe."""
    lines = []
    for place in mixed_units(skeleton(folded).graph):
        nodes = [node for node in place.quantizable if node.name not in recipe.float_nodes]
        if not nodes:
            continue
        named = f"columns of the input {place.input!r} whose units differ {place.ratio:.0f}-fold"
        which = ", ".join(f"{node.op_type} {node.name!r}" for node in nodes)
        lines.append(
            f"{which} stays in float: it reads {named}, which one scale cannot serve."
            if recipe.float_normalizers
            else f"one scale serves {named} ({which}), so that the small ones are lost. --method robust leaves it in "
            "float, and so does --exclude NODE."
        )
    return tuple(lines)


def node_names(folded: Path) -> list[str]:
    """Names of the nodes of a model."""
    return [node.name for node in skeleton(folded).graph.node]


def ranges_from(
    statistics: CalibrationStatistics, recipe: Recipe, settings: QuantizerSettings, tensors: Sequence[str]
) -> dict[str, Range]:
    """The range that the recipe's method gives each of `tensors`."""
    method = RANGE_METHODS.get(recipe.ranges.name)
    return {
        tensor: method.range(statistics.per_environment(tensor), settings.quantization, **recipe.ranges.keywords)
        for tensor in tensors
    }


def _name(environment: Environment) -> str:
    return environment.shifts if environment.size is None else f"{environment.shifts}[:{environment.size}]"
