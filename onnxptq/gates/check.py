"""The check: measure or read, judge by the policy, say the verdict. What `onnxptq check` and the pytest plugin call."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from onnxptq.errors import UsageError
from onnxptq.evaluation.measures import Measure
from onnxptq.evaluation.model_under_test import Limits
from onnxptq.gates.baseline import Baseline, check_comparable, load_baseline, make_baseline, save_baseline
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.measure import Request, measure
from onnxptq.gates.named_policies import find_policy
from onnxptq.gates.policy import FORMAT, Policy, policy_to_dict
from onnxptq.gates.rejudge import read_evidence
from onnxptq.gates.rules import judge
from onnxptq.gates.verdict import CheckResult, Verdict, overall
from onnxptq.inputs import DataOptions
from onnxptq.judging import JudgingOptions
from onnxptq.progress import Progress, silent


def check(
    model: str | Path | None = None,
    *,
    reference: str | Path | None = None,
    data: str | None = None,
    policy: str | Path | Policy | None = None,
    provider: str | None = None,
    baseline: str | Path | None = None,
    update_baseline: bool = False,
    predictions: str | Path | None = None,
    reference_predictions: str | Path | None = None,
    groups: Sequence[str] = (),
    corruptions: Sequence[str] | None = None,
    options: DataOptions | None = None,
    allow_fallback: bool = False,
    limits: Limits | None = None,
    command: str | None = None,
    progress: Progress = silent,
) -> CheckResult:
    """Judges a model by a policy.

    Args:
        model: the file; may be left out with `predictions`.
        reference: the FP32 file; None finds it where the model says what it was made from.
        data: what to judge on; None is the built-in data, for models made from the built-in one.
        policy: a name (`onnxptq policy list`), a TOML file, or a Policy; None is the default one.
        provider: what to judge on, as `compare` takes it ("cpu@1.20"); None is the CPU (with
            `predictions` the first run).
        baseline: file of the last accepted model; the check fails on a significant regression against it.
        update_baseline: write the baseline instead, unless the check failed.
        predictions: judge these again; nothing is run, and rules that they cannot answer are NOT JUDGED.
        reference_predictions: FP32's predictions on the same samples, from a file: FP32 is neither run nor needed.
        groups: groupings, instead of the policy's `group_by`.
        corruptions: to judge under, beside clean; None is the task's default list.
        options: how to read the data.
        allow_fallback: judge on the CPU where the provider does not load or does not take the model.
        limits: what a model may take in time and memory.
        command: the command that repeats this; None makes it from the arguments.
        progress: called as work goes on.

    Raises:
        OnnxptqError: the input is wrong; nothing was judged.
    """
    _check_arguments(model, data, baseline, update_baseline, predictions)
    if predictions is not None and reference_predictions is not None:
        raise UsageError("--predictions holds the reference's too. Leave --reference-predictions out.")
    rules = policy if isinstance(policy, Policy) or policy is None else find_policy(policy)
    before = load_baseline(Path(baseline)) if baseline is not None and not update_baseline else None
    if predictions is not None:
        rules, evidence = read_evidence(
            Path(predictions),
            rules,
            model=_path(model),
            reference=_path(reference),
            provider=provider,
            groups=tuple(groups),
        )
        warnings: tuple[str, ...] = ()
    else:
        assert model is not None
        judging = JudgingOptions.of(
            data=data,
            options=options,
            groups=groups,
            corruptions=corruptions,
            provider=provider or "cpu",
            allow_fallback=allow_fallback,
        )
        known = _path(reference_predictions)
        request = Request(Path(model), _path(reference), judging, limits or Limits(), known)
        rules, evidence, warnings = measure(request, rules, progress)
    if before is not None:
        if evidence.predictions is None:
            raise UsageError("--baseline compares predictions, and no rule of the policy needs any. Leave it out.")
        check_comparable(before, evidence.predictions, Path(str(baseline)), _judged_by(evidence))
        evidence = dataclasses.replace(evidence, baseline=before)
    results = judge(rules, evidence)
    result = CheckResult(
        verdict=overall(results),
        rules=results,
        subject=_subject(evidence),
        policy={"format": FORMAT, **policy_to_dict(rules)},
        command=command or _command(model, reference, data, policy, provider, baseline, predictions),
        warnings=warnings,
    )
    if update_baseline and result.verdict is not Verdict.FAILED:
        save_baseline(Path(str(baseline)), _baseline(evidence))
    return result


def _check_arguments(model: object, data: object, baseline: object, update_baseline: bool, predictions: object) -> None:
    if model is None and predictions is None:
        raise UsageError("which model? Give an ONNX file, or --predictions FILE to judge again without running one.")
    if predictions is not None and data is not None:
        raise UsageError("--predictions runs nothing, so --data has no use. Leave one of them out.")
    if update_baseline and baseline is None:
        raise UsageError("--update-baseline needs --baseline FILE: where to write it.")


def _path(path: str | Path | None) -> Path | None:
    return None if path is None else Path(path)


def _subject(evidence: Evidence) -> dict[str, Any]:
    """What was judged, as JSON types: no path and no time."""
    from onnxptq.version import __version__

    values: dict[str, Any] = {"onnxptq": __version__}
    for key, file, run in (
        ("model", evidence.model, evidence.predictions),
        ("reference", evidence.reference, evidence.reference_predictions),
    ):
        if file is not None:
            values[key] = {"name": file.path.name, "digest": file.digest, "bytes": file.size}
        elif run is not None:
            values[key] = dict(run.identity["model"])
    if evidence.predictions is not None:
        identity = evidence.predictions.identity
        values |= {key: identity.get(key) for key in ("runtime", "data", "corruptions", "seed", "task", "judged")}
        values["labelled"] = evidence.predictions.labelled
        values["n"] = len(evidence.predictions)
    if evidence.baseline is not None:
        values["baseline"] = dict(evidence.baseline.model)
    return values


def _judged_by(evidence: Evidence) -> Measure | None:
    return None if evidence.pairing is None else evidence.pairing.measure


def _baseline(evidence: Evidence) -> Baseline:
    if evidence.predictions is None or evidence.reference_predictions is None:
        raise UsageError("--update-baseline keeps predictions, and no rule of the policy needs any. Leave it out.")
    ratios = evidence.latency.ratios if evidence.latency else None
    return make_baseline(
        evidence.reference_predictions,
        evidence.predictions,
        _judged_by(evidence),
        size=evidence.model.size if evidence.model else None,
        latency_ratio=ratios[len(ratios) // 2] if ratios else None,
    )


def _command(
    model: object,
    reference: object,
    data: object,
    policy: object,
    provider: object,
    baseline: object,
    predictions: object,
) -> str:
    words = ["onnxptq", "check", *([str(model)] if model is not None else [])]
    options = {
        "--predictions": predictions,
        "--reference": reference,
        "--data": data,
        "--policy": None if isinstance(policy, Policy) else policy,
        "--ep": provider,
        "--baseline": baseline,
    }
    for name, value in options.items():
        words += [name, str(value)] if value is not None else []
    return shlex.join(words)
