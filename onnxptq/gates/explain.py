"""A policy in words: what each rule asks for, and where it fails, passes and stays undecided."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from onnxptq.gates.policy import FORMAT, LatencyRule, Policy, RegressionRule, TotalDropRule, policy_to_dict, tolerated
from onnxptq.gates.rules import RULES, needs
from onnxptq.gates.verdict import Unit, shown
from onnxptq.toml_tables import toml_value


def explain_policy(policy: Policy) -> list[str]:
    """The lines that explain a policy, one rule after another, and what it takes to judge it."""
    lines = [
        f"Groups: {', '.join(policy.group_by) or 'label x corruption (corruption without labels)'}. Every bound holds "
        f"with {100 * policy.confidence:g} % confidence; the rules that fail where harm is likely share one error rate "
        f"of {100 * (1 - policy.confidence):.3g} %."
    ]
    for field in fields(policy):
        tables = getattr(policy, field.name)
        if field.name not in RULES or tables in (None, ()):
            continue
        for table in tables if isinstance(tables, tuple) else (tables,):
            lines += ["", f"[{field.name}] {_first_line(table)}", f"  {_sides(table) or _keys(table)}"]
    wanted = sorted(needs(policy) - {"all groups"})
    return [*lines, "", f"It takes: {', '.join(wanted) or 'nothing but the file'}."]


def policy_toml(policy: Policy) -> str:
    """A policy as a TOML file that `check --policy` reads back as the same policy."""
    lines = [f"format = {FORMAT}"]
    tables: list[str] = []
    for key, value in policy_to_dict(policy).items():
        if isinstance(value, dict):
            tables += ["", f"[{key}]", *_pairs(value)]
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            for one in value:
                tables += ["", f"[[{key}]]", *_pairs(one)]
        else:
            lines.append(f"{key} = {toml_value(value)}")
    return "\n".join([*lines, *tables]) + "\n"


def _pairs(table: dict[str, Any]) -> list[str]:
    return [f"{key} = {toml_value(value)}" for key, value in table.items()]


def _first_line(table: Any) -> str:
    return str(type(table).__doc__).splitlines()[0]


def _sides(table: Any) -> str:
    """Where a rule about samples fails and passes; "" for other rules."""
    if not hasattr(table, "tolerance"):
        return ""
    unit = _unit(table)
    limit, tolerance = shown(table.limit, unit), shown(tolerated(table), unit)
    worse = "less" if table.margin < 0 else "more"
    fails = {"fail-if-likely": f"surely {worse}", "fail-if-possible": f"possibly {worse}", "point": f"measured {worse}"}
    about = f"{getattr(table, 'group', '') or getattr(table, 'total', '')}: ".removeprefix(": ")
    if table.mode == "fail-if-possible":
        return f"{about}FAILED where it is {fails[table.mode]} than {limit}, else PASSED."
    passes = f"PASSED where {worse} than {tolerance} can be ruled out"
    return f"{about}FAILED where it is {fails[table.mode]} than {limit}, {passes}, else UNDECIDED."


def _unit(table: Any) -> Unit:
    if isinstance(table, LatencyRule):
        return "ratio"
    drop = isinstance(table, RegressionRule | TotalDropRule) or type(table).__name__.endswith("Drop")
    return "drop" if drop else "fraction"


def _keys(table: Any) -> str:
    return ", ".join(f"{field.name} = {getattr(table, field.name)!r}" for field in fields(table))
