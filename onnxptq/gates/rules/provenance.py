"""Provenance: was it made from this source model, this calibration set, by this version?"""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, ProvenanceRule
from onnxptq.gates.rules._common import not_judged
from onnxptq.gates.rules._registry import Finding, Need, rule
from onnxptq.gates.verdict import RuleResult, Verdict
from onnxptq.graphs import Provenance, read_provenance

_DIGITS = 8
"""Digits of a digest that are enough to name it."""


def _also(table: ProvenanceRule) -> tuple[Need, ...]:
    return ("reference",) if table.source == "reference" else ()


@rule("provenance", "model", also=_also)
def judge_provenance(table: ProvenanceRule, policy: Policy, evidence: Evidence) -> list[Finding]:
    """Compares what the model's metadata say with what the policy asks for."""
    assert evidence.model is not None
    found = read_provenance(evidence.model.metadata)
    if found is None:
        text = "the model says nothing about what it was made from"
        step = "Make it with `onnxptq quantize`, which writes that into the model."
        return [RuleResult("provenance", Verdict.FAILED, text, step)]
    if table.source == "reference" and evidence.reference is None:
        return [not_judged("provenance", "there is no reference to compare with", "Give --reference FP32.onnx.")]
    wrong = _differences(table, found, evidence.reference.digest if evidence.reference else "")
    if wrong:
        step = "Quantize again from what the policy names, or correct the policy."
        return [RuleResult("provenance", Verdict.FAILED, "; ".join(wrong), step)]
    text = f"made from {found.source['name']} on {found.recipe.calibration} by onnxptq {found.versions['onnxptq']}"
    return [RuleResult("provenance", Verdict.PASSED, text)]


def _differences(table: ProvenanceRule, found: Provenance, reference: str) -> list[str]:
    from onnxptq.calibrators import CalibrationSet

    source = reference if table.source == "reference" else table.source
    wrong = []
    if not _same_digest(source, str(found.source["digest"])):
        wrong.append(
            f"it was made from {found.source['name']} ({found.source['digest'][:_DIGITS]}), not from {source[:_DIGITS]}"
        )
    if table.calibration and str(CalibrationSet.parse(table.calibration)) != found.recipe.calibration:
        wrong.append(f"it was calibrated on {found.recipe.calibration}, not on {table.calibration}")
    digest = str(found.calibration["digest"])
    if table.calibration_digest and not _same_digest(table.calibration_digest, digest):
        wrong.append(f"its calibration samples are {digest[:_DIGITS]}, not {table.calibration_digest[:_DIGITS]}")
    if table.version and found.versions.get("onnxptq") != table.version:
        wrong.append(f"it was made by onnxptq {found.versions.get('onnxptq')}, not {table.version}")
    return wrong


def _same_digest(wanted: str, found: str) -> bool:
    return len(wanted) >= _DIGITS and found.startswith(wanted.lower())
