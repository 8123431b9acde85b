"""What a check measures: only what the policy asks for, on the data that there is, where it was asked to run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import onnxptq
from onnxptq.errors import ModelError, OnnxptqError, UsageError
from onnxptq.gates import Limits, Policy, Verdict, check
from onnxptq.gates.policy import AverageDrop, Graph, LatencyRule, ProviderAgreement, Size
from onnxptq.inputs import DataOptions


@pytest.fixture
def models(save_classifier: Callable[..., Path], tmp_path: Path) -> tuple[Path, Path, Path]:
    """FP32, INT8, and data without labels."""
    x = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    fp32 = save_classifier()
    onnxptq.quantize(fp32, data=str(tmp_path / "x.npz"), output=tmp_path / "int8.onnx", corruptions=["clean"])
    return fp32, tmp_path / "int8.onnx", tmp_path / "x.npz"


def test_without_labels_the_default_policy_judges_flips(models: tuple[Path, Path, Path]) -> None:
    _, int8, data = models
    classes = DataOptions(head="classification")
    result = check(int8, data=str(data), corruptions=["clean"], options=classes)
    assert [rule.rule for rule in result.rules] == ["samples", "flip_rate", "worst_group_flip_rate"]
    assert result.verdict is Verdict.PASSED, result
    assert result.subject["labelled"] is False
    assert any("the data has no labels" in line for line in result.warnings)
    assert (result.subject["task"], result.subject["judged"]) == ("tensor-classification", ["logits"])


def test_where_nothing_says_what_outputs_mean_the_default_policy_judges_fidelity(
    models: tuple[Path, Path, Path],
) -> None:
    _, int8, data = models
    result = check(int8, data=str(data), corruptions=["clean"])
    assert [rule.rule for rule in result.rules] == ["samples", "fidelity", "worst_group_fidelity"]
    assert result.verdict is Verdict.PASSED, result
    assert (result.subject["task"], result.subject["judged"]) == ("tensor", ["logits"])


def test_rules_about_the_file_need_no_data_and_run_nothing(
    models: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fp32, int8, _ = models
    monkeypatch.setattr("onnxptq.evaluation.worker_session.Worker", None)
    policy = Policy(size=Size(limit=100.0), graph=Graph(minimum_opset=13))
    assert check(int8, policy=policy).verdict is Verdict.PASSED
    assert check(int8, policy=Policy(graph=Graph()), reference=fp32).verdict is Verdict.PASSED
    with pytest.raises(UsageError, match="--update-baseline keeps predictions"):
        check(int8, policy=policy, baseline=int8.with_name("b.json"), update_baseline=True)


def test_latency_is_measured_on_real_runs(models: tuple[Path, Path, Path]) -> None:
    _, int8, data = models
    policy = Policy(latency=LatencyRule(limit=100.0, batch=3, threads=1))
    result = check(int8, data=str(data), policy=policy)
    (rule,) = result.rules
    assert rule.verdict is Verdict.PASSED and rule.n == 21
    assert rule.low is not None and rule.value is not None and rule.high is not None
    assert 0 < rule.low <= rule.value <= rule.high


def test_the_group_of_the_command_wins_over_that_of_the_policy(models: tuple[Path, Path, Path]) -> None:
    _, int8, data = models
    policy = Policy(group_by=("label",), average_drop=AverageDrop())
    with pytest.raises(UsageError, match="unknown group column 'label'"):
        check(int8, data=str(data), policy=policy)
    result = check(int8, data=str(data), policy=policy, groups=["corruption"], corruptions=["clean"])
    assert result.policy["group_by"] == ["corruption"]


def test_a_provider_is_never_replaced_silently(models: tuple[Path, Path, Path]) -> None:
    from onnxptq.runtimes import probe_all

    missing = next((status.name for status in probe_all() if status.compiled and not status.loads), None)
    if missing is None:
        pytest.skip("every provider that is compiled in loads here")
    _, int8, data = models
    for policy in (None, Policy(provider_agreement=ProviderAgreement((missing,)))):
        with pytest.raises(OnnxptqError, match=missing) as caught:
            check(int8, data=str(data), policy=policy, provider="cpu" if policy else missing)
        # A provider that has to agree with another one cannot be replaced by that one.
        assert ("--allow-fallback" in str(caught.value)) == (policy is None)
    result = check(int8, data=str(data), provider=missing, allow_fallback=True, corruptions=["clean"])
    assert any(missing in warning for warning in result.warnings)
    assert result.subject["runtime"]["provider"] == "cpu"


def test_limits_are_those_that_were_given(models: tuple[Path, Path, Path]) -> None:
    _, int8, data = models
    with pytest.raises(ModelError, match="--memory-limit"):
        check(
            int8,
            data=str(data),
            limits=Limits(memory_bytes=1),
            corruptions=["clean"],
            policy=Policy(average_drop=AverageDrop(), latency=LatencyRule()),
        )
