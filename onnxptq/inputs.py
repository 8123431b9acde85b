"""From what a user named - a model, data, how to read them - to the model, the task and the two sides of the data."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
    stored_arrays,
    without_calibration,
)
from onnxptq.errors import DataError, UsageError
from onnxptq.graphs import Model, load_model, read_provenance
from onnxptq.graphs.load import check_quantizable
from onnxptq.graphs.preprocessing_cut import taken_apart
from onnxptq.heads import HEADS, Hints
from onnxptq.sides import open_named, open_sides, skipped_notes, with_truths
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

_ABOUT_PIXELS = (
    "input", "layout", "size", "color", "scale", "mean", "std", "resize", "resize_to", "interpolation", "shape",
)  # fmt: skip


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
    options = with_truths(options, task)
    sides, notes = open_sides(options, cache, evaluate=evaluate)
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
    source = open_named(named, with_truths(options, named_head), cache)
    if not any(task.settled for task, _ in built):
        built = [build_task(model, options, next(iter(source.splits.values()))) for model in models]
    task, warnings = min(built, key=lambda one: (not one[0].settled, bool(one[1])))
    notes = skipped_notes(source) + head_notes(task)
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
