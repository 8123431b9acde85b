"""Flips: predictions that differ from the reference's. They need no labels."""

from __future__ import annotations

from dataclasses import replace

from onnxptq.evaluation.statistics import proportion_interval
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules._common import both_sides, no_flips, no_predictions, percent, share_of, too_few, worst_group
from onnxptq.gates.verdict import RuleResult, Verdict, at_most

_REPAIR = (
    "`onnxptq evaluate` shows the flips of every group. Calibrate on data like that which is deployed (--calib clean), "
    "or with another --method (onnxptq methods)."
)


def judge_flip_rate(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The share of flips over all rows, with Wilson's bounds by source."""
    rule = policy.flip_rate
    if rule is None:
        return []
    pairing = evidence.pairing
    if pairing is None:
        return [no_predictions("flip_rate")]
    if pairing.changed is None:
        return [no_flips("flip_rate")]
    found = share_of(pairing.over(pairing.all_rows, pairing.changed), policy.confidence)
    if found.sources < policy.samples.minimum:
        return [too_few("flip_rate", None, found, rule.limit, policy)]
    verdict = at_most(found.value, found.low, found.high, rule.limit, rule.mode)
    text = f"{percent(found.value)} of the predictions differ from the reference's"
    return [found.result("flip_rate", verdict, text, _REPAIR, rule.limit, rule.mode)]


def judge_worst_group_flip_rate(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The cross-fitted flip rate of the group with most flips."""
    rule = policy.worst_group_flip_rate
    if rule is None:
        return []
    pairing = evidence.pairing
    if pairing is None:
        return [no_predictions("worst_group_flip_rate")]
    if pairing.changed is None:
        return [no_flips("worst_group_flip_rate")]
    flips = pairing.by_group(pairing.changed)
    upper = proportion_interval(flips, both_sides(policy.confidence))[1]
    worst = worst_group(pairing, flips, upper.tolist(), policy)
    if worst is None:
        text = f"no group has the {policy.samples.minimum} original samples that it takes to be judged"
        step = "Evaluate on more samples, or group by fewer columns (group_by)."
        return [RuleResult("worst_group_flip_rate", Verdict.UNDECIDED, text, step, limit=rule.limit, mode=rule.mode)]
    # The normal bound does not know that a share is never below 0.
    found = replace(worst.estimate, low=max(worst.estimate.low, 0.0))
    verdict = at_most(found.value, found.low, found.high, rule.limit, rule.mode)
    text = (
        f"in the group with most flips {percent(found.value)} of the predictions differ, chosen on one half of the "
        "samples and measured on the other"
    )
    return [found.result("worst_group_flip_rate", verdict, text, _REPAIR, rule.limit, rule.mode, group=worst.group)]
