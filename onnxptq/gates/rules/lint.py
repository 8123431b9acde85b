"""Lint: `onnxptq lint` finds no error for the target."""

from __future__ import annotations

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Lint, Policy
from onnxptq.gates.rules._common import listed
from onnxptq.gates.rules._registry import Finding, rule
from onnxptq.gates.verdict import RuleResult, Verdict


@rule("lint", "model")
def judge_lint(table: Lint, policy: Policy, evidence: Evidence) -> list[Finding]:
    """Fails on findings of level error; reads the graph only."""
    assert evidence.model is not None
    from onnxptq.lint import lint

    report = lint(evidence.model.path, table.target)
    counts = ", ".join(f"{report.count(level)} {level}s" for level in ("error", "warning", "note"))
    if report.passed:
        return [RuleResult("lint", Verdict.PASSED, f"for {table.target}: {counts}")]
    errors = [finding for finding in report.findings if finding.level == "error"]
    text = f"for {table.target}: {counts}: " + listed([f"{f.rule} {f.where}: {f.message}" for f in errors])
    return [RuleResult("lint", Verdict.FAILED, text, f"`onnxptq lint MODEL --target {table.target}` says what to do.")]
