"""Predictions are judged again without running anything; what they cannot answer is not judged, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxptq.errors import DataError, UsageError
from onnxptq.evaluation import save_predictions
from onnxptq.gates import Policy, Verdict, check
from onnxptq.gates.policy import AverageDrop, Graph, LatencyRule, Lint, PlacementRule, ProvenanceRule, Size
from onnxptq.graphs import load_model

Make = Callable[..., Any]


@pytest.fixture
def write(make_runs: Make, tmp_path: Path) -> Callable[..., Path]:
    def write(*runs: Any) -> Path:
        save_predictions(tmp_path / "p.parquet", runs or make_runs(100, {"label=cat": 0.3}))
        return tmp_path / "p.parquet"

    return write


def test_the_verdict_is_that_of_the_predictions(write: Make, make_runs: Make) -> None:
    result = check(predictions=write())
    assert result.verdict is Verdict.FAILED
    assert result.subject["model"]["name"] == "int8.onnx" and result.subject["n"] == 800
    assert result.command == f"onnxptq check --predictions {write()}"
    assert check(predictions=write(*make_runs(100))).verdict is Verdict.PASSED


def test_rules_about_the_file_and_the_machine_are_not_judged(write: Make) -> None:
    policy = Policy(
        average_drop=AverageDrop(0.5),
        latency=LatencyRule(),
        size=Size(),
        placement=PlacementRule("cpu"),
        lint=Lint("cpu"),
        provenance=ProvenanceRule(),
        graph=Graph(),
    )
    result = check(predictions=write(), policy=policy)
    assert result.verdict is Verdict.PASSED
    names = [rule.rule for rule in result.named(Verdict.NOT_JUDGED)]
    assert names == ["latency", "size", "placement", "lint", "provenance", "graph"]


def test_with_the_file_its_own_rules_are_judged(write: Make, make_runs: Make, save_classifier: Make) -> None:
    path = save_classifier("int8.onnx")
    runs = make_runs(100, digest=load_model(path).digest)
    policy = Policy(average_drop=AverageDrop(), graph=Graph(minimum_opset=18), placement=PlacementRule("cpu"))
    result = check(path, predictions=write(*runs), policy=policy)
    assert [(rule.rule, rule.verdict.value) for rule in result.rules] == [
        ("quantization", "FAILED"),
        ("average_drop", "PASSED"),
        ("placement", "NOT JUDGED"),
        ("graph", "FAILED"),
    ]


def test_predictions_of_another_model_are_refused(write: Make, save_classifier: Make) -> None:
    with pytest.raises(DataError, match=r"predictions of another model \(fp32.onnx, int8.onnx\), not of .*net.onnx"):
        check(save_classifier(), predictions=write())
    with pytest.raises(DataError, match="another model"):
        check(reference=save_classifier(), predictions=write())


def test_it_must_be_clear_which_run_is_meant(write: Make, make_runs: Make) -> None:
    reference, one = make_runs(60)
    other = make_runs(60, digest="c" * 64)[1]
    with pytest.raises(UsageError, match=r"several models.*Give the MODEL"):
        check(predictions=write(reference, one, other))
    with pytest.raises(UsageError, match="of the reference only"):
        check(predictions=write(reference))
    with pytest.raises(UsageError, match="no predictions on 'cuda', only on cpu"):
        check(predictions=write(reference, one), provider="cuda")


def test_several_providers_are_compared(write: Make, make_runs: Make) -> None:
    reference, cpu = make_runs(100)
    cuda = make_runs(100, {"label=dog": 0.5}, provider="cuda")[1]
    policy = Path(write(reference, cpu, cuda)).with_name("policy.toml")
    policy.write_text('[provider_agreement]\nproviders = ["cpu", "cuda"]\n')
    result = check(predictions=write(reference, cpu, cuda), policy=policy)
    assert [(rule.verdict.value, rule.value) for rule in result.rules] == [("FAILED", pytest.approx(0.875))]
    assert check(predictions=write(reference, cpu, cuda), provider="cuda").verdict is Verdict.FAILED


def test_runs_over_other_samples_are_refused(write: Make, make_runs: Make) -> None:
    with pytest.raises(DataError, match="not over the same samples"):
        check(predictions=write(make_runs(60)[0], make_runs(50)[1]))


def test_what_is_no_file_of_predictions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there are no predictions"):
        check(predictions=tmp_path / "gone.parquet")
    (tmp_path / "text").write_text("not parquet")
    with pytest.raises(DataError, match="cannot be read"):
        check(predictions=tmp_path / "text")


def test_arguments_that_exclude_each_other_are_refused(write: Make) -> None:
    with pytest.raises(UsageError, match="which model"):
        check()
    with pytest.raises(UsageError, match="--data has no use"):
        check(predictions=write(), data="images")
    with pytest.raises(UsageError, match="--update-baseline needs --baseline"):
        check(predictions=write(), update_baseline=True)


def test_the_baseline_is_written_unless_the_check_failed(write: Make, make_runs: Make, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    assert check(predictions=write(), baseline=baseline, update_baseline=True).verdict is Verdict.FAILED
    assert not baseline.exists()
    good = write(*make_runs(100))
    assert check(predictions=good, baseline=baseline, update_baseline=True).verdict is Verdict.PASSED
    result = check(predictions=write(), baseline=baseline, policy=Policy())
    assert [rule.verdict.value for rule in result.rules] == ["PASSED", "FAILED", "FAILED"]
    assert result.subject["baseline"]["name"] == "int8.onnx"
