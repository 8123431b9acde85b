"""Lint: what an execution provider will reject, run in float or fail to fuse, read from the graph alone."""

from __future__ import annotations

from onnxptq.graphs.view import GraphView, Parameters
from onnxptq.lint._base import LEVELS, LINT_RULES, Level, Place, Rule
from onnxptq.lint._output import rule_to_dict, summary_to_dict, to_dict, to_sarif
from onnxptq.lint._run import Finding, LintReport, lint, rules_of

__all__ = [
    "LEVELS",
    "LINT_RULES",
    "Finding",
    "GraphView",
    "Level",
    "LintReport",
    "Parameters",
    "Place",
    "Rule",
    "lint",
    "rule_to_dict",
    "rules_of",
    "summary_to_dict",
    "to_dict",
    "to_sarif",
]
