"""A check as SARIF 2.1.0: FAILED is an error, UNDECIDED a warning; a run with a model that was not judged failed."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from typing import Any

from onnxptq.gates.policy import Policy
from onnxptq.gates.rules import RULES
from onnxptq.gates.several import Checked
from onnxptq.gates.text import describe
from onnxptq.gates.verdict import RuleResult, Verdict
from onnxptq.sarif import Level, SarifResult, SarifRule, sarif_log, sarif_run

_LEVELS: dict[Verdict, Level] = {Verdict.FAILED: "error", Verdict.UNDECIDED: "warning"}
"""SARIF has a kind "open" for what is undecided, but GitHub's code scanning shows levels alone."""


def to_sarif(models: Sequence[Checked]) -> dict[str, Any]:
    """The check of one or several models as a log with one run. Rules that passed are listed without a result."""
    judged = [(one.name, rule) for one in models if one.result is not None for rule in one.result.rules]
    names = dict.fromkeys(_id(rule) for _, rule in judged)
    results = [
        SarifResult(_id(rule), level, "\n".join(describe(rule)), name, rule.group or "")
        for name, rule in judged
        if (level := _LEVELS.get(rule.verdict))
    ]
    errors = [f"{one.name}: {one.error}" for one in models if one.result is None]
    verdicts = {one.name: one.verdict for one in models}
    rules = [_rule(name) for name in names]
    return sarif_log([sarif_run("check", rules, results, errors=errors, properties={"verdicts": verdicts})])


def _id(rule: RuleResult) -> str:
    """The rule's table in the policy: "regression (average)" is of `regression`."""
    return rule.rule.partition(" ")[0]


def _rule(name: str) -> SarifRule:
    found = typing.get_type_hints(Policy).get(name)
    table = next((one for one in typing.get_args(found) if one not in (type(None), Ellipsis)), found)
    why = (table.__doc__ or "").strip().splitlines()[0] if name in RULES and table is not None else name
    return SarifRule(name, name.replace("_", " "), why, "The message of a finding says what to do.", "error")
