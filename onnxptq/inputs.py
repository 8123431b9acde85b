"""From what a user named - a model, data, how to read them - to the model, the task and the two sides of the data."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.cache import Cache, user_cache
from onnxptq.data import (
    CalibratedOn,
    Columns,
    Dataset,
    Source,
    align_labels,
    calibration_only,
    open_source,
    split_source,
    split_sources,
    stored_arrays,
    without_calibration,
)
from onnxptq.data.dataset import TRUTH
from onnxptq.errors import DataError, UsageError
from onnxptq.graphs import Model, load_model, read_provenance
from onnxptq.graphs.load import check_quantizable
from onnxptq.graphs.preprocessing_cut import taken_apart
from onnxptq.heads import HEADS, Hints
from onnxptq.tasks import (
    ENCODED,
    IMAGE,
    SIGNATURE,
    TENSOR,
    Task,
    add_groups,
    find_specification,
    make_task,
    split_name,
    with_head,
)
from onnxptq.text_files import read_json

_ABOUT_PIXELS = (
    "input", "layout", "size", "color", "scale", "mean", "std", "resize", "resize_to", "interpolation", "shape",
)  # fmt: skip

SPLIT_SEED = 0
"""Not the recipe's seed: models of several seeds are to be judged on the same samples."""


@dataclass(frozen=True)
class DataOptions:
    """How a user named the data and how to read it.

    Attributes:
        data: one source for both sides.
        calib_data, eval_data: a source for each side, instead of `data`.
        columns: columns that the user named.
        skip_bad: leave bad samples out and count them.
        trust_data: the data may name files anywhere, and unpack to any size.
        split: the split of the source to evaluate on, instead of the rule's choice (evaluate only).
        preprocessing: fields of the specification that the user gave as flags, over whatever the model carries.
        task: name of the task, or of its input, or None to find it.
        head: name of the head, or None to find it.
    """

    data: str | None = None
    calib_data: str | None = None
    eval_data: str | None = None
    columns: Columns = field(default_factory=Columns)
    skip_bad: bool = False
    trust_data: bool = False
    split: str | None = None
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    task: str | None = None
    head: str | None = None


@dataclass(frozen=True)
class Inputs:
    """What was resolved.

    Attributes:
        model: the model file.
        builtin: the name of the built-in model, or None.
        task: reads, feeds and scores.
        calibration: the side to draw calibration samples from, or None without data.
        evaluation: the side to judge on, or None without data or with --no-evaluate.
        data: provenance of the data: source, digest, split rule.
        warnings: one line each, for the user.
    """

    model: Model
    builtin: str | None
    task: Task
    calibration: Dataset | None
    evaluation: Dataset | None
    data: Mapping[str, Any]
    warnings: tuple[str, ...]


def open_model(path: Path, *, domains: Collection[str] | None = None) -> Model:
    """A model to quantize or to judge: as `load_model`, in two halves where it has its pre-processing in the graph."""
    return taken_apart(load_model(path, domains=domains), user_cache())


def resolve_model(model: str | Path | None) -> tuple[Model, str | None, DataOptions]:
    """The model file, the name of the built-in one (or None), and the data that comes with it.

    A copy of the built-in model, under whatever name, comes with its data too.
    """
    from onnxptq.models import builtin

    chosen = builtin()
    own = load_model(chosen.model)
    data = DataOptions(calib_data=str(chosen.train), eval_data=str(chosen.test))
    if model is None:
        return own, chosen.name, data
    loaded = open_model(Path(model))
    return loaded, None, data if loaded.digest == own.digest else DataOptions()


def build_task(model: Model, options: DataOptions, dataset: Dataset | None = None) -> tuple[Task, tuple[str, ...]]:
    """The task of a model, and warnings.

    Args:
        model: the file.
        options: what the user said.
        dataset: the data; its labels may tell what the outputs mean.

    Raises:
        UsageError: an unknown task, or preprocessing that does not fit.
        ModelError: the model's inputs do not fit the task.
    """
    labels = None if dataset is None or dataset.labels is None else dataset.label_names
    hints = Hints(labels)
    if model.parts is not None and model.parts.encoded:
        return _task_of_encoded_images(model, options, hints), ()
    signature = model.core.signature
    flags = {**options.preprocessing, "task": options.task, "head": options.head}
    found = find_specification(model.path, model.metadata, flags, signature)
    guessed = found.where.startswith(SIGNATURE) and found.task == IMAGE and options.task is None
    if guessed and _stored_for(model.core, options):
        found = find_specification(model.path, model.metadata, {**flags, "task": TENSOR}, signature)
    task = make_task(found.task, found.specification, signature, hints)
    return task, (found.warning,) if found.warning else ()


def _stored_for(model: Model, options: DataOptions) -> bool:
    """Whether the data is an `.npz` with an array of floats for each input, by its name or in the model's own layout.

    Who stores what the model takes does not want it divided by 255 once more.
    """
    named = options.data or options.calib_data or options.eval_data or ""
    if not named.endswith(".npz"):
        return False
    arrays = {name: shape for name, (shape, dtype) in stored_arrays(Path(named)).items() if dtype.kind == "f"}
    (spec,) = model.signature.inputs
    channels = spec.shape[1]
    return spec.name in arrays or any(
        channels in (1, 3) and len(shape) == 4 and shape[1] == channels for shape in arrays.values()
    )


def is_described(model: Model, options: DataOptions) -> bool:
    """Whether anybody said how the model is fed: its metadata, a file beside it, or the user."""
    if options.task or options.head or options.preprocessing or (model.parts is not None and model.parts.encoded):
        return True
    found = find_specification(model.path, model.metadata, {}, model.core.signature)
    return not found.where.startswith(SIGNATURE)


def head_notes(task: Task) -> tuple[str, ...]:
    """One line where nobody knows what the outputs mean, for commands that judge."""
    if task.settled:
        return ()
    judged = ", ".join(task.head.judged)
    heads = ", ".join(kind.name for kind in HEADS if kind.name != task.head.name)
    return (
        f"{task.why}, so their values are compared with FP32's as they are (head raw: {judged}). That does not say "
        f"whether answers stay right: choose a head with --head ({heads}) or in the specification (docs/tasks.md).",
    )


def _task_of_encoded_images(model: Model, options: DataOptions, hints: Hints) -> Task:
    """The task of a model that decodes its images itself. Raises UsageError for flags that contradict it."""
    from onnxptq.own_preprocessing import own_preprocessing
    from onnxptq.tasks.encoded_image_input import EncodedImageInput

    useless = sorted(key for key in options.preprocessing if key in _ABOUT_PIXELS)
    if (options.task is not None and split_name(options.task)[0] != ENCODED) or useless:
        named = ", ".join(useless) or f"the task {options.task}"
        raise UsageError(
            f"{model.path} has its pre-processing in the graph, and that is what runs; leave out what says otherwise "
            f"({named})."
        )
    flags = {**options.preprocessing, "task": options.task, "head": options.head}
    found = find_specification(model.path, model.metadata, flags, model.core.signature)
    # What the rest of the model looks like says nothing of its input, only what was found about its head counts.
    head = split_name(found.task)[1]
    name = ENCODED if head is None else f"{ENCODED}-{head}"
    return with_head(
        EncodedImageInput(own_preprocessing(model)), name, found.specification, model.core.signature, hints
    )


def resolve_for_quantization(
    model: str | Path | None, options: DataOptions, cache: Cache, *, needs_data: bool, evaluate: bool
) -> Inputs:
    """Model, task and the two sides of the data, for making an INT8 model.

    Args:
        model: path of the FP32 model, or None for the built-in one.
        options: the data and how to read it.
        cache: where tables are kept in a form that need not fit in memory.
        needs_data: the calibration set draws from data.
        evaluate: the model will be judged.

    Raises:
        UsageError: data was named twice, or is needed and was not named.
        DataError, ModelError: it cannot be used.
    """
    loaded, name, own = resolve_model(model)
    check_quantizable(loaded)
    if not (options.data or options.calib_data or options.eval_data):
        options = replace(options, calib_data=own.calib_data, eval_data=own.eval_data if evaluate else None)
    _check_named(options, needs_data=needs_data, evaluate=evaluate)
    task, warnings = build_task(loaded, options)  # Its errors come before any data is read.
    options = _with_truths(options, task)
    sides, notes = _sides(options, cache, evaluate=evaluate)
    calibration, evaluation, data = sides
    if not task.settled and (labelled := evaluation or calibration) is not None:
        task, warnings = build_task(loaded, options, labelled)
    if evaluate:
        notes += head_notes(task)
    aligned = []
    for side in (calibration, evaluation):
        dataset, warning = (None, None) if side is None else align_labels(side, task.classes)
        aligned.append(None if dataset is None else add_groups(dataset, task))
        notes += (warning,) if warning else ()
    return Inputs(loaded, name, task, aligned[0], aligned[1], data, tuple(dict.fromkeys(warnings + notes)))


def resolve_for_evaluation(
    models: list[Model], options: DataOptions, cache: Cache
) -> tuple[Dataset, Task, tuple[str, ...]]:
    """The dataset and the task that models are judged with.

    Samples that calibrated one of the models are left out where the model says so and the data is the same.

    Raises:
        UsageError: no data was named.
        DataError: the data cannot be used.
    """
    named = options.data or options.eval_data or str(builtin_data(models) or "")
    if not named:
        raise UsageError("evaluating needs data: give --data SOURCE (a folder of images by class, Parquet, CSV ...).")
    # A model that says how it wants its input speaks for those that do not: they take the same samples.
    built = [build_task(model, options) for model in models]
    named_head = next((task for task, _ in built if task.settled), built[0][0])
    source = _open(named, _with_truths(options, named_head), cache)
    if not any(task.settled for task, _ in built):
        built = [build_task(model, options, next(iter(source.splits.values()))) for model in models]
    task, warnings = min(built, key=lambda one: (not one[0].settled, bool(one[1])))
    notes = _skipped(source) + head_notes(task)
    provenances = [p for p in (read_provenance(model.metadata) for model in models) if p is not None]
    told = [
        CalibratedOn(p.data.get("digest"), p.data.get("split"), str(p.calibration.get("used", ""))) for p in provenances
    ]
    if options.split is not None:
        if options.split not in source.splits:
            raise UsageError(f"{named} has no split {options.split!r}; it has {', '.join(source.splits) or 'one'}.")
        dataset = source.splits[options.split]
        if any(_calibrated_on(dataset, source, model) for model in told):
            notes += (f"{named} [{options.split}] calibrated a model that is judged on it here: drops come out small.",)
    else:
        dataset = _calibrated_none(source, told)
        if any(model.changed(source) for model in told):
            notes += (
                f"{source.name} was changed since it calibrated a model that is judged here (samples came or went, or "
                "other columns are named): the samples that calibrated it are left out.",
            )
    dataset, warning = align_labels(dataset, task.classes)
    if warning:
        notes += (warning,)
    return add_groups(dataset, task), task, tuple(dict.fromkeys(warnings + notes))


def _calibrated_on(dataset: Dataset, source: Source, model: CalibratedOn) -> bool:
    """Whether a split that the user named calibrated a model."""
    same = model.digest == source.digest and model.rule is not None
    return bool(model.holds(dataset).any()) or (same and dict(model.rule or {}).get("calibration") == dataset.split)


def _calibrated_none(source: Source, told: Sequence[CalibratedOn]) -> Dataset:
    """The samples to evaluate on that calibrated no model, by what all models say of their calibration."""
    dataset = without_calibration(source, told[0] if told else None)
    for model in told[1:]:
        other = without_calibration(source, model)
        dataset = dataset.select(np.flatnonzero(np.isin(dataset.fingerprints, other.fingerprints)))
    if not len(dataset):
        raise DataError(
            f"every sample of {source.name} calibrated one of the models. Evaluate them one by one, or give other data."
        )
    return dataset


def builtin_data(models: list[Model]) -> Path | None:
    """The evaluation data of the built-in model, where the models are it or came from it."""
    from onnxptq.models import builtin

    chosen = builtin()
    digest = load_model(chosen.model).digest
    for model in models:
        provenance = read_provenance(model.metadata)
        if digest not in (model.digest, provenance.source["digest"] if provenance else None):
            return None
    return chosen.test


def _check_named(options: DataOptions, *, needs_data: bool, evaluate: bool) -> None:
    if options.data and (options.calib_data or options.eval_data):
        raise UsageError("give either --data, or --calib-data and --eval-data, not both.")
    if not needs_data and not evaluate:
        return
    if not (options.data or options.calib_data or options.eval_data):
        wanted = "calibrating" if needs_data else "evaluating"
        raise UsageError(
            f"{wanted} needs data: give --data SOURCE (a folder of images by class, Parquet, CSV, .npz ...)."
            + ("" if needs_data else " With --no-evaluate the model is only written.")
        )
    if not options.data and needs_data and not options.calib_data:
        raise UsageError("--eval-data was given without --calib-data; give both, or --data for one source.")
    if not options.data and evaluate and not options.eval_data:
        raise UsageError(
            "--calib-data was given without --eval-data; give both, --data for one source, or --no-evaluate."
        )


Sides = tuple[Dataset | None, Dataset | None, Mapping[str, Any]]


def _sides(options: DataOptions, cache: Cache, *, evaluate: bool) -> tuple[Sides, tuple[str, ...]]:
    """Calibration, evaluation and their provenance; and one note for samples that were left out."""
    if options.data is None and options.calib_data is None and options.eval_data is None:
        return (None, None, {}), ()
    if options.data is not None:
        source = _open(options.data, options, cache)
        described = {"source": _short(options.data), "digest": source.digest}
        if not evaluate:
            dataset, rule = calibration_only(source)
            return (dataset, None, {**described, "split": rule}), _skipped(source)
        split = split_source(source, seed=SPLIT_SEED)
        notes = _skipped(source) + _dropped(split.rule)
        return (split.calibration, split.evaluation, {**described, "split": split.rule}), notes
    if options.calib_data is None:
        return (None, _only(_open(str(options.eval_data), options, cache)), {}), ()
    first = _open(options.calib_data, options, cache)
    if options.calib_data == options.eval_data and len(first.splits) == 1:
        raise UsageError(
            f"--calib-data and --eval-data both name {options.calib_data}, but no sample may be on both sides. "
            "Give it once, with --data: its samples are split."
        )
    described = {"source": _short(options.calib_data), "digest": first.digest}
    if options.eval_data is None:
        dataset, rule = calibration_only(first)
        return (dataset, None, {**described, "split": rule}), _skipped(first)
    second = _open(options.eval_data, options, cache)
    split = split_sources(first, second)
    notes = _skipped(first) + _skipped(second) + _dropped(split.rule)
    return (split.calibration, split.evaluation, {**described, "split": split.rule}), notes


def open_foreign(named: str, options: DataOptions, cache: Cache) -> tuple[Dataset, Mapping[str, Any]]:
    """Another dataset to calibrate with (`foreign:SOURCE`), and its provenance."""
    source = _open(named, DataOptions(skip_bad=options.skip_bad, trust_data=options.trust_data), cache)
    dataset, rule = calibration_only(source)
    return dataset, {"source": _short(named), "digest": source.digest, "split": rule}


def _open(named: str, options: DataOptions, cache: Cache) -> Source:
    return open_source(
        named,
        columns=options.columns,
        cache=cache.folder("datasets"),
        skip_bad=options.skip_bad,
        trusted=options.trust_data,
    )


def _with_truths(options: DataOptions, task: Task) -> DataOptions:
    columns = replace(
        options.columns,
        truths=task.head.truth_columns(),
        model_inputs=task.input.columns,
        tabular=task.input.tabular,
        defect=partial(_defect, task, options.skip_bad) if task.input.tabular or options.skip_bad else None,
    )
    return replace(options, columns=columns)


def _defect(task: Task, truths: bool, row: Mapping[str, Any]) -> str | None:
    """What is wrong with a row as the task reads it, and with its truth where such rows are left out."""
    if task.input.tabular and (found := task.input.defect(row)) is not None:
        return found
    try:
        if truths:
            task.head.check_truth(row.get(TRUTH, {}))
    except DataError as error:
        return str(error)
    return None


def _only(source: Source) -> Dataset:
    return without_calibration(source, None)


def _short(named: str) -> str:
    # The name of the source and not its place: two machines that hold the same data make the same file.
    return named if named.startswith("hub:") else Path(named).name


def _skipped(source: Source) -> tuple[str, ...]:
    if not source.skipped:
        return ()
    shown = "; ".join(source.skipped[:3])
    more = f" and {len(source.skipped) - 3} more" if len(source.skipped) > 3 else ""
    return (f"left out {len(source.skipped)} bad samples of {source.name}: {shown}{more}",)


def _dropped(rule: Mapping[str, Any]) -> tuple[str, ...]:
    dropped = rule.get("dropped", 0)
    if not dropped:
        return ()
    return (f"{dropped} calibration samples occur in the evaluation data too; they were not used for calibration.",)


def check_fits(dataset: Dataset | None, task: Task) -> None:
    """Reads one sample of the data, so that data which does not fit the model is found before any work.

    Raises:
        DataError: the sample does not fit, with both shapes.
    """
    if dataset is not None:
        try:
            task.feeds(task.load(dataset.read(np.arange(1))))
        except DataError as error:
            raise DataError(f"{dataset.source}: {error}") from error


def parse_size(text: str) -> list[int]:
    """Height and width from "32x32" or "224". Raises UsageError."""
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--size must be HEIGHTxWIDTH in pixels, for example 224x224, got {text!r}.")
    return [int(parts[0]), int(parts[-1])]


def parse_shape(text: str) -> tuple[str, list[int | None]]:
    """Input and sizes from "x=1x3x224x224"; a "?" leaves a size open. Raises UsageError."""
    name, equals, sizes = text.rpartition("=")
    parts = sizes.lower().split("x") if sizes else []
    if not equals or not name or not all(part == "?" or (part.isdecimal() and int(part) > 0) for part in parts):
        raise UsageError(f"--shape must be INPUT=SIZES, the batch first, for example x=1x3x224x224, got {text!r}.")
    return name, [None if part == "?" else int(part) for part in parts]


def read_preprocessing(path: str) -> dict[str, Any]:
    """Preprocessing from a JSON file. Raises DataError when it cannot be read."""
    expected = 'Expected for example {"size": [224, 224], "mean": [0.5], "std": [0.25]} (docs/data.md).'
    try:
        return read_json(Path(path), "preprocessing", DataError)
    except DataError as error:
        raise DataError(f"{error} {expected}") from error


def parse_numbers(option: str, text: str) -> list[float]:
    """Numbers separated by commas. Raises UsageError."""
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UsageError(
            f"{option} must be numbers separated by commas, for example 0.49,0.48,0.45; got {text!r}."
        ) from None


def parse_ranges(given: Sequence[str]) -> dict[str, list[float]] | list[float]:
    """Bounds of inputs from "x=-1:1", by name; without names, from "-1:1", of the only float input.

    Raises:
        UsageError: not two numbers, the first below the second; or several, of which one has no name.
    """
    found: dict[str, list[float]] = {}
    for text in given:
        name, _, ends = text.rpartition("=")
        low, colon, high = ends.partition(":")
        try:
            found[name] = [float(low), float(high)]
        except ValueError:
            found[name] = []
        if not colon or not found[name] or not -math.inf < found[name][0] < found[name][1] < math.inf:
            raise UsageError(f"--input-range must be NAME=LOW:HIGH, for example x=-1:1, got {text!r}.")
    if "" in found and len(given) > 1:
        raise UsageError("--input-range is given several times, so each must name its input: NAME=LOW:HIGH.")
    return found.get("", found)
