"""Size of the file with its external data, as a ratio."""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, Size
from onnxptq.gates.rules._common import not_judged
from onnxptq.gates.rules._registry import Finding, Need, rule
from onnxptq.gates.verdict import RuleResult, Verdict


def _also(table: Size) -> tuple[Need, ...]:
    return ("reference",) if table.against == "reference" else ()


@rule("size", "model", also=_also)
def judge_size(table: Size, policy: Policy, evidence: Evidence) -> list[Finding]:
    """Exact, so there is no interval."""
    assert evidence.model is not None
    if table.against == "reference":
        before, than = (evidence.reference.size if evidence.reference else None), "FP32"
    else:
        before, than = (evidence.baseline.bytes if evidence.baseline else None), "the baseline"
    if before is None:
        option = "--reference FP32.onnx" if table.against == "reference" else "--baseline FILE"
        return [not_judged("size", f"the size of {than} is not known", f"Give {option}.")]
    value = evidence.model.size / before
    verdict = Verdict.FAILED if value > table.limit else Verdict.PASSED
    step = "Look for weights that stayed in float: `[graph]` with quantized = true names their nodes."
    return [
        RuleResult(
            "size",
            verdict,
            f"{evidence.model.size} bytes are {value:.2f} times the {before} bytes of {than}",
            step if verdict is Verdict.FAILED else "",
            value=value,
            limit=table.limit,
            unit="ratio",
        )
    ]
