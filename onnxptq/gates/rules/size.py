"""Size of the file with its external data, as a ratio."""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules._common import not_judged
from onnxptq.gates.verdict import RuleResult, Verdict, at_most


def judge_size(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """Exact, so there is no interval."""
    rule = policy.size
    if rule is None:
        return []
    if evidence.model is None:
        return [not_judged("size", "predictions do not tell the size of the file", "Give MODEL beside --predictions.")]
    if rule.against == "reference":
        before, than = (evidence.reference.size if evidence.reference else None), "FP32"
    else:
        before, than = (evidence.baseline.bytes if evidence.baseline else None), "the baseline"
    if before is None:
        option = "--reference FP32.onnx" if rule.against == "reference" else "--baseline FILE"
        return [not_judged("size", f"the size of {than} is not known", f"Give {option}.")]
    value = evidence.model.size / before
    verdict = at_most(value, value, value, rule.limit, "point")
    step = "Look for weights that stayed in float: `[graph]` with quantized = true names their nodes."
    return [
        RuleResult(
            "size",
            verdict,
            f"{evidence.model.size} bytes are {value:.2f} times the {before} bytes of {than}",
            step if verdict is Verdict.FAILED else "",
            value=value,
            limit=rule.limit,
            unit="ratio",
        )
    ]
