"""One audit: draw the set, observe it and the probe, weigh each tensor, say what to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxptq.audit.bounds import attained_bounds, batch_norm_ranges, known_bounds
from onnxptq.audit.clipping import Interval, clipping, quantized_range
from onnxptq.audit.decisions import outputs_of, undecided
from onnxptq.audit.missing import missing_groups
from onnxptq.audit.probe import DECISIONS, ProbePart, augmented_parts, undrawn_parts
from onnxptq.audit.remedies import remedies_for
from onnxptq.audit.verdict import COVERED, COVERED_AUDIO, ROLES, Audit, TensorEvidence, verdict_of
from onnxptq.audit.yardsticks import exact_bounds, moved_inputs, needing_yardsticks, reached
from onnxptq.cache import Cache, user_cache
from onnxptq.calibration import draw_from, resolve_calibration
from onnxptq.calibrators import CalibrationSamples, CalibrationSet, meant_for
from onnxptq.calibrators.statistics import CalibrationStatistics, TensorStatistics
from onnxptq.data import Dataset
from onnxptq.errors import UsageError
from onnxptq.evaluation import EvaluationSamples, ModelUnderTest, predict
from onnxptq.evaluation.sanity import reference_notes
from onnxptq.graphs import fold
from onnxptq.graphs.normalizers import input_chains
from onnxptq.graphs.skeleton import skeleton
from onnxptq.inputs import DataOptions, Inputs, check_fits, resolve_for_quantization
from onnxptq.progress import Progress, counted, silent
from onnxptq.quantization.passes import observe
from onnxptq.quantization.plan import observed_tensors
from onnxptq.quantization.static import quantizer_settings, units_notes
from onnxptq.recipe import Recipe
from onnxptq.tasks import Task

PROBES = ("all", "undrawn", "augmented")
"""What a set is held against: samples of the calibration side that were not drawn, augmented copies of it, or both."""

_KINDS = (*PROBES[1:], "evaluation")

_SET = "the set itself"


def audit_calibration(
    model: str | Path | None = None,
    *,
    calib: str = "clean",
    calib_size: int | None = None,
    seed: int = 0,
    target: str = "cpu",
    probe: str = "all",
    options: DataOptions | None = None,
    progress: Progress = silent,
) -> Audit:
    """Says whether a calibration set makes ranges too narrow for what may come, whatever the range method.

    No INT8 model is made and no label is needed. Of a single source the calibration side of the split is used, as
    `quantize` uses it.

    Args:
        model: path of the FP32 model; None is the built-in one with its data.
        calib: the calibration set by name.
        calib_size: samples drawn; None is the set's default.
        seed: of the draw.
        target: what the graph is for; it decides which tensors get a range and whether ranges are symmetric.
        probe: one of `PROBES`.
        options: the data and how to read it.
        progress: called as work goes on.

    Raises:
        OnnxptqError: the input is wrong.
    """
    if probe not in PROBES:
        raise UsageError(f"--probe must be {', '.join(PROBES[:-1])} or {PROBES[-1]}, got {probe!r}.")
    cache, options = user_cache(), options or DataOptions()
    calibration_set = CalibrationSet.parse(calib)
    inputs, side = _resolved(model, calibration_set, options, cache)
    calibration_set = CalibrationSet.parse(meant_for(calib, inputs.task))
    check_fits(side, inputs.task)
    folded = fold(inputs.model, cache)
    settings = quantizer_settings(Recipe(target=target), folded)
    drawn = draw_from(inputs, calibration_set, calib_size, seed)
    judged = inputs.evaluation if options.eval_data else None
    parts = _parts(inputs, side, judged, drawn, probe)
    statistics = _observed(folded, drawn, parts, observed_tensors(folded, settings), cache, progress)
    symmetric = settings.quantization.symmetric
    weighed = _weighed(inputs, statistics, parts, folded, symmetric=symmetric)
    tensors = _with_decisions(inputs, side, drawn, parts, weighed, probe)
    real = drawn.dataset is not None or any(part.kind == "undrawn" for part in parts.values())
    moved = moved_inputs(inputs.task, drawn)
    missing_yardsticks = () if judged is not None else _without_yardstick(inputs.task, tensors)
    verdict = verdict_of(tensors, moved, real=real, yardsticks=not missing_yardsticks)
    missing = () if side is None else missing_groups(side, drawn.dataset)
    return Audit(
        verdict=verdict,
        model=inputs.model.path.name,
        calibration=str(calibration_set),
        samples=len(drawn),
        probe={kind: sum(len(p.samples) for p in parts.values() if p.kind == kind) for kind in _KINDS},
        tensors=tensors,
        moved=moved,
        without_yardstick=missing_yardsticks,
        missing=missing,
        remedies=remedies_for(verdict, tensors, moved, missing_yardsticks, calibration_set, inputs.task, side),
        warnings=(*_before_blame(inputs, side, cache), *inputs.warnings, *units_notes(Recipe(target=target), folded)),
    )


_SANITY = 256
"""Samples of the calibration side on which it is asked whether the FP32 model knows anything of them."""


def _before_blame(inputs: Inputs, side: Dataset | None, cache: Cache) -> tuple[str, ...]:
    """One line where the FP32 model itself knows nothing of the user's samples; ranges are then not to blame."""
    if side is None:
        return ()
    # By content and not by row: sources are often sorted by label.
    few = np.argsort(side.fingerprints, kind="stable")[:_SANITY]
    samples = EvaluationSamples(inputs.task, side.select(np.sort(few)), ("clean",), 0)
    return reference_notes(predict([ModelUnderTest(inputs.model)], samples, cache)[0])


def _resolved(
    model: str | Path | None, calibration_set: CalibrationSet, options: DataOptions, cache: Cache
) -> tuple[Inputs, Dataset | None]:
    """The inputs to draw from, and the calibration side of the user's own data to hold the set against."""
    both_sides = bool(options.data or options.eval_data) or model is None
    inputs = resolve_calibration(model, calibration_set, options, cache, evaluate=both_sides)
    if calibration_set.needs_data and not calibration_set.foreign:
        return inputs, inputs.calibration
    named = bool(options.data or options.calib_data) or model is None
    own = resolve_for_quantization(model, options, cache, needs_data=named, evaluate=both_sides)
    return inputs, own.calibration if own.calibration is not None else inputs.calibration


def _without_yardstick(task: Task, tensors: tuple[TensorEvidence, ...]) -> tuple[str, ...]:
    """The float inputs of which nothing tells whether the whole set is shifted."""
    observed = {tensor.name: tensor.observed for tensor in tensors}
    bounds = task.input_bounds()
    return tuple(name for name in needing_yardsticks(task) if not reached(observed, bounds, name))


def _parts(
    inputs: Inputs, side: Dataset | None, judged: Dataset | None, drawn: CalibrationSamples, probe: str
) -> dict[str, ProbePart]:
    """By the name of an environment; a group and a chain of shifts may have one name."""
    undrawn = undrawn_parts(inputs.task, side, drawn) if probe != "augmented" else ()
    judged_on = undrawn_parts(inputs.task, judged, drawn, kind="evaluation") if judged is not None else ()
    copies = augmented_parts(inputs.task, drawn) if probe != "undrawn" else ()
    return {f"{part.kind} {part.name}": part for part in (*undrawn, *judged_on, *copies)}


def _observed(
    folded: Path,
    drawn: CalibrationSamples,
    parts: Mapping[str, ProbePart],
    tensors: tuple[str, ...],
    cache: Cache,
    progress: Progress,
) -> CalibrationStatistics:
    environments = {_SET: drawn, **{name: part.samples for name, part in parts.items()}}
    count = counted(progress, "observing", sum(map(len, environments.values())))
    return observe(folded, environments, tensors, histograms=True, cache=cache, progress=count)


def _weighed(
    inputs: Inputs, statistics: CalibrationStatistics, parts: Mapping[str, ProbePart], folded: Path, *, symmetric: bool
) -> list[TensorEvidence]:
    """The evidence on every tensor: inputs, outputs, the rest, and of each the worst first."""
    bounds, normed = known_bounds(inputs.task, folded), batch_norm_ranges(folded)
    roles = dict.fromkeys(attained_bounds(inputs.task, folded), "input")
    roles |= {spec.name: "input" for spec in inputs.model.signature.inputs}
    roles |= {chain.output: "input" for chain in input_chains(skeleton(folded).graph)}
    roles |= {spec.name: "output" for spec in inputs.model.signature.outputs}
    exact = exact_bounds(inputs.task)
    found = []
    for tensor in statistics.tensors:
        of = {name: tensors[tensor] for name, tensors in statistics.environments.items()}
        kept = quantized_range(of[_SET], symmetric=symmetric)

        def by_kind(kind: str, of: Mapping[str, TensorStatistics] = of) -> Interval | None:
            return _extremes([of[name] for name, part in parts.items() if part.kind == kind])

        cut = [clipping(of[name], kept, part.name, part.kind) for name, part in parts.items()]
        found.append(
            TensorEvidence(
                name=tensor,
                role=roles.get(tensor, "inner"),
                observed=kept,
                augmented=by_kind("augmented"),
                bounds=bounds.get(tensor),
                batch_norm=normed.get(tensor),
                clipping=tuple(sorted(cut, key=lambda one: -one.distortion)),
                real=by_kind("evaluation") or by_kind("undrawn"),
                exact=exact,
                needed=COVERED_AUDIO if inputs.task.modality == "audio" else COVERED,
            )
        )
    return sorted(found, key=lambda evidence: (ROLES.index(evidence.role), -evidence.distortion))


def _with_decisions(
    inputs: Inputs,
    side: Dataset | None,
    drawn: CalibrationSamples,
    parts: Mapping[str, ProbePart],
    tensors: list[TensorEvidence],
    probe: str,
) -> tuple[TensorEvidence, ...]:
    """The evidence, with what the ranges of outputs do to predictions."""
    kept = {tensor.name: tensor.observed for tensor in tensors if tensor.role == "output"}
    if not kept:
        return tuple(tensors)
    undrawn = undrawn_parts(inputs.task, side, drawn, DECISIONS) if probe != "augmented" else ()
    undrawn += tuple(part for part in parts.values() if part.kind == "evaluation")
    copies = [part for part in parts.values() if part.kind == "augmented"]
    lost = undecided(inputs.model, inputs.task, outputs_of(inputs.model, [*undrawn, *copies]), kept)
    return tuple(replace(tensor, undecided=lost.get(tensor.name, ())) for tensor in tensors)


def _extremes(statistics: list[TensorStatistics]) -> Interval | None:
    if not statistics:
        return None
    return min(float(one.minimum) for one in statistics), max(float(one.maximum) for one in statistics)
