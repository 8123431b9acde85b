"""Placement: which provider took the nodes of the graph."""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import PlacementRule, Policy
from onnxptq.gates.rules._common import percent
from onnxptq.gates.rules._registry import Finding, rule
from onnxptq.gates.verdict import RuleResult, Verdict


@rule("placement", "placement")
def judge_placement(table: PlacementRule, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The share of nodes on the named provider, as ONNX Runtime assigned them before fusion."""
    from onnxptq.runtimes import find_provider

    provider = find_provider(table.provider)
    if not evidence.placement:
        text = "this ONNX Runtime does not tell where it put the nodes"
        return [RuleResult("placement", Verdict.UNDECIDED, text, "Update onnxruntime.", limit=table.limit)]
    total = sum(evidence.placement.values())
    value = evidence.placement.get(provider.ort_name, 0) / total
    verdict = Verdict.FAILED if value < table.limit else Verdict.PASSED
    shares = ", ".join(f"{name} {count}" for name, count in sorted(evidence.placement.items()))
    return [
        RuleResult(
            "placement",
            verdict,
            f"{percent(value)} of {total} nodes run on {table.provider} ({shares})",
            f"Judge on it (--ep {table.provider}); `onnxptq providers` shows whether it loads here."
            if verdict is Verdict.FAILED
            else "",
            value=value,
            limit=table.limit,
            n=total,
        )
    ]
