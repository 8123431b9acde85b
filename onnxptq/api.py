"""The Python API: all that the commands call."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxptq.cache import Room, cache_room
from onnxptq.calibrators import CalibrationSamples, CalibrationSet
from onnxptq.calibrators.samples import draw
from onnxptq.data import Dataset
from onnxptq.errors import DataError, OutputError, UsageError
from onnxptq.evaluation import (
    EvaluationSamples,
    Predictions,
    Report,
    Subject,
    compare,
    default_corruptions,
    named_corruptions,
    predict,
)
from onnxptq.evaluation.groups import check_groupings
from onnxptq.evaluation.run import batch_size, run_padded
from onnxptq.files import check_writable
from onnxptq.graphs import Model, Provenance, fold, load_model, read_provenance, write_with_provenance
from onnxptq.graphs.load import check_quantizable
from onnxptq.inputs import (
    DataOptions,
    Inputs,
    check_fits,
    open_foreign,
    resolve_for_evaluation,
    resolve_for_quantization,
)
from onnxptq.methods import apply_method
from onnxptq.quantization.static import quantize_folded, quantizer_settings
from onnxptq.recipe import Recipe, Value
from onnxptq.runtimes import open_session

EVALUATION_SEED = 0
"""Of the corruptions that models are judged under: not the recipe's seed, so that all models see the same samples."""

Progress = Callable[[str, int, int], None]
"""`(stage, done, total)`."""


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
    engine: str = "one-pass",
    recipe: Recipe | None = None,
    output: str | Path | None = None,
    force: bool = False,
    evaluate: bool = True,
    provider: str = "cpu",
    groups: Sequence[str] = (),
    corruptions: Sequence[str] | None = None,
    options: DataOptions | None = None,
    allow_fallback: bool = False,
    progress: Progress = lambda stage, done, total: None,
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
        engine: "one-pass", or "stock" for ONNX Runtime's calibrators.
        recipe: all of the above that makes the model, instead of it.
        output: the file to write; None is a name made of model, calibration set and method, in the current folder.
        force: replace an existing file.
        evaluate: judge FP32 and INT8.
        provider: the execution provider that the INT8 model is judged on.
        groups: groupings such as "label*corruption".
        corruptions: to judge under, beside clean; None is the task's default list.
        options: sources of the two sides, columns, preprocessing.
        allow_fallback: judge on another provider where `provider` does not load.
        progress: called as work goes on.

    Raises:
        OnnxptqError: the input is wrong; nothing was written.
    """
    room = cache_room()
    if recipe is None:
        recipe = Recipe(
            calibration=str(CalibrationSet.parse(calib)),
            size=calib_size,
            seed=seed,
            float_nodes=tuple(exclude),
            target=target,
            engine=engine,
        )
        recipe = apply_method(method, recipe, parameters)
    calibration_set = CalibrationSet.parse(recipe.calibration)
    options = DataOptions(**{**vars(options or DataOptions()), **({"data": data} if data else {})})
    inputs = resolve_for_quantization(
        model, options, room, needs_data=calibration_set.needs_data and not calibration_set.foreign, evaluate=evaluate
    )
    check_quantizable(inputs.model)
    judged_on = _evaluation_samples(inputs, calibration_set, corruptions, groups) if evaluate else None
    if evaluate and not allow_fallback:
        _require(provider)
    check_fits(inputs.calibration, inputs.task)
    path = Path(output) if output else Path(_default_name(inputs, recipe))
    check_writable(path)
    samples = _draw(inputs, calibration_set, recipe, options, room)
    folded = fold(inputs.model, room)
    quantizer_settings(recipe, folded)
    provenance = _provenance(inputs, recipe, samples)
    reused = _same_or_refuse(path, provenance, force)
    if not reused:
        _write(inputs.model, folded, samples, recipe, provenance, path, progress)
    int8 = load_model(path)
    predictions: tuple[Predictions, ...] = ()
    report = None
    if judged_on is not None:
        predictions = _judge(
            [Subject(inputs.model), Subject(int8, provider, None, allow_fallback)], judged_on, room, progress
        )
        report = compare(predictions[0], predictions[1], groups)
    return QuantizeResult(
        output=path,
        recipe=recipe,
        reused=reused,
        report=report,
        predictions=predictions,
        fp32_bytes=inputs.model.size,
        int8_bytes=int8.size,
        warnings=inputs.warnings + method_warnings(recipe),
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
    progress: Progress = lambda stage, done, total: None,
) -> EvaluateResult:
    """Judges models per group against an FP32 reference.

    Args:
        models: the files to judge.
        data: what to judge on; the built-in data where the models came from the built-in model.
        reference: the FP32 model; None takes the built-in one where the models came from it, else the first model.
        provider: execution provider of the models; the reference runs on the CPU.
        groups, corruptions, options, allow_fallback, progress: as in `quantize`.

    Raises:
        OnnxptqError: the input is wrong.
    """
    if not models:
        raise UsageError("give at least one model to evaluate.")
    room = cache_room()
    options = DataOptions(**{**vars(options or DataOptions()), **({"data": data} if data else {})})
    loaded = [load_model(Path(path)) for path in models]
    base = _reference(reference, loaded)
    check_same_outputs(base, loaded)
    if not allow_fallback:
        _require(provider)
    dataset, task, warnings = resolve_for_evaluation([*loaded, base], options, room)
    check_fits(dataset, task)
    names = default_corruptions(task) if corruptions is None else named_corruptions(tuple(corruptions), task)
    samples = EvaluationSamples(task, dataset, names, EVALUATION_SEED)
    check_groupings([*dataset.attributes, "corruption"], groups)
    subjects = [Subject(base), *(Subject(model, provider, None, allow_fallback) for model in loaded)]
    predictions = _judge(subjects, samples, room, progress)
    reports = tuple(compare(predictions[0], run, groups) for run in predictions[1:])
    return EvaluateResult(reports, predictions, warnings)


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
    room = cache_room()
    options = DataOptions(**{**vars(options or DataOptions()), **({"data": data} if data else {})})
    calibration_set = CalibrationSet.parse(calib)
    inputs = resolve_for_quantization(
        model, options, room, needs_data=calibration_set.needs_data and not calibration_set.foreign, evaluate=False
    )
    return _draw(inputs, calibration_set, Recipe(size=size, seed=seed), options, room)


def check_same_outputs(reference: Model, models: Sequence[Model]) -> None:
    """Raises UsageError when a model has other inputs or outputs than its reference."""
    for model in models:
        for kind in ("inputs", "outputs"):
            mine, theirs = ([s.name for s in getattr(m.signature, kind)] for m in (model, reference))
            if mine != theirs:
                raise UsageError(
                    f"{model.path} has the {kind} {', '.join(mine)}, the reference {reference.path} has "
                    f"{', '.join(theirs)}: it is not the model that this one was made from. Give --reference."
                )


def method_warnings(recipe: Recipe) -> tuple[str, ...]:
    """What a user should know about the method that she asked for."""
    ranges = recipe.ranges
    if ranges.name == "entropy" and int(ranges.keywords.get("bins", 128)) <= 128:
        return (
            "entropy with 128 bins has a single candidate and gives the same ranges as minmax (ONNX Runtime's default "
            "too). For a real search use --entropy-bins 2048.",
        )
    return ()


def _evaluation_samples(
    inputs: Inputs, calibration_set: CalibrationSet, corruptions: Sequence[str] | None, groups: Sequence[str]
) -> EvaluationSamples:
    if inputs.evaluation is None:
        raise DataError("there is no data to evaluate on. Give --data or --eval-data, or use --no-evaluate.")
    if corruptions is None:
        names = default_corruptions(inputs.task, calibration_set.families)
    else:
        names = named_corruptions(tuple(corruptions), inputs.task)
    check_groupings([*inputs.evaluation.attributes, "corruption"], groups)
    return EvaluationSamples(inputs.task, inputs.evaluation, names, EVALUATION_SEED)


def _require(provider: str) -> None:
    from onnxptq.runtimes.providers import probe, unavailable

    status = probe(provider)
    if not status.loads:
        raise unavailable(status)


def _draw(
    inputs: Inputs, calibration_set: CalibrationSet, recipe: Recipe, options: DataOptions, room: Room
) -> CalibrationSamples:
    dataset = inputs.calibration
    if calibration_set.foreign:
        dataset = open_foreign(calibration_set.foreign, options, room, inputs.task)
        if inputs.evaluation is not None:
            dataset = dataset.select(np.flatnonzero(~np.isin(dataset.fingerprints, inputs.evaluation.fingerprints)))
        check_fits(dataset, inputs.task)

    def outputs(chosen: Dataset) -> npt.NDArray[np.float32]:
        return _outputs(inputs, chosen)

    return draw(calibration_set, inputs.task, dataset, size=recipe.size, seed=recipe.seed, outputs=outputs)


def _outputs(inputs: Inputs, dataset: Dataset) -> npt.NDArray[np.float32]:
    """The FP32 model's first output of each sample, flattened: float32, (N, K)."""
    session = open_session(inputs.model.path)
    parts = []
    size = batch_size([session])
    for start in range(0, len(dataset), size):
        positions = np.arange(start, min(start + size, len(dataset)))
        first = run_padded(session, inputs.task.feeds(inputs.task.load(dataset.read(positions))))[0]
        parts.append(first.reshape(len(positions), -1).astype(np.float32))
    return np.concatenate(parts)


def _default_name(inputs: Inputs, recipe: Recipe) -> str:
    """Model, calibration set and method, of characters that every file system takes."""
    stem = inputs.builtin or inputs.model.path.stem
    parts = ",".join(f"{key}={value}" for key, value in recipe.ranges.parameters)
    method = f"{recipe.ranges.name}:{parts}" if parts else recipe.ranges.name
    text = f"{stem}.{recipe.calibration}.{method}" + ("" if recipe.target == "cpu" else f".{recipe.target}")
    safe = "".join(c if c.isalnum() or c in "._-@=+," else "-" for c in text)
    return f"{safe[:200]}.int8.onnx"


def _provenance(inputs: Inputs, recipe: Recipe, samples: CalibrationSamples) -> Provenance:
    import onnx
    import onnxruntime

    from onnxptq._version import __version__
    from onnxptq.runtimes import cpu_features

    return Provenance(
        task=inputs.task.name,
        preprocessing=inputs.task.specification,
        source={"name": inputs.model.path.name, "digest": inputs.model.digest, "bytes": inputs.model.size},
        data=inputs.data,
        recipe=recipe,
        calibration={"samples": len(samples), "digest": samples.digest},
        versions={"onnxptq": __version__, "onnx": onnx.__version__, "onnxruntime": onnxruntime.__version__},
        cpu=" ".join(cpu_features()),
    )


def _same_or_refuse(path: Path, provenance: Provenance, force: bool) -> bool:
    """Whether the file is there already, made of the same. Raises OutputError when another file is in the way."""
    if not path.exists():
        return False
    try:
        existing = read_provenance(load_model(path).metadata)
    except Exception:
        existing = None  # Whatever it is, it is not the file that we would write.
    if existing == provenance:
        return True
    if force:
        return False
    what = "made by another recipe or from other data" if existing else "not made by onnxptq"
    raise OutputError(f"{path} exists already, {what}. Replace it with --force, or write elsewhere with -o.")


def _write(
    model: Model,
    folded: Path,
    samples: CalibrationSamples,
    recipe: Recipe,
    provenance: Provenance,
    path: Path,
    progress: Progress,
) -> None:
    total = sum(len(samples.environment(environment)) for environment in recipe.environments)
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress("calibrating", done, total)

    progress("calibrating", 0, total)
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        written = Path(folder) / "int8.onnx"
        quantize_folded(model, folded, samples, recipe, written, progress=count)
        write_with_provenance(written, provenance, path)


def _judge(
    subjects: Sequence[Subject], samples: EvaluationSamples, room: Room, progress: Progress
) -> tuple[Predictions, ...]:
    total = len(samples) * len(subjects)
    done = 0

    def count(rows: int) -> None:
        nonlocal done
        done += rows
        progress("evaluating", done, total)

    progress("evaluating", 0, total)
    return tuple(predict(subjects, samples, room, count))


def _reference(reference: str | Path | None, models: Sequence[Model]) -> Model:
    from onnxptq.models import builtin

    if reference is not None:
        return load_model(Path(reference))
    provenance = read_provenance(models[0].metadata)
    own = load_model(builtin().model)
    if provenance is not None and provenance.source["digest"] == own.digest:
        return own
    if provenance is not None:
        beside = models[0].path.parent / str(provenance.source["name"])
        if beside.is_file() and (found := load_model(beside)).digest == provenance.source["digest"]:
            return found
        raise UsageError(
            f"{models[0].path} was made from {provenance.source['name']}, which is not beside it. "
            "Give it with --reference FP32.onnx."
        )
    return models[0]


__all__ = [
    "EvaluateResult",
    "QuantizeResult",
    "draw_calibration",
    "evaluate",
    "quantize",
]
