"""Flips: predictions that differ from the reference's. They need no labels."""

from __future__ import annotations

from onnxptq.gates.claims import Claim
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import FlipRate, Policy, WorstGroupFlipRate, tolerated
from onnxptq.gates.rules._common import no_group, percent, share_of, too_few, worst_group
from onnxptq.gates.rules._registry import Finding, rule

_REPAIR = (
    "`onnxptq evaluate` shows the flips of every group. Calibrate on data like that which is deployed (--calib clean), "
    "or with another --method (onnxptq methods)."
)


@rule("flip_rate", "predictions", "reference", "flips")
def judge_flip_rate(table: FlipRate, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The share of flips over all rows, with Wilson's bounds by source."""
    pairing = evidence.pairing
    assert pairing is not None and pairing.changed is not None
    found = share_of(pairing.over(pairing.all_rows, pairing.changed, binary=True), policy)
    if found.sources < policy.samples.minimum:
        return [too_few("flip_rate", None, found, table.limit, policy, "fraction")]
    text = f"{percent(found.value)} of the predictions differ from the reference's"
    tolerance = tolerated(table)
    return [Claim("flip_rate", found, table.limit, tolerance, table.mode, text, _REPAIR, "flips on average")]


@rule("worst_group_flip_rate", "predictions", "reference", "flips", "all groups")
def judge_worst_group_flip_rate(table: WorstGroupFlipRate, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The cross-fitted flip rate of the group with most flips."""
    pairing = evidence.pairing
    assert pairing is not None and pairing.changed is not None
    worst = worst_group(pairing, pairing.by_group(pairing.changed, binary=True), policy, share=True)
    if worst is None:
        return [no_group("worst_group_flip_rate", policy, table.limit, "fraction")]
    found, group = worst
    text = (
        f"in the group with most flips {percent(found.value)} of the predictions differ, chosen on one half of the "
        "samples and measured on the other"
    )
    tolerance = tolerated(table)
    return [
        Claim(
            "worst_group_flip_rate",
            found,
            table.limit,
            tolerance,
            table.mode,
            text,
            _REPAIR,
            "flips in the worst group",
            group,
        )
    ]
