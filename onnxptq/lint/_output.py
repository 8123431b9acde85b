"""A lint report for machines: JSON of our own, and SARIF 2.1.0, which code hosts and editors show."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import quote

from onnxptq.lint._base import LEVELS, Rule
from onnxptq.lint._run import LintReport

SARIF_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


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


def to_sarif(report: LintReport) -> dict[str, Any]:
    """The report as a SARIF 2.1.0 log with one run.

    A node is a logical location: an ONNX file has no lines. Rules that were asked and not violated are listed too.
    """
    from onnxptq.version import __version__

    index = {rule.name: number for number, rule in enumerate(report.rules)}
    driver = {
        "name": "onnxptq",
        "semanticVersion": __version__,
        "rules": [_sarif_rule(rule, report.target) for rule in report.rules],
    }
    results = [
        {
            "ruleId": found.rule,
            "ruleIndex": index[found.rule],
            "level": found.level,
            "message": {"text": f"{found.where or 'the graph'}: {found.message}"},
            "locations": [_location(report.model, found.where)],
        }
        for found in report.findings
    ]
    return {
        "$schema": SARIF_SCHEMA,
        "version": "2.1.0",
        "runs": [{"tool": {"driver": driver}, "results": results, "properties": {"target": report.target}}],
    }


def _sarif_rule(rule: Rule, target: str) -> dict[str, Any]:
    described = {
        "id": rule.name,
        "shortDescription": {"text": rule.title},
        "fullDescription": {"text": rule.why},
        "help": {"text": f"{rule.remedy} Source: {rule.source}"},
        "defaultConfiguration": {"level": rule.levels[target]},
    }
    return {**described, "helpUri": rule.source} if rule.source.startswith("https://") else described


def _location(model: str, where: str) -> dict[str, Any]:
    path = Path(model)
    uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
    location: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": uri}}}
    if where:
        location["logicalLocations"] = [{"fullyQualifiedName": where, "kind": "element"}]
    return location
