"""Whether the file is quantized at all."""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, Quantization
from onnxptq.gates.rules._registry import Finding, rule
from onnxptq.gates.verdict import RuleResult, Verdict


@rule("quantization")
def judge_quantization(table: Quantization, policy: Policy, evidence: Evidence) -> list[Finding]:
    """Says nothing but where a file was looked at in which nothing is quantized."""
    if not table.required or evidence.model is None or evidence.model.quantized:
        return []
    return [
        RuleResult(
            "quantization",
            Verdict.FAILED,
            "nothing in the file is quantized: it computes in float, so there is nothing to judge",
            "Give the INT8 file, or write required = false under [quantization] in the policy to judge a float model.",
        )
    ]
