"""Judging: which reference, which samples; then predictions of all models on the same samples."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSet
from onnxptq.data import Dataset
from onnxptq.errors import DataError, UsageError
from onnxptq.evaluation import (
    EvaluationSamples,
    ModelUnderTest,
    Predictions,
    Report,
    compare,
    default_corruptions,
    named_corruptions,
    predict,
)
from onnxptq.evaluation.groups import check_groupings
from onnxptq.evaluation.model_under_test import WorkerPool
from onnxptq.evaluation.sanity import reference_notes
from onnxptq.graphs import Model, load_model, read_provenance
from onnxptq.inputs import DataOptions, Inputs, check_fits, open_model, resolve_for_evaluation
from onnxptq.progress import Progress, counted
from onnxptq.runtimes.cpu import CLIPS
from onnxptq.runtimes.selection import Runtime, chosen_runtime
from onnxptq.signature import TensorSpec, shown
from onnxptq.tasks import Task

EVALUATION_SEED = 0
"""Of the corruptions that models are judged under: not the recipe's seed, so that all models see the same samples."""


@dataclass(frozen=True)
class JudgingOptions:
    """How a user wants models to be judged.

    Attributes:
        provider: what the models run on, as `compare` takes it ("cpu", "cpu:exact", "openvino", "cpu@1.20"); the
            reference runs on the CPU.
        groups: groupings such as "label*corruption"; () is the default one.
        corruptions: to judge under, beside clean; None is the task's default list.
        data: what to judge on and how to read it.
        allow_fallback: judge on the CPU of this environment where the provider does not load or does not take a model.
    """

    provider: str = "cpu"
    groups: tuple[str, ...] = ()
    corruptions: tuple[str, ...] | None = None
    data: DataOptions = field(default_factory=DataOptions)
    allow_fallback: bool = False

    @classmethod
    def of(
        cls,
        *,
        data: str | None = None,
        options: DataOptions | None = None,
        groups: Sequence[str] = (),
        corruptions: Sequence[str] | None = None,
        provider: str = "cpu",
        allow_fallback: bool = False,
    ) -> JudgingOptions:
        """From the keywords of public functions, which take any sequences, and `data` beside `options`."""
        return cls(
            provider=provider,
            groups=tuple(groups),
            corruptions=None if corruptions is None else tuple(corruptions),
            data=data_options(options, data),
            allow_fallback=allow_fallback,
        )

    def runtime(self, cache: Cache) -> Runtime:
        """The runtime, tried. Raises RuntimeUnavailableError where it does not load and no fallback is allowed."""
        return chosen_runtime(self.provider, cache, allow_fallback=self.allow_fallback)


def data_options(options: DataOptions | None, data: str | None) -> DataOptions:
    """The options with the source that was named beside them."""
    options = options or DataOptions()
    return replace(options, data=data) if data else options


def find_reference(reference: str | Path | None, models: Sequence[Model]) -> Model:
    """The FP32 model that models are compared with.

    The one that was named; else, for a model that we wrote, the built-in one or the file of the recorded name and
    digest beside it; else the first model.

    Raises:
        UsageError: the model says what it was made from and that is not there, or it is quantized and says nothing.
    """
    from onnxptq.models import builtin

    if reference is not None:
        return open_model(Path(reference))
    provenance = read_provenance(models[0].metadata)
    own = load_model(builtin().model)
    if provenance is not None and provenance.source["digest"] == own.digest:
        return own
    if provenance is not None:
        beside = models[0].path.parent / Path(str(provenance.source.get("name"))).name
        if beside.is_file() and (found := open_model(beside)).digest == provenance.source["digest"]:
            return found
        raise UsageError(
            f"{models[0].path} was made from {provenance.source.get('name')}, which is not beside it. "
            "Give it with --reference FP32.onnx."
        )
    if models[0].quantized:
        raise UsageError(
            f"{models[0].path} is quantized and does not say which FP32 model it was made from. "
            "Give it with --reference FP32.onnx."
        )
    return models[0]


def source_of(model: Model) -> Model:
    """What an INT8 model was made from, by what it says of it: name and digest of a file that need not be here.

    Raises:
        UsageError: the model does not say what it was made from.
    """
    provenance = read_provenance(model.metadata)
    if provenance is None:
        raise UsageError(f"{model.path} does not say which FP32 model it was made from. Give it with --reference.")
    name, digest = str(provenance.source.get("name")), str(provenance.source["digest"])
    return replace(model, path=model.path.with_name(Path(name).name), digest=digest, quantized=False, parts=None)


def check_same_outputs(reference: Model, models: Sequence[Model]) -> None:
    """Raises UsageError when a model has other inputs or outputs than its reference, by name or by shape."""
    for model in models:
        for kind in ("inputs", "outputs"):
            specs = [getattr(m.signature, kind) for m in (model, reference)]
            mine, theirs = ([f"{s.name} {shown(s.shape)}" for s in side] for side in specs)
            if len(mine) != len(theirs) or not all(map(_agree, *specs)):
                raise UsageError(
                    f"{model.path} has the {kind} {', '.join(mine)}, the reference {reference.path} has "
                    f"{', '.join(theirs)}: it is not the model that this one was made from. Give --reference."
                )


def _agree(one: TensorSpec, other: TensorSpec) -> bool:
    """Whether two tensors can be the same one: equal names and, where both say them, equal sizes."""
    if one.name != other.name or (one.shape and other.shape and len(one.shape) != len(other.shape)):
        return False
    return all(None in pair or pair[0] == pair[1] for pair in zip(one.shape[1:], other.shape[1:], strict=False))


def calibration_families(models: Sequence[Model]) -> frozenset[str]:
    """Families of shifts that calibrated one of the models, as far as they say so."""
    families: set[str] = set()
    for model in models:
        provenance = read_provenance(model.metadata)
        # A set of a plug-in that is not installed here tells nothing, and judging does not need it.
        with suppress(UsageError):
            families |= CalibrationSet.parse(provenance.recipe.calibration).families if provenance else set()
    return frozenset(families)


def evaluation_samples(inputs: Inputs, calibration_set: CalibrationSet, options: JudgingOptions) -> EvaluationSamples:
    """What a freshly quantized model is judged on.

    Raises:
        DataError: there is no data to evaluate on.
        UsageError: an unknown corruption or group column.
    """
    if inputs.evaluation is None:
        raise DataError("there is no data to evaluate on. Give --data or --eval-data, or use --no-evaluate.")
    return _samples(inputs.task, inputs.evaluation, calibration_set.families, options)


def samples_to_judge_on(
    models: Sequence[Model], options: JudgingOptions, cache: Cache
) -> tuple[EvaluationSamples, tuple[str, ...]]:
    """What models and their reference are judged on, and warnings.

    Args:
        models: all of them; samples that calibrated one are left out.
        options: the data, corruptions and groupings; names are checked here, before any work.
        cache: where tables are kept.

    Raises:
        OnnxptqError: the data or a name is wrong.
    """
    dataset, task, warnings = resolve_for_evaluation(list(models), options.data, cache)
    check_fits(dataset, task)
    return _samples(task, dataset, calibration_families(models), options), warnings


def _samples(task: Task, dataset: Dataset, calibrated_on: frozenset[str], options: JudgingOptions) -> EvaluationSamples:
    if options.corruptions is None:
        names = default_corruptions(task, calibrated_on)
    else:
        names = named_corruptions(options.corruptions, task)
    check_groupings([*dataset.attributes, "corruption"], options.groups)
    return EvaluationSamples(task, dataset, names, EVALUATION_SEED)


@dataclass(frozen=True)
class Judgement:
    """Predictions of the reference and of each model, a report for each model, and notes for the user."""

    predictions: tuple[Predictions, ...] = ()
    reports: tuple[Report, ...] = ()
    notes: tuple[str, ...] = ()


def judge(
    reference: Model,
    models: Sequence[Model],
    runtime: Runtime,
    samples: EvaluationSamples,
    options: JudgingOptions,
    cache: Cache,
    progress: Progress,
) -> Judgement:
    """Runs the models on a runtime and the reference on the CPU over the same samples, and compares them."""
    count = counted(progress, "evaluating", len(samples) * (len(models) + 1))
    with WorkerPool(cache) as pool:
        chosen = [pool.model(model, runtime, allow_fallback=options.allow_fallback) for model in models]
        predictions = tuple(predict([ModelUnderTest(reference), *chosen], samples, cache, count))
    reports = tuple(compare(predictions[0], run, options.groups, totals=True) for run in predictions[1:])
    notes = reference_notes(predictions[0]) + fallback_notes(predictions) + saturation_notes(chosen)
    return Judgement(predictions, reports, notes)


def saturation_notes(judged: Sequence[ModelUnderTest]) -> tuple[str, ...]:
    """One line where models were judged by kernels that can clip: INT8 on an x86 CPU without VNNI."""
    if not any(one.model.quantized and one.runtime.saturates for one in judged):
        return ()
    return (f"{CLIPS} --ep cpu:exact judges without it, for a deployment whose CPU or GPU does not clip.",)


def fallback_notes(predictions: Sequence[Predictions]) -> tuple[str, ...]:
    """One line for each run that another provider served than the one asked for (`--allow-fallback`)."""
    runs = [(run.identity["model"]["name"], run.identity["runtime"]) for run in predictions]
    return tuple(
        f"{name} was judged on {runtime['provider']}: {runtime['fallback_reason']}"
        for name, runtime in runs
        if "fallback_reason" in runtime
    )
