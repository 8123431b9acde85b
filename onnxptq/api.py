"""The Python API: all that the commands call."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from onnxptq.audit.early import early_note
from onnxptq.cache import user_cache
from onnxptq.calibration import (
    StatisticsOrigin,
    check_origin,
    draw_from,
    merge_shards,
    observe_calibration,
    origin_of,
    parse_shard,
    resolve_calibration,
)
from onnxptq.calibrators import CalibrationSamples, CalibrationSet, SampleReader, meant_for
from onnxptq.calibrators.statistics import CalibrationStatistics
from onnxptq.errors import UsageError
from onnxptq.evaluation import (
    Predictions,
    Report,
)
from onnxptq.files import check_writable
from onnxptq.graphs import fold
from onnxptq.graphs.external import install
from onnxptq.graphs.modernize import modernization_notes
from onnxptq.inputs import DataOptions, Inputs, check_fits, open_model, resolve_for_quantization
from onnxptq.int8_file import default_name, make_int8, open_written, provenance_of, same_or_refuse
from onnxptq.judging import (
    Judgement,
    JudgingOptions,
    check_same_outputs,
    data_options,
    evaluation_samples,
    find_reference,
    judge,
    samples_to_judge_on,
)
from onnxptq.methods import apply_method, fitted, method_label, method_warnings, unused_calibration
from onnxptq.progress import Progress, silent
from onnxptq.quantization.canonical import canonical
from onnxptq.quantization.static import check_engine, engine_notes, quantizer_settings
from onnxptq.quantization.verify import verify_int8
from onnxptq.recipe import Recipe, Value
from onnxptq.runtimes.selection import CPU


@dataclass(frozen=True)
class QuantizeResult:
    """What `quantize` made.

    Attributes:
        output: the INT8 file.
        recipe: what made it.
        reused: the file was there already, made by the same recipe from the same model and data.
        report: what INT8 did to each group, or None without evaluation.
        predictions: of the FP32 and the INT8 model, or () without evaluation.
        fp32_bytes, int8_bytes: size of the files.
        warnings: one line each.
    """

    output: Path
    recipe: Recipe
    reused: bool
    report: Report | None
    predictions: tuple[Predictions, ...]
    fp32_bytes: int
    int8_bytes: int
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class EvaluateResult:
    """What `evaluate` found: one report a model, against the reference."""

    reports: tuple[Report, ...]
    predictions: tuple[Predictions, ...]
    warnings: tuple[str, ...]


def quantize(
    model: str | Path | None = None,
    *,
    data: str | None = None,
    calib: str = "clean",
    calib_size: int | None = None,
    seed: int = 0,
    method: str = "minmax",
    parameters: dict[str, Value | None] | None = None,
    target: str = "cpu",
    exclude: Sequence[str] = (),
    quantize_post_processing: bool = False,
    remainder: str = "fp32",
    engine: str = "one-pass",
    statistics: str | Path | None = None,
    recipe: Recipe | None = None,
    output: str | Path | None = None,
    force: bool = False,
    evaluate: bool = True,
    verify: bool = True,
    provider: str = "cpu",
    groups: Sequence[str] = (),
    corruptions: Sequence[str] | None = None,
    options: DataOptions | None = None,
    allow_fallback: bool = False,
    progress: Progress = silent,
) -> QuantizeResult:
    """Makes an INT8 model from a chosen calibration set and judges it per group.

    Args:
        model: path of the FP32 model; None is the built-in one with its data.
        data: one source for calibration and evaluation; see `options` for more.
        calib: the calibration set by name, for example "dark@3".
        calib_size: samples drawn; None is the set's default.
        seed: of the draw.
        method: the method by name, for example "percentile:percentile=99.9".
        parameters: further parameters of the method; None values are left out.
        target: what the deployment needs of the graph.
        exclude: names or patterns of nodes that stay in float.
        quantize_post_processing: quantize a detector's post-processing too, which otherwise stays in float where it
            joins boxes and scores.
        remainder: what is not quantized computes in "fp32", or in "fp16" (target tensorrt11).
        engine: "one-pass"; "one-pass-fast" to calibrate on the graph that ONNX Runtime optimised; "one-pass-cuda" to
            calibrate on the CUDA provider; "stock" for ONNX Runtime's own calibrators.
        statistics: a file of `calibrate` to start from; calibration set, size, seed and engine are then its own.
        recipe: all of the above that makes the model, instead of it.
        output: the file to write; None is a name made of model, calibration set and method, in the current folder.
        force: replace an existing file.
        evaluate: judge FP32 and INT8.
        verify: look at the file before it is handed over: lint it, load it, run a few calibration samples. False
            leaves it out, and the file's provenance says so.
        provider: what the INT8 model is judged on, as `compare` takes it: "cpu", "cpu:exact", "openvino", "cpu@1.20".
        groups: groupings such as "label*corruption".
        corruptions: to judge under, beside clean; None is the task's default list.
        options: sources of the two sides, columns, preprocessing.
        allow_fallback: judge on the CPU of this environment where `provider` does not load or does not take the model.
        progress: called as work goes on.

    Raises:
        WrittenFileError: the INT8 file would be of no use (`verify`); nothing was written.
        OnnxptqError: the input is wrong; nothing was written.
    """
    cache = user_cache()
    judging = JudgingOptions.of(
        data=data,
        options=options,
        groups=groups,
        corruptions=corruptions,
        provider=provider,
        allow_fallback=allow_fallback,
    )
    known = _Known.load(statistics) if statistics is not None else None
    label: str | None = None
    unused: tuple[str, ...] = ()
    if recipe is None:
        label = method_label(method, parameters)
        base = known.origin.recipe if known else Recipe(calibration=calib, size=calib_size, seed=seed, engine=engine)
        base = base.changed(
            float_nodes=tuple(exclude),
            quantize_post_processing=quantize_post_processing,
            target=target,
            remainder=remainder,
        )
        recipe = apply_method(method, base, parameters)
        unused = unused_calibration(base, recipe, label)
    asked, recipe = recipe.calibration, canonical(recipe)
    check_engine(recipe, runs=known is None)
    calibration_set = CalibrationSet.parse(recipe.calibration)
    if known is None:
        inputs = resolve_calibration(model, calibration_set, judging.data, cache, evaluate=evaluate)
    else:
        inputs = known.inputs(resolve_for_quantization(model, judging.data, cache, needs_data=False, evaluate=evaluate))
    recipe = fitted(recipe, inputs.task, asked)
    calibration_set = CalibrationSet.parse(recipe.calibration)
    if known is not None:
        known.check_recipe(recipe)
    judged_on = evaluation_samples(inputs, calibration_set, judging) if evaluate else None
    runtime = judging.runtime(cache) if evaluate else CPU
    for side in (inputs.calibration, inputs.evaluation):
        check_fits(side, inputs.task)
    path = Path(output) if output else Path(default_name(inputs, recipe, label))
    check_writable(path)
    folded = fold(inputs.model, cache)
    quantizer_settings(recipe, folded)  # Its errors come before any sample is drawn.
    samples = None if known else draw_from(inputs, calibration_set, recipe.size, recipe.seed)
    narrow = early_note(recipe, samples) if samples is not None else None
    provenance = provenance_of(inputs, recipe, known.origin.calibration if known else samples, verified=verify)
    reused = same_or_refuse(path, provenance, force, inputs.model)
    judgement = Judgement()
    notes: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder, ExitStack() as sessions:
        made = path if reused else Path(folder) / path.name
        if not reused:
            collected = known.statistics if known else None
            notes = make_int8(inputs, folded, samples, provenance, made, collected, cache, progress)
        int8 = open_model(made) if reused else open_written(made)
        if verify and not reused:
            notes += verify_int8(
                inputs.model,
                int8,
                folded,
                samples or (),
                recipe.target,
                same_tensors=not recipe.weight_transforms,
                stack=sessions if evaluate else None,
            )
        if judged_on is not None:
            judgement = judge(inputs.model, [int8], runtime, judged_on, judging, cache, progress)
        if not reused:
            # Last: whatever stopped us until here, a bad sample or Ctrl-C, left nothing.
            install(made, path)
    return QuantizeResult(
        output=path,
        recipe=recipe,
        reused=reused,
        report=judgement.reports[0] if judgement.reports else None,
        predictions=judgement.predictions,
        fp32_bytes=inputs.model.size,
        int8_bytes=int8.size,
        warnings=inputs.warnings
        + modernization_notes(inputs.model.path)
        + unused
        + method_warnings(recipe)
        + engine_notes(recipe.engine)
        + ((narrow,) if narrow else ())
        + notes
        + judgement.notes,
    )


def evaluate(
    models: Sequence[str | Path],
    *,
    data: str | None = None,
    reference: str | Path | None = None,
    provider: str = "cpu",
    groups: Sequence[str] = (),
    corruptions: Sequence[str] | None = None,
    options: DataOptions | None = None,
    allow_fallback: bool = False,
    progress: Progress = silent,
) -> EvaluateResult:
    """Judges models per group against an FP32 reference.

    Args:
        models: the files to judge.
        data: what to judge on; the built-in data where the models came from the built-in model.
        reference: the FP32 model; None takes the built-in one where the models came from it, else the first model.
        provider: what the models run on, as in `quantize`; the reference runs on the CPU.
        corruptions: to judge under, beside clean; None is the task's default list without the families of shifts that
            calibrated a model.
        groups, options, allow_fallback, progress: as in `quantize`.

    Raises:
        OnnxptqError: the input is wrong.
    """
    if not models:
        raise UsageError("give at least one model to evaluate.")
    cache = user_cache()
    judging = JudgingOptions.of(
        data=data,
        options=options,
        groups=groups,
        corruptions=corruptions,
        provider=provider,
        allow_fallback=allow_fallback,
    )
    loaded = [open_model(Path(path)) for path in models]
    base = find_reference(reference, loaded)
    check_same_outputs(base, loaded)
    runtime = judging.runtime(cache)
    samples, warnings = samples_to_judge_on([*loaded, base], judging, cache)
    judgement = judge(base, loaded, runtime, samples, judging, cache, progress)
    return EvaluateResult(judgement.reports, judgement.predictions, warnings + judgement.notes)


def draw_calibration(
    model: str | Path | None = None,
    *,
    data: str | None = None,
    calib: str = "clean",
    size: int | None = None,
    seed: int = 0,
    options: DataOptions | None = None,
) -> CalibrationSamples:
    """Draws a calibration set as `quantize` does, for use with other tools: `.reader()` gives a CalibrationDataReader.

    Raises:
        OnnxptqError: the input is wrong.
    """
    calibration_set = CalibrationSet.parse(calib)
    inputs = resolve_calibration(model, calibration_set, data_options(options, data), user_cache(), evaluate=False)
    return draw_from(inputs, CalibrationSet.parse(meant_for(calib, inputs.task)), size, seed)


def reader(
    calib: str, *, model: str | Path, data: str | None = None, size: int | None = None, seed: int = 0
) -> SampleReader:
    """A calibration set as a `CalibrationDataReader` for ONNX Runtime's own `quantize_static`.

    Args:
        calib: the calibration set by name.
        model: the FP32 model; its preprocessing is found as `onnxptq quantize` finds it.
        data: the source of the data; the built-in data when `model` is the built-in one.
        size: number of samples.
        seed: decides which samples.

    Example:
        quantize_static("model.onnx", "int8.onnx", reader("dark@3", model="model.onnx", data="images/"))
    """
    return draw_calibration(str(model), data=data, calib=calib, size=size, seed=seed).reader()


def calibrate(
    model: str | Path | None = None,
    *,
    data: str | None = None,
    calib: str = "clean",
    calib_size: int | None = None,
    seed: int = 0,
    method: str = "minmax",
    target: str = "cpu",
    engine: str = "one-pass",
    recipe: Recipe | None = None,
    shard: str = "1/1",
    options: DataOptions | None = None,
    progress: Progress = silent,
) -> CalibrationStatistics:
    """Observes a calibration set in one pass of inference; every range method then works from the statistics alone.

    Of a single source the calibration side of the split is used, as `quantize` uses it, so that a model that is made
    from the statistics can be judged on the other side.

    Args:
        model, data, calib, calib_size, seed, target, engine, recipe, options, progress: as in `quantize`.
        method: only its environments matter here.
        shard: "i/n": only the i-th of n parts of the samples; `merge_statistics` joins them.

    Raises:
        OnnxptqError: the input is wrong.
    """
    cache = user_cache()
    if recipe is None:
        recipe = Recipe(calibration=calib, size=calib_size, seed=seed, target=target, engine=engine)
        recipe = apply_method(method, recipe)
    asked, recipe = recipe.calibration, canonical(recipe)
    check_engine(recipe)
    if recipe.engine == "stock":
        raise UsageError("ONNX Runtime's calibrators leave no statistics; use --engine one-pass to calibrate.")
    if recipe.weight_transforms:
        raise UsageError("statistics of a model whose weights are changed first cannot be kept; use quantize.")
    part = parse_shard(shard)
    calibration_set = CalibrationSet.parse(recipe.calibration)
    options = data_options(options, data)
    both_sides = bool(options.data or options.eval_data) or model is None
    inputs = resolve_calibration(model, calibration_set, options, cache, evaluate=both_sides)
    check_fits(inputs.calibration, inputs.task)
    recipe = fitted(recipe, inputs.task, asked)
    folded = fold(inputs.model, cache)
    samples = draw_from(inputs, CalibrationSet.parse(recipe.calibration), recipe.size, recipe.seed)
    return observe_calibration(inputs, folded, samples, recipe, part, cache, progress)


def merge_statistics(paths: Sequence[str | Path]) -> CalibrationStatistics:
    """Joins the statistics of shards: byte for byte those of one pass over all samples.

    Raises:
        DataError: a file cannot be read, is given twice, or belongs to another calibration.
    """
    return merge_shards([CalibrationStatistics.load(path) for path in paths])


def _samples_of(recipe: Recipe) -> str:
    copies = len(recipe.environments) - 1
    return recipe.calibration if not copies else f"{recipe.calibration} and {copies} augmented copies of it"


@dataclass(frozen=True)
class _Known:
    """Statistics that `quantize` starts from, and what they were made of."""

    statistics: CalibrationStatistics
    origin: StatisticsOrigin
    where: str

    @staticmethod
    def load(path: str | Path) -> _Known:
        statistics = CalibrationStatistics.load(path)
        return _Known(statistics, origin_of(statistics, str(path)), str(path))

    def check_recipe(self, recipe: Recipe) -> None:
        """Raises UsageError where a recipe wants other samples than those that were observed."""
        own = self.origin.recipe
        if recipe.weight_transforms:
            raise UsageError(
                f"this method changes the model in front of calibration ({recipe.weight_transforms[0].name}), and "
                f"{self.where} was made of the unchanged one. Leave out --stats."
            )
        if (recipe.calibration, recipe.environments) != (own.calibration, own.environments):
            raise UsageError(
                f"{self.where} was made of {_samples_of(own)}, and this method calibrates on {_samples_of(recipe)}. "
                "Make statistics with onnxptq calibrate --method METHOD, or leave out --stats."
            )

    def inputs(self, given: Inputs) -> Inputs:
        """The inputs with the data that the statistics came from; a warning where it is not the data that was given."""
        check_origin(self.origin, given.model, self.where)
        warnings = given.warnings
        if given.data and self.origin.data.get("digest") != given.data.get("digest"):
            warnings += (f"{self.where} comes from other data than that given here; the two may share samples.",)
        return replace(given, data=self.origin.data, warnings=warnings)


__all__ = [
    "EvaluateResult",
    "QuantizeResult",
    "calibrate",
    "draw_calibration",
    "evaluate",
    "merge_statistics",
    "quantize",
]
