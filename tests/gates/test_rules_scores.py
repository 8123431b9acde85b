"""Rules about scores of any task: floors of named groups, fidelity, and totals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from onnxptq.errors import UsageError
from onnxptq.evaluation.measures import AGREEMENT, Measure
from onnxptq.evaluation.totals import total_drops
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import (
    AverageDrop,
    Fidelity,
    FlipRate,
    GroupDrop,
    GroupScore,
    Policy,
    TotalDropRule,
    WorstGroupDrop,
    WorstGroupFidelity,
)
from onnxptq.gates.policy_file import parse_policy
from onnxptq.gates.rules import judge
from onnxptq.gates.verdict import RuleResult, Verdict

Make = Callable[..., Any]
F1 = Measure("F1 at IoU 0.5", binary=False)


def only(policy: Policy, evidence: Evidence, rule: str) -> RuleResult:
    (found,) = (result for result in judge(policy, evidence) if result.rule == rule)
    return found


@pytest.fixture
def graded(evidence: Make) -> Callable[..., Evidence]:
    """Evidence of graded scores: every row of the reference has .9, and the model loses what is given of a group."""

    def make(losses: dict[str, float], *, changed: bool = False) -> Evidence:
        found = evidence(100)
        pairing = found.pairing
        after = np.full(len(pairing), 0.9) - np.random.default_rng(0).uniform(0.0, 0.002, len(pairing))
        for name, lost in losses.items():
            after[pairing.members[pairing.names.index(name)]] -= lost
        scores = replace(
            pairing, before=np.full(len(pairing), 0.9), after=after, measure=F1,
            changed=pairing.changed if changed else None,
        )  # fmt: skip
        return replace(found, pairing=scores)

    return make


HARMED = "label=cat*corruption=fog@3"
DROPS = Policy(average_drop=AverageDrop(), worst_group_drop=WorstGroupDrop())


def test_a_group_that_loses_scores_fails_and_is_named(graded: Make) -> None:
    result = only(DROPS, graded({HARMED: 0.3}), "worst_group_drop")
    assert (result.verdict, result.group) == (Verdict.FAILED, HARMED)
    assert result.value == pytest.approx(0.3, abs=0.005)


def test_scores_that_hardly_change_pass(graded: Make) -> None:
    assert [result.verdict for result in judge(DROPS, graded({}))] == [Verdict.PASSED] * 3


def test_a_named_group_of_graded_scores_has_a_p_value(graded: Make) -> None:
    policy = Policy(group_drop=(GroupDrop(HARMED), GroupDrop("label=dog")))
    assert [r.verdict for r in judge(policy, graded({HARMED: 0.3}))] == [Verdict.FAILED, Verdict.PASSED]


def test_rules_about_flips_say_that_answers_have_none(graded: Make) -> None:
    result = only(Policy(flip_rate=FlipRate()), graded({}), "flip_rate")
    assert result.verdict is Verdict.NOT_JUDGED
    assert "no flips" in result.explanation


@pytest.mark.parametrize(("limit", "verdict"), [(0.9, Verdict.FAILED), (0.5, Verdict.PASSED)])
def test_a_floor_of_a_named_group_names_its_score(evidence: Make, limit: float, verdict: Verdict) -> None:
    found = evidence(100, {HARMED: 0.3})
    result = only(Policy(group_score=(GroupScore(HARMED, limit),)), found, "group_score")
    assert result.verdict is verdict
    assert "the group's accuracy is 70.0 %" in result.explanation


def test_a_floor_may_be_about_another_score_of_the_task(evidence: Make) -> None:
    found = evidence(100, {HARMED: 0.3})
    result = only(Policy(group_score=(GroupScore(HARMED, 0.5, "agreement"),)), found, "group_score")
    assert "the group's agreement is 70.0 %" in result.explanation
    with pytest.raises(UsageError, match=r"has no score 'agrement'.*'agreement'"):
        judge(Policy(group_score=(GroupScore(HARMED, 0.5, "agrement"),)), found)


def test_fidelity_needs_no_labels(evidence: Make) -> None:
    policy = Policy(fidelity=Fidelity(), worst_group_fidelity=WorstGroupFidelity())
    good = evidence(100, flips=0.005, labelled=False)
    assert good.pairing.measure == AGREEMENT
    assert {r.verdict for r in judge(policy, good)} == {Verdict.PASSED}
    bad = evidence(100, {"corruption=fog@3": 0.4}, labelled=False)
    found = {r.rule: r for r in judge(policy, bad)}
    assert found["fidelity"].verdict is found["worst_group_fidelity"].verdict is Verdict.FAILED
    assert found["fidelity"].value == pytest.approx(0.8)
    assert found["worst_group_fidelity"].value == pytest.approx(0.6)
    assert found["worst_group_fidelity"].group == "corruption=fog@3"


def test_fidelity_of_labelled_data_is_not_its_accuracy(make_runs: Make, evidence: Make) -> None:
    found = evidence(100)
    wrong = replace(found.predictions, label=found.predictions.label * 0 + 9)
    worse = replace(found, predictions=wrong)  # Every answer is wrong, and the same as the reference's.
    assert only(Policy(fidelity=Fidelity()), worse, "fidelity").value == 1.0


@dataclass(frozen=True)
class MacroF1:
    name: str = "macro-F1"
    larger_is_better: bool = True
    share: bool = True
    over: Any = None

    @staticmethod
    def compute(records: Any) -> float:
        label, code = records["label"], records["code"]
        classes = np.unique(label)
        return float(
            np.mean(
                [2 * ((label == c) & (code == c)).sum() / ((label == c).sum() + (code == c).sum()) for c in classes]
            )
        )


@pytest.mark.parametrize(("lost", "verdict"), [(0.0, Verdict.PASSED), (0.4, Verdict.FAILED)])
def test_a_total_is_judged_beside_the_groups(evidence: Make, lost: float, verdict: Verdict) -> None:
    found = evidence(100, {"label=cat": lost})
    runs = (found.reference_predictions, found.predictions)
    records = [{"label": run.label, "code": run.code} for run in runs]
    (total,) = total_drops([MacroF1()], *records, found.pairing.sources)
    result = only(
        Policy(total_drop=(TotalDropRule("macro-F1"),)), replace(found, totals={"macro-F1": total}), "total_drop"
    )
    assert result.verdict is verdict
    assert (result.value, result.sources) == (pytest.approx(total.drop), 400)
    assert "macro-F1 goes from 100.0 to" in result.explanation


def test_a_total_that_the_task_lacks_is_not_judged(evidence: Make) -> None:
    found = evidence(100)
    assert only(Policy(total_drop=(TotalDropRule("mAP"),)), found, "total_drop").verdict is Verdict.NOT_JUDGED
    (total,) = total_drops([MacroF1()], *[{"label": np.ones(9), "code": np.ones(9)}] * 2, np.arange(9))
    known = replace(found, totals={"macro-F1": total})
    assert "macro-F1" in only(Policy(total_drop=(TotalDropRule("macro-f1"),)), known, "total_drop").next_step
    few = only(Policy(total_drop=(TotalDropRule("macro-F1"),)), known, "total_drop")
    assert (few.verdict, few.samples_to_decide) == (Verdict.UNDECIDED, 50)


def test_a_policy_file_names_scores_and_totals() -> None:
    policy = parse_policy(
        'score = "entity F1"\n[[group_score]]\ngroup = "label=a"\nlimit = 0.8\n[[total_drop]]\ntotal = "mAP"\n'
        "limit = 0.03\n[fidelity]\nlimit = 0.9\n[worst_group_fidelity]\n"
    )
    assert policy.score == "entity F1"
    assert policy.group_score == (GroupScore("label=a", 0.8),)
    assert policy.total_drop == (TotalDropRule("mAP", 0.03),)
    assert (policy.fidelity, policy.worst_group_fidelity) == (Fidelity(0.9), WorstGroupFidelity(0.85))
