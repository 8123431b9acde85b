"""Lint reports for machines: JSON of our own, and SARIF 2.1.0, which code hosts and editors show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxptq.lint._base import LEVELS, Rule
from onnxptq.lint._run import LintReport
from onnxptq.sarif import SarifResult, SarifRule, sarif_log, sarif_run


def to_dict(report: LintReport) -> dict[str, Any]:
    """What `onnxptq lint --json` writes (docs/lint.md describes the keys)."""
    return {
        "schema": 1,
        "model": report.model,
        "digest": report.digest,
        "target": report.target,
        "passed": report.passed,
        "counts": {level: report.count(level) for level in LEVELS},
        "findings": [
            {"rule": found.rule, "level": found.level, "where": found.where, "message": found.message}
            for found in report.findings
        ],
        "rules": [rule_to_dict(rule) for rule in report.rules if any(f.rule == rule.name for f in report.findings)],
    }


def summary_to_dict(reports: Sequence[LintReport], errors: Mapping[str, str]) -> dict[str, Any]:
    """What `onnxptq lint --json` writes of several models; `errors` says why a model could not be read."""
    return {
        "lint_summary_version": 1,
        "passed": not errors and all(report.passed for report in reports),
        "models": [to_dict(report) for report in reports],
        "errors": dict(errors),
    }


def rule_to_dict(rule: Rule) -> dict[str, Any]:
    """A rule without its function."""
    return {
        "id": rule.name,
        "title": rule.title,
        "levels": dict(rule.levels),
        "why": rule.why,
        "source": rule.source,
        "remedy": rule.remedy,
    }


def to_sarif(*reports: LintReport, errors: Sequence[str] = ()) -> dict[str, Any]:
    """Reports as a SARIF 2.1.0 log with one run for each target.

    A node is a logical location: an ONNX file has no lines. Rules that were asked and not violated are listed too.
    `errors` says which files could not be read, and why.
    """
    by_target: dict[str, list[LintReport]] = {}
    for report in reports:
        by_target.setdefault(report.target, []).append(report)
    runs = [_run(target, found, errors) for target, found in by_target.items()]
    return sarif_log(runs or [sarif_run("lint", (), (), errors=errors)])


def _run(target: str, reports: Sequence[LintReport], errors: Sequence[str]) -> dict[str, Any]:
    rules = [
        SarifRule(rule.name, rule.title, rule.why, rule.remedy, rule.levels[target], rule.source)
        for rule in reports[0].rules
    ]
    results = [
        SarifResult(
            found.rule, found.level, f"{found.where or 'the graph'}: {found.message}", report.model, found.where
        )
        for report in reports
        for found in report.findings
    ]
    return sarif_run(f"lint/{target}", rules, results, errors=errors, properties={"target": target})
