"""Measuring: what the rules of a policy need to know about a model, found by running it."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from onnxptq.cache import user_cache
from onnxptq.errors import DataError, UsageError
from onnxptq.evaluation import EvaluationSamples, ModelUnderTest, Predictions, predict
from onnxptq.evaluation.groups import check_groupings
from onnxptq.evaluation.model_under_test import Limits, ModelInWorker, WorkerPool, explaining
from onnxptq.evaluation.paired import measure_named, paired
from onnxptq.evaluation.run import differences
from onnxptq.evaluation.sample_runner import SampleRunner, arranged
from onnxptq.evaluation.sanity import truth_notes
from onnxptq.evaluation.totals import totals_by_name
from onnxptq.gates.evidence import Evidence, LatencyRatios
from onnxptq.gates.policy import Policy, settle
from onnxptq.gates.rejudge import read_predictions
from onnxptq.gates.rules import needs
from onnxptq.graphs import Model, read_provenance
from onnxptq.heads import HEADS, RAW
from onnxptq.inputs import open_model
from onnxptq.judging import (
    JudgingOptions,
    check_same_outputs,
    fallback_notes,
    find_reference,
    samples_to_judge_on,
    saturation_notes,
    source_of,
)
from onnxptq.progress import Progress, counted
from onnxptq.runtimes.latency import Burst
from onnxptq.runtimes.selection import Runtime, chosen_runtime
from onnxptq.signature import Feeds

_ROUNDS = 21
"""Turns of FP32 and INT8: the seventh smallest of 21 ratios bounds their median with 96 % confidence."""

_ROUND_SECONDS = 0.05
"""About how long one turn of one model takes: many runs of a small model, one of a large one."""

_MOST_RUNS = 200


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        model: the file to judge.
        reference: the FP32 file; None finds it.
        judging: how it is judged; its groupings take the place of the policy's.
        limits: what a model may take.
        reference_predictions: a file with FP32's predictions, which is then neither run nor needed; None runs it.
    """

    model: Path
    reference: Path | None = None
    judging: JudgingOptions = field(default_factory=JudgingOptions)
    limits: Limits = field(default_factory=Limits)
    reference_predictions: Path | None = None


def measure(request: Request, policy: Policy | None, progress: Progress) -> tuple[Policy, Evidence, tuple[str, ...]]:
    """Runs what the policy needs, each model in a worker of its own.

    Args:
        request: what is to be measured.
        policy: None is the default one, which depends on whether the data has labels.
        progress: called as work goes on.

    Returns:
        The policy, what was found, and warnings.

    Raises:
        OnnxptqError: the input is wrong, or a model is refused or fails.
    """
    domains = policy.graph.domains if policy and policy.graph else ()
    model = open_model(request.model, domains=domains)
    reference = _reference(request, model, policy, domains)
    if reference is not None:
        _check_reference(request, reference)
        check_same_outputs(reference, [model])
    judging, cache = request.judging, user_cache()
    runtime = judging.runtime(cache)
    others = _others(judging.provider, policy)
    with WorkerPool(cache, request.limits) as pool:
        base = pool.in_worker(reference or model)
        subject = pool.in_worker(model, runtime, allow_fallback=judging.allow_fallback)
        evidence = Evidence(model=model, reference=reference)
        if policy is not None and not needs(policy) & {"predictions", "latency"}:
            return policy, _placed(evidence, policy, subject), ()
        samples, warnings = samples_to_judge_on([base.model, model], judging, cache)
        warnings += _made_from_another(model, reference)
        raw = samples.task.head.name == RAW
        policy = settle(policy, judging.groups, labelled=samples.labelled, flips=samples.flips, raw=raw)
        check_groupings([*samples.dataset.attributes, "corruption"], policy.group_by)
        subjects: list[ModelUnderTest] = [base, subject, *(pool.in_worker(model, other) for other in others)]
        if "predictions" in needs(policy):
            count = counted(progress, "evaluating", len(samples) * len(subjects))
            known = _known(request.reference_predictions, base, samples)
            runs = predict(subjects, samples, cache, count, known)
            evidence = replace(
                evidence,
                predictions=runs[1],
                reference_predictions=runs[0],
                pairing=paired(runs[0], runs[1], measure_named(runs[1], policy.score), policy.group_by),
                totals=totals_by_name(runs[0], runs[1]) if policy.total_drop else {},
                by_provider={other.name: run for other, run in zip(others, runs[2:], strict=True)},
            )
            warnings += (
                _without_truth(samples)
                + truth_notes(runs[0])
                + fallback_notes(runs[1:2])
                + saturation_notes([subject])
                + _made_elsewhere(known, base)
            )
        if policy.latency is not None and reference is not None:
            if not reference.path.is_file():
                raise UsageError(
                    f"the policy measures latency against {reference.path.name}. Give --reference FP32.onnx."
                )
            threads = policy.latency.threads or None
            timed = [pool.in_worker(one, subject.runtime, threads=threads) for one in (reference, model)]
            progress("timing", 0, _ROUNDS)
            evidence = replace(evidence, latency=_time(timed, samples, policy.latency.batch, progress))
        return policy, _placed(evidence, policy, subject), warnings


def _without_truth(samples: EvaluationSamples) -> tuple[str, ...]:
    """One line where the default policy has to do without the truth of a task that has one."""
    measures = HEADS.get(samples.task.head.name).measures
    if samples.labelled or not measures:
        return ()
    return (
        "the data has no labels, so only agreement with FP32 is judged and not whether answers are right: name the "
        "column with --label-column, or give labelled data.",
    )


def _reference(request: Request, model: Model, policy: Policy | None, domains: Sequence[str]) -> Model | None:
    """The FP32 model, or None where the policy does not need one and none was named."""
    if request.reference is not None:
        return open_model(request.reference, domains=domains)
    if policy is not None and "reference" not in needs(policy):
        return None
    if read_provenance(model.metadata) is None:
        raise UsageError(
            f"{model.path} does not say which FP32 model it was made from. Give it with --reference FP32.onnx."
        )
    if request.reference_predictions is not None:
        try:
            return find_reference(None, [model])
        except UsageError:
            return source_of(model)
    return find_reference(None, [model])


def _check_reference(request: Request, reference: Model) -> None:
    """Raises UsageError for a named reference that is quantized: beside a ruined model another one loses nothing."""
    if request.reference is not None and reference.quantized:
        raise UsageError(
            f"{reference.path} is quantized itself, so nothing can be said of what INT8 costs. Give the FP32 model "
            "with --reference."
        )


def _made_from_another(model: Model, reference: Model | None) -> tuple[str, ...]:
    """A note where the model says that it was made from another file than the reference."""
    provenance = read_provenance(model.metadata)
    if provenance is None or reference is None or provenance.source["digest"] == reference.digest:
        return ()
    return (
        f"{model.path.name} says that it was made from {provenance.source.get('name')}, and {reference.path.name} is "
        "not that file: what is told is the difference of these two.",
    )


def _known(file: Path | None, base: ModelUnderTest, samples: EvaluationSamples) -> list[Predictions]:
    """FP32's predictions from a file.

    Raises:
        DataError: there is no such file, or it has none of this model on these samples; the message says what differs.
    """
    if file is None:
        return []
    runs = read_predictions(file)
    differing = [differences(run, base, samples) for run in runs]
    for run, keys in zip(runs, differing, strict=True):
        if not keys:
            return [run]
    least = min(differing, key=len)
    raise DataError(
        f"{file} has no predictions of {base.model.path.name} on what is judged here: another {', '.join(least)}. Make "
        f"them with `onnxptq evaluate INT8.onnx --reference {base.model.path.name} --predictions FILE` on the same "
        "data, with the same --corruption and preprocessing."
    )


def _made_elsewhere(known: Sequence[Predictions], base: ModelUnderTest) -> tuple[str, ...]:
    """A note where FP32's predictions were made on another runtime or machine than FP32 would run on here."""
    here = base.runtime.identity()
    for run in known:
        there = run.identity["runtime"]
        keys = sorted(key for key in here if there.get(key) != here[key])
        if keys:
            return (
                f"the reference's predictions were made elsewhere ({', '.join(keys)} differ), as it was asked for.",
            )
    return ()


def _others(judged: str, policy: Policy | None) -> list[Runtime]:
    """What else the policy wants the model to run on."""
    names = policy.provider_agreement.providers if policy and policy.provider_agreement else ()
    return [chosen_runtime(name, user_cache()) for name in names if name != judged]


def _placed(evidence: Evidence, policy: Policy, subject: ModelInWorker) -> Evidence:
    if "placement" not in needs(policy):
        return evidence
    with explaining(subject, "is loaded"):
        return replace(evidence, placement=subject.open().placement, placement_known=True)


def _time(
    subjects: Sequence[ModelInWorker],
    samples: EvaluationSamples,
    batch: int,
    progress: Progress,
) -> LatencyRatios:
    """FP32 and INT8 in turns, so that both see the same machine; the order alternates too."""
    feeds = _one_batch(samples, batch)
    bursts = [_burst(subject, feeds) for subject in subjects]
    slowest = max(statistics.median(burst(3, 2)) for burst in bursts)
    runs = max(1, min(_MOST_RUNS, int(_ROUND_SECONDS / max(slowest, 1e-9))))
    ratios = []
    for number in range(_ROUNDS):
        order = (0, 1) if number % 2 else (1, 0)
        medians = {which: statistics.median(bursts[which](runs, 1)) for which in order}
        ratios.append(medians[1] / medians[0])
        progress("timing", number + 1, _ROUNDS)
    return LatencyRatios(tuple(sorted(ratios)), subjects[1].runtime.name)


def _burst(subject: ModelInWorker, feeds: Feeds) -> Burst:
    with explaining(subject, "is loaded"):
        runner = SampleRunner(subject.open())
    with explaining(subject, "runs"):
        runner.run(feeds)  # What does not fit is said here.
    time = subject.burst(arranged(feeds, subject.model.core.signature))

    def burst(runs: int, warmup: int) -> list[float]:
        with explaining(subject, "runs"):
            return time(runs, warmup)

    return burst


def _one_batch(samples: EvaluationSamples, size: int) -> Feeds:
    rows = np.arange(size) % len(samples.dataset)
    read = samples.dataset.read(rows)
    together = samples.task.loadable_together(read)[0]  # Samples of several shapes cannot run together.
    return samples.task.feeds(samples.task.load([read[i] for i in together]))
