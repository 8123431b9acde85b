"""The drop of the average and of the worst group."""

from __future__ import annotations

import numpy as np

from onnxptq.evaluation.paired import Paired
from onnxptq.evaluation.statistics import SourceSums, exceedance_p_values, holm
from onnxptq.gates.claims import Claim, Estimate
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import AVERAGE_MARGIN, GROUP_MARGIN, AverageDrop, Policy, Tolerant, WorstGroupDrop, tolerated
from onnxptq.gates.rules._common import drop_of, eligible_groups, listed, loses, no_group, points, too_few, worst_group
from onnxptq.gates.rules._registry import Finding, rule

_REPAIR = (
    "`onnxptq evaluate` shows every group. Calibrate on data like that which is deployed (--calib clean), with another "
    "--method (onnxptq methods), or leave the last layer in float (--exclude)."
)


@rule("average_drop", "predictions", "reference", "labels")
def judge_average_drop(table: AverageDrop, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The drop of the average accuracy, with Tango's bounds over all rows, by source."""
    assert evidence.pairing is not None
    return [average_drop("average_drop", evidence.pairing, policy, table)]


def average_drop(name: str, pairing: Paired, policy: Policy, table: Tolerant) -> Finding:
    """The drop of the average against whatever `pairing` compares with."""
    found = drop_of(pairing, pairing.all_rows, policy)
    if found.sources < policy.samples.minimum:
        return too_few(name, None, found, table.limit, policy, "drop")
    return Claim(
        name,
        found,
        table.limit,
        tolerated(table, AVERAGE_MARGIN),
        table.mode,
        f"the average {loses(found.value)}",
        _REPAIR,
        "on average",
        unit="drop",
    )


@rule("worst_group_drop", "predictions", "reference", "labels", "all groups")
def judge_worst_group_drop(table: WorstGroupDrop, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The worst group's cross-fitted drop.

    Its lower bound says how bad some group is at least; the largest upper bound of a group, how bad one may be.
    """
    assert evidence.pairing is not None
    return [worst_group_drop("worst_group_drop", evidence.pairing, policy, table)]


def worst_group_drop(name: str, pairing: Paired, policy: Policy, table: Tolerant) -> Finding:
    """The drop of the worst group against whatever `pairing` compares with."""
    drops = pairing.by_group(pairing.lost)
    worst = worst_group(pairing, drops, policy)
    if worst is None:
        return no_group(name, policy, table.limit, "drop")
    found, group = worst
    return Claim(
        name,
        found,
        table.limit,
        tolerated(table, GROUP_MARGIN),
        table.mode,
        _explain(pairing, drops, found, policy, table.limit),
        _REPAIR,
        "in the worst group",
        group=group,
        unit="drop",
    )


def _explain(pairing: Paired, drops: SourceSums, found: Estimate, policy: Policy, limit: float) -> str:
    """The worst group's drop, and which groups are each for sure beyond the limit (Holm's correction)."""
    eligible = np.flatnonzero(eligible_groups(drops, policy))
    text = (
        f"of {len(eligible)} groups the worst one {loses(found.value)}, chosen on one half of the samples and "
        "measured on the other"
    )
    corrected = holm(exceedance_p_values(drops, limit)[eligible])
    beyond = eligible[corrected <= 1.0 - policy.confidence]
    if not len(beyond):
        return text
    by_drop = sorted(beyond.tolist(), key=lambda number: (-drops.group_means[number], pairing.names[number]))
    return f"{text}; beyond the limit, each corrected for {len(eligible)} groups: " + listed(
        [f"{pairing.names[number]} ({points(drops.group_means[number])})" for number in by_drop]
    )
