"""The drop of the average and of the worst group."""

from __future__ import annotations

import numpy as np

from onnxptq.evaluation.paired import Paired
from onnxptq.evaluation.statistics import drop_interval, exceedance_p_values, holm
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Mode, Policy
from onnxptq.gates.rules._common import (
    Worst,
    both_sides,
    drop_of,
    eligible_groups,
    listed,
    no_labels,
    no_predictions,
    points,
    too_few,
    worst_group,
)
from onnxptq.gates.verdict import RuleResult, Verdict, at_most

_REPAIR = (
    "`onnxptq evaluate` shows every group. Calibrate on data like that which is deployed (--calib clean), with another "
    "--method (onnxptq methods), or leave the last layer in float (--exclude)."
)


def judge_average_drop(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The drop of the average accuracy, with Tango's bounds over all rows, by source."""
    rule = policy.average_drop
    if rule is None:
        return []
    if evidence.pairing is None:
        return [no_predictions("average_drop")]
    if not evidence.pairing.labelled:
        return [no_labels("average_drop")]
    return [average_drop("average_drop", evidence.pairing, policy, rule.limit, rule.mode)]


def average_drop(name: str, pairing: Paired, policy: Policy, limit: float, mode: Mode) -> RuleResult:
    """The drop of the average against whatever `pairing` compares with."""
    found = drop_of(pairing, pairing.all_rows, policy.confidence)
    if found.sources < policy.samples.minimum:
        return too_few(name, None, found, limit, policy)
    verdict = at_most(found.value, found.low, found.high, limit, mode)
    return found.result(name, verdict, f"the average loses {points(found.value)}", _REPAIR, limit, mode, unit="drop")


def judge_worst_group_drop(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The worst group's cross-fitted drop.

    Its lower bound says how bad some group is at least; the largest upper bound of a group, how bad one may be.
    """
    rule = policy.worst_group_drop
    if rule is None:
        return []
    if evidence.pairing is None:
        return [no_predictions("worst_group_drop")]
    if not evidence.pairing.labelled:
        return [no_labels("worst_group_drop")]
    return [worst_group_drop("worst_group_drop", evidence.pairing, policy, rule.limit, rule.mode)]


def worst_group_drop(name: str, pairing: Paired, policy: Policy, limit: float, mode: Mode) -> RuleResult:
    """The drop of the worst group against whatever `pairing` compares with."""
    drops = pairing.by_group(pairing.lost)
    upper = drop_interval(drops, both_sides(policy.confidence))[1]
    worst = worst_group(pairing, drops, upper.tolist(), policy)
    if worst is None:
        return RuleResult(
            name,
            Verdict.UNDECIDED,
            f"no group has the {policy.samples.minimum} original samples that it takes to be judged",
            "Evaluate on more samples, or group by fewer columns (group_by).",
            limit=limit,
            mode=mode,
            n=len(pairing),
            unit="drop",
        )
    found = worst.estimate
    verdict = at_most(found.value, found.low, found.high, limit, mode)
    return found.result(
        name, verdict, _explain(pairing, worst, policy, limit), _REPAIR, limit, mode, group=worst.group, unit="drop"
    )


def _explain(pairing: Paired, worst: Worst, policy: Policy, limit: float) -> str:
    """The worst group's drop, and which groups are each for sure beyond the limit (Holm's correction)."""
    drops = pairing.by_group(pairing.lost)
    eligible = np.flatnonzero(eligible_groups(drops, policy))
    text = (
        f"of {len(eligible)} groups the worst one loses {points(worst.estimate.value)}, chosen on one half of the "
        "samples and measured on the other"
    )
    corrected = holm(exceedance_p_values(drops, limit)[eligible])
    beyond = eligible[corrected <= 1.0 - policy.confidence]
    if not len(beyond):
        return text
    by_drop = sorted(beyond.tolist(), key=lambda number: (-drops.group_means[number], pairing.names[number]))
    return f"{text}; beyond the limit, each corrected for {len(eligible)} groups: " + listed(
        [f"{pairing.names[number]} ({points(drops.group_means[number])})" for number in by_drop]
    )
