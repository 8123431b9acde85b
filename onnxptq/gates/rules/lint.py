"""Lint: `onnxptq lint` finds no error for the target."""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules._common import listed, not_judged
from onnxptq.gates.verdict import RuleResult, Verdict


def judge_lint(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """Fails on findings of level error; reads the graph only."""
    rule = policy.lint
    if rule is None:
        return []
    if evidence.model is None:
        return [not_judged("lint", "predictions do not tell the graph", "Give MODEL beside --predictions.")]
    from onnxptq.lint import lint

    report = lint(evidence.model.path, rule.target)
    counts = ", ".join(f"{report.count(level)} {level}s" for level in ("error", "warning", "note"))
    if report.passed:
        return [RuleResult("lint", Verdict.PASSED, f"for {rule.target}: {counts}")]
    errors = [finding for finding in report.findings if finding.level == "error"]
    text = f"for {rule.target}: {counts}: " + listed([f"{f.rule} {f.where}: {f.message}" for f in errors])
    return [RuleResult("lint", Verdict.FAILED, text, f"`onnxptq lint MODEL --target {rule.target}` says what to do.")]
