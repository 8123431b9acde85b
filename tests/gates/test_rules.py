"""Each rule finds what it is for, in the group where it is, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from onnxptq.errors import UsageError
from onnxptq.evaluation.paired import paired
from onnxptq.gates.baseline import make_baseline
from onnxptq.gates.evidence import Evidence, LatencyRatios
from onnxptq.gates.policy import (
    AverageDrop,
    FlipRate,
    GroupAccuracy,
    GroupDrop,
    LatencyRule,
    PlacementRule,
    Policy,
    ProviderAgreement,
    RegressionRule,
    Samples,
    Size,
    WorstGroupDrop,
    WorstGroupFlipRate,
    default_policy,
)
from onnxptq.gates.rules import judge
from onnxptq.gates.verdict import RuleResult, Verdict
from onnxptq.graphs import Model
from onnxptq.tasks import Signature

Make = Callable[..., Evidence]
FOGGY_CAT = "label=cat*corruption=fog@3"


def only(policy: Policy, evidence: Evidence, rule: str) -> RuleResult:
    (found,) = [result for result in judge(policy, evidence) if result.rule == rule]
    return found


def verdicts(policy: Policy, evidence: Evidence) -> dict[str, str]:
    return {result.rule: result.verdict.value for result in judge(policy, evidence)}


def test_equal_models_pass_the_default_policy(evidence: Make) -> None:
    assert set(verdicts(default_policy(labelled=True), evidence(100)).values()) == {"PASSED"}


def test_one_bad_group_fails_the_worst_group_and_not_the_average(evidence: Make) -> None:
    found = evidence(200, {FOGGY_CAT: 0.15}, flips=0.002)
    policy = Policy(average_drop=AverageDrop(limit=0.03), worst_group_drop=WorstGroupDrop())
    assert verdicts(policy, found) == {"samples": "PASSED", "average_drop": "PASSED", "worst_group_drop": "FAILED"}
    worst = only(policy, found, "worst_group_drop")
    assert (worst.group, worst.n, worst.sources, worst.limit) == (FOGGY_CAT, 200, 200, 0.02)
    assert worst.value == pytest.approx(0.15, abs=0.02)
    assert worst.low is not None and worst.high is not None and 0.02 < worst.low < 0.15 < worst.high
    assert FOGGY_CAT in worst.explanation and worst.next_step


def test_on_data_on_which_the_reference_knows_nothing_no_rule_passes_or_fails(make_runs: Callable[..., tuple]) -> None:
    reference, model = make_runs(100)
    empty = np.zeros_like(reference.code)
    for prediction in (empty, model.code):
        runs = replace(reference, code=empty), replace(model, code=prediction)
        found = Evidence(predictions=runs[1], reference_predictions=runs[0], pairing=paired(*runs))
        results = judge(replace(default_policy(labelled=True), flip_rate=FlipRate()), found)
        judged = {result.rule: result.verdict for result in results if result.rule != "samples"}
        assert set(judged.values()) == {Verdict.UNDECIDED} and len(judged) == 3
        assert "fp32.onnx gives identical outputs for all 400" in results[1].explanation and results[1].next_step


def test_a_group_of_50_that_loses_ten_points_never_passes(evidence: Make) -> None:
    result = only(default_policy(labelled=True), evidence(50, {FOGGY_CAT: 0.1}), "worst_group_drop")
    assert result.verdict is Verdict.UNDECIDED
    assert result.high is not None and result.tolerance is not None and result.high > result.tolerance == 0.1
    assert result.samples_to_decide is not None and result.samples_to_decide > 50
    assert FOGGY_CAT in result.explanation and "original samples a group" in result.next_step


def test_a_pass_says_the_largest_loss_that_it_cannot_rule_out(evidence: Make) -> None:
    result = only(default_policy(labelled=True), evidence(100, {FOGGY_CAT: 0.03}), "worst_group_drop")
    assert result.verdict is Verdict.PASSED
    assert result.ruled_out == f"at most {100 * result.high:.1f} points in the worst group, with 95 % confidence"
    stricter = Policy(worst_group_drop=WorstGroupDrop(tolerance=0.04))
    assert only(stricter, evidence(100, {FOGGY_CAT: 0.03}), "worst_group_drop").verdict is Verdict.UNDECIDED


def test_a_drop_within_chance_passes_where_likely_and_fails_where_possible(evidence: Make) -> None:
    found = evidence(60, {FOGGY_CAT: 0.03})
    for mode, expected in (("fail-if-likely", "PASSED"), ("fail-if-possible", "FAILED")):
        policy = Policy(worst_group_drop=WorstGroupDrop(mode=mode))
        assert verdicts(policy, found)["worst_group_drop"] == expected


def test_the_average_is_judged_over_all_rows(evidence: Make) -> None:
    result = only(Policy(average_drop=AverageDrop()), evidence(200, {"corruption=fog@3": 0.1}), "average_drop")
    assert (result.verdict, result.n, result.sources) == (Verdict.FAILED, 1600, 800)
    assert result.value == pytest.approx(0.05)


def test_groups_with_too_few_samples_leave_the_verdict_open(evidence: Make) -> None:
    found = evidence(20, {FOGGY_CAT: 1.0})
    policy = Policy(worst_group_drop=WorstGroupDrop())
    assert verdicts(policy, found) == {"samples": "UNDECIDED", "worst_group_drop": "UNDECIDED"}
    assert "8 of 8 groups have fewer than 50" in only(policy, found, "samples").explanation
    smaller = replace(policy, samples=Samples(minimum=20))
    assert verdicts(smaller, found) == {"samples": "PASSED", "worst_group_drop": "FAILED"}


def test_small_groups_can_be_ignored_by_name(evidence: Make) -> None:
    found = evidence(100, group_by=("label", "label*corruption"))
    assert found.pairing is not None
    groups = found.pairing.groups
    few = replace(groups, members=(groups.members[0][:10], *groups.members[1:]))
    small = replace(found.pairing, groups=few)
    policy = Policy(worst_group_drop=WorstGroupDrop())
    assert verdicts(policy, replace(found, pairing=small))["samples"] == "UNDECIDED"
    ignoring = replace(policy, samples=Samples(small_groups="ignore"))
    assert verdicts(ignoring, replace(found, pairing=small)) == {"samples": "PASSED", "worst_group_drop": "PASSED"}


def test_a_named_group_is_judged_over_all_that_it_names(evidence: Make) -> None:
    found = evidence(200, {FOGGY_CAT: 0.4})
    policy = Policy(group_drop=(GroupDrop("label=cat"), GroupDrop("label=dog"), GroupDrop("corruption=fog@3")))
    results = {result.group: result for result in judge(policy, found)}
    assert [results[name].verdict.value for name in ("label=cat", "label=dog")] == ["FAILED", "PASSED"]
    assert [results[name].n for name in ("label=cat", "corruption=fog@3")] == [400, 800]
    assert results["label=cat"].value == pytest.approx(0.2)


def test_named_groups_are_corrected_for_their_number(evidence: Make) -> None:
    found = evidence(100, {"label=cat*corruption=fog@3": 0.12})
    alone = Policy(group_drop=(GroupDrop(FOGGY_CAT),))
    names = [f"label={name}*corruption=clean" for name in ("cat", "dog", "fox", "owl")]
    among = Policy(group_drop=(GroupDrop(FOGGY_CAT), *map(GroupDrop, names)))
    assert judge(alone, found)[0].verdict is Verdict.FAILED
    assert judge(among, found)[0].verdict is Verdict.UNDECIDED
    # The lower end is that of the shared error rate, the upper end needs no correction.
    first, second = judge(alone, found)[0], judge(among, found)[0]
    assert second.low < first.low and second.high == first.high


def test_a_floor_fails_where_the_accuracy_is_surely_below(evidence: Make) -> None:
    found = evidence(100, {FOGGY_CAT: 0.3})
    for limit, expected in ((0.9, Verdict.FAILED), (0.75, Verdict.UNDECIDED), (0.5, Verdict.PASSED)):
        result = judge(Policy(group_accuracy=(GroupAccuracy(FOGGY_CAT, limit),)), found)[0]
        assert (result.verdict, result.value) == (expected, pytest.approx(0.7))


@pytest.mark.parametrize(
    ("group", "words"),
    [
        ("label=cta", "no sample has label=cta. Did you mean 'cat'"),
        ("lable=cat", "no column 'lable'. Did you mean 'label'"),
        ("cat", "expected column=value"),
    ],
)
def test_a_group_that_the_data_lacks_is_bad_input(evidence: Make, group: str, words: str) -> None:
    for policy in (Policy(group_drop=(GroupDrop(group),)), Policy(group_accuracy=(GroupAccuracy(group, 0.5),))):
        with pytest.raises(UsageError, match=words):
            judge(policy, evidence(60))


def test_a_named_group_with_too_few_samples_is_undecided(evidence: Make) -> None:
    policy = Policy(group_drop=(GroupDrop("label=cat"),), group_accuracy=(GroupAccuracy("label=cat", 0.9),))
    results = judge(policy, evidence(20, {"label=cat": 1.0}))
    assert [result.verdict for result in results] == [Verdict.UNDECIDED, Verdict.UNDECIDED]
    assert results[0].n == 40 and results[0].sources == 20


def test_without_labels_drops_are_undecided_and_flips_decide(evidence: Make) -> None:
    found = evidence(200, {"corruption=fog@3": 0.3}, labelled=False)
    everything = replace(default_policy(labelled=False), average_drop=AverageDrop(), worst_group_drop=WorstGroupDrop())
    assert verdicts(everything, found) == {
        "samples": "PASSED",
        "average_drop": "UNDECIDED",
        "worst_group_drop": "UNDECIDED",
        "flip_rate": "FAILED",
        "worst_group_flip_rate": "FAILED",
    }
    assert only(everything, found, "worst_group_flip_rate").group == "corruption=fog@3"


def test_flips_count_whether_they_help_or_hurt(evidence: Make) -> None:
    result = only(Policy(flip_rate=FlipRate()), evidence(200, flips=0.1), "flip_rate")
    assert result.verdict is Verdict.FAILED
    assert result.value == pytest.approx(0.1, abs=0.02)
    few = judge(Policy(worst_group_flip_rate=WorstGroupFlipRate()), evidence(60, flips=0.002))
    assert {r.verdict for r in few} == {Verdict.PASSED}
    assert all(r.low is None or r.low >= 0 for r in few)


def test_providers_must_agree(evidence: Make) -> None:
    found = evidence(200)
    assert found.predictions is not None
    policy = Policy(provider_agreement=ProviderAgreement(("cpu", "cuda")))
    assert verdicts(policy, found) == {"provider_agreement": "NOT JUDGED"}
    same = replace(found, by_provider={"cuda": found.predictions})
    assert verdicts(policy, same) == {"provider_agreement": "PASSED"}
    flipped = found.predictions.code.copy()
    flipped[::10] = (flipped[::10] + 1) % 4
    other = replace(found, by_provider={"cuda": replace(found.predictions, code=flipped)})
    result = only(policy, other, "provider_agreement")
    assert (result.verdict, result.value) == (Verdict.FAILED, pytest.approx(0.9))


def test_a_regression_is_judged_row_by_row_against_the_baseline(
    evidence: Make, make_runs: Callable[..., tuple]
) -> None:
    baseline = make_baseline(*make_runs(200, {"label=cat": 0.2}))
    same, better, worse = ({"label=cat": share} for share in (0.2, 0.0, 0.4))
    for losses, expected in ((same, "PASSED"), (better, "PASSED"), (worse, "FAILED")):
        found = replace(evidence(200, losses), baseline=baseline)
        assert verdicts(Policy(), found) == {
            "samples": "PASSED",
            "regression (average)": expected,
            "regression (worst group)": expected,
        }


def test_a_regression_within_the_limit_or_within_chance_passes(evidence: Make, make_runs: Callable[..., tuple]) -> None:
    baseline = make_baseline(*make_runs(200))
    found = replace(evidence(200, {FOGGY_CAT: 0.02}), baseline=baseline)
    assert set(verdicts(Policy(regression=RegressionRule()), found).values()) == {"PASSED"}
    assert verdicts(Policy(regression=RegressionRule()), evidence(200)) == {"regression": "NOT JUDGED"}


def model(path: str = "m.onnx", size: int = 100, **changes: object) -> Model:
    values = {"path": Path(path), "digest": "e" * 64, "signature": Signature((), ()), "metadata": {}}
    return Model(**{**values, "quantized": True, "size": size, "opset": 17, **changes})  # type: ignore[arg-type]


def test_size_is_a_ratio(make_runs: Callable[..., tuple]) -> None:
    policy = Policy(size=Size(limit=0.5))
    assert verdicts(policy, Evidence()) == {"size": "NOT JUDGED"}
    assert verdicts(policy, Evidence(model=model(size=50), reference=model(size=100))) == {"size": "PASSED"}
    assert verdicts(policy, Evidence(model=model(size=51), reference=model(size=100))) == {"size": "FAILED"}
    baseline = make_baseline(*make_runs(), size=100)
    against = Policy(size=Size(limit=1.0, against="baseline"))
    assert verdicts(against, Evidence(model=model(size=101)))["size"] == "NOT JUDGED"
    assert only(against, Evidence(model=model(size=101), baseline=replace(baseline)), "size").value == 1.01


def test_latency_is_a_ratio_with_bounds(make_runs: Callable[..., tuple]) -> None:
    ratios = tuple(np.linspace(0.8, 1.2, 21))
    found = Evidence(latency=LatencyRatios(ratios, "cpu"))
    for limit, mode, expected in (
        (1.0, "fail-if-likely", "PASSED"),
        (0.9, "fail-if-likely", "FAILED"),
        (1.0, "fail-if-possible", "FAILED"),
    ):
        assert verdicts(Policy(latency=LatencyRule(limit, mode)), found) == {"latency": expected}
    assert verdicts(Policy(latency=LatencyRule()), Evidence()) == {"latency": "NOT JUDGED"}
    slower = Policy(latency=LatencyRule(1.5, against="baseline"))
    baseline = make_baseline(*make_runs(), latency_ratio=0.5)
    assert only(slower, replace(found, baseline=baseline), "latency").value == pytest.approx(2.0)
    assert verdicts(slower, found)["latency"] == "NOT JUDGED"


def test_placement_is_a_share_of_the_nodes() -> None:
    policy = Policy(placement=PlacementRule("cpu", 0.95))
    assert verdicts(policy, Evidence()) == {"placement": "NOT JUDGED"}
    assert verdicts(policy, Evidence(placement_known=True)) == {"placement": "UNDECIDED"}
    for cpu, expected in ((95, "PASSED"), (94, "FAILED")):
        nodes = {"CPUExecutionProvider": cpu, "CUDAExecutionProvider": 100 - cpu}
        assert verdicts(policy, Evidence(placement=nodes, placement_known=True)) == {"placement": expected}
    with pytest.raises(UsageError, match="unknown execution provider"):
        judge(
            Policy(placement=PlacementRule("cpuu")),
            Evidence(placement={"CPUExecutionProvider": 1}, placement_known=True),
        )


def test_rules_without_predictions_are_not_judged_by_name() -> None:
    policy = replace(
        default_policy(labelled=True),
        flip_rate=FlipRate(),
        worst_group_flip_rate=WorstGroupFlipRate(),
        group_drop=(GroupDrop("label=cat"),),
        group_accuracy=(GroupAccuracy("label=cat", 0.5),),
        provider_agreement=ProviderAgreement(("cuda",)),
    )
    assert set(verdicts(policy, Evidence()).values()) == {"NOT JUDGED"}
    assert len(verdicts(policy, Evidence())) == 7
