"""Fidelity: how near the answers are to the reference's. It needs no truth, and answers need never be equal."""

from __future__ import annotations

from dataclasses import replace

from onnxptq.evaluation.paired import fidelity_measure
from onnxptq.gates.claims import Claim, Estimate
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Fidelity, Policy, WorstGroupFidelity, tolerated
from onnxptq.gates.rules._common import no_group, percent, scored, share_of, too_few, worst_group
from onnxptq.gates.rules._registry import Finding, rule

_REPAIR = (
    "`onnxptq evaluate` shows every group. Calibrate on data like that which is deployed (--calib clean), or with "
    "another --method (onnxptq methods); `onnxptq diagnose` names the tensors that do the harm."
)


@rule("fidelity", "predictions", "reference")
def judge_fidelity(table: Fidelity, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The mean fidelity over all rows."""
    assert evidence.predictions is not None
    pairing = scored(evidence, fidelity_measure(evidence.predictions))
    found = share_of(pairing.over(pairing.all_rows, pairing.after), policy, floor=True)
    if found.sources < policy.samples.minimum:
        return [too_few("fidelity", None, found, table.limit, policy, "fraction")]
    text = f"the answers are {percent(found.value)} of the way to the reference's ({pairing.measure.name})"
    tolerance = tolerated(table)
    return [
        Claim("fidelity", found, table.limit, tolerance, table.mode, text, _REPAIR, "fidelity on average", floor=True)
    ]


@rule("worst_group_fidelity", "predictions", "reference", "all groups")
def judge_worst_group_fidelity(table: WorstGroupFidelity, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The cross-fitted fidelity of the group with the lowest."""
    assert evidence.predictions is not None
    pairing = scored(evidence, fidelity_measure(evidence.predictions))
    worst = worst_group(pairing, pairing.by_group(pairing.lost), policy, share=True)
    if worst is None:
        return [no_group("worst_group_fidelity", policy, table.limit, "fraction")]
    lost, group = worst
    found = _kept(lost)
    text = (
        f"in the worst group the answers are {percent(found.value)} of the way to the reference's "
        f"({pairing.measure.name}), chosen on one half of the samples and measured on the other"
    )
    return [
        Claim(
            "worst_group_fidelity",
            found,
            table.limit,
            tolerated(table),
            table.mode,
            text,
            _REPAIR,
            "fidelity in the worst group",
            group=group,
            floor=True,
        )
    ]


def _kept(lost: Estimate) -> Estimate:
    """What is left of 1, from what was lost of it."""

    def bounds(confidence: float) -> tuple[float, float]:
        low, high = lost.bounds(confidence)
        return 1.0 - high, 1.0 - low

    return replace(lost, value=1.0 - lost.value, bounds=bounds)
