"""Placement: which provider took the nodes of the graph."""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules._common import not_judged, percent
from onnxptq.gates.verdict import RuleResult, Verdict, at_least


def judge_placement(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The share of nodes on the named provider, as ONNX Runtime assigned them before fusion."""
    from onnxptq.runtimes import find_provider

    rule = policy.placement
    if rule is None:
        return []
    provider = find_provider(rule.provider)
    if not evidence.placement_known:
        why = "no session was opened: predictions do not tell where nodes ran"
        return [not_judged("placement", why, "Check the model itself, without --predictions.")]
    if not evidence.placement:
        text = "this ONNX Runtime does not tell where it put the nodes"
        return [RuleResult("placement", Verdict.UNDECIDED, text, "Update onnxruntime.", limit=rule.limit)]
    total = sum(evidence.placement.values())
    value = evidence.placement.get(provider.ort_name, 0) / total
    verdict = at_least(value, value, value, rule.limit, "point")
    shares = ", ".join(f"{name} {count}" for name, count in sorted(evidence.placement.items()))
    return [
        RuleResult(
            "placement",
            verdict,
            f"{percent(value)} of {total} nodes run on {rule.provider} ({shares})",
            f"Judge on it (--ep {rule.provider}); `onnxptq providers` shows whether it loads here."
            if verdict is Verdict.FAILED
            else "",
            value=value,
            limit=rule.limit,
            n=total,
        )
    ]
