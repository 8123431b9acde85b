"""The model's quality as a share of the reference's, which is how MLPerf states accuracy targets."""

from __future__ import annotations

from dataclasses import replace

from onnxptq.gates.claims import Claim
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, QualityShare, tolerated
from onnxptq.gates.rules._common import drop_of, percent, too_few
from onnxptq.gates.rules._registry import Finding, rule
from onnxptq.gates.verdict import RuleResult, Verdict

_REPAIR = (
    "`onnxptq evaluate` shows every group. Calibrate on data like that which is deployed (--calib clean), with another "
    "--method (onnxptq methods), or leave the last layer in float (--exclude)."
)


@rule("quality_share", "predictions", "reference", "labels")
def judge_quality_share(table: QualityShare, policy: Policy, evidence: Evidence) -> list[Finding]:
    """1 - drop / quality of the reference, with the bounds of the drop; the reference's quality is taken as it is."""
    pairing = evidence.pairing
    assert pairing is not None
    quality = float(pairing.before.mean())
    if quality <= 0:
        why = "the reference is right nowhere, so there is no quality to have a share of"
        return [RuleResult("quality_share", Verdict.UNDECIDED, why, "Check the data and how it is read.")]
    drop = drop_of(pairing, pairing.all_rows, policy)

    def bounds(confidence: float) -> tuple[float, float]:
        low, high = drop.bounds(confidence)
        return 1.0 - high / quality, 1.0 - low / quality

    found = replace(drop, value=1.0 - drop.value / quality, bounds=bounds, spread=drop.spread / quality)
    if found.sources < policy.samples.minimum:
        return [too_few("quality_share", None, found, table.limit, policy, "fraction")]
    return [
        Claim(
            "quality_share",
            found,
            table.limit,
            tolerated(table),
            table.mode,
            f"the model keeps {percent(found.value)} of the reference's quality",
            _REPAIR,
            "of the reference's quality",
            floor=True,
        )
    ]
