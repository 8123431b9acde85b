"""SARIF 2.1.0, the format in which code hosts and editors take findings: what `check`, `lint` and `audit` share of it.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from onnxptq.foreign_text import printable
from onnxptq.version import __version__

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"

Level = Literal["error", "warning", "note"]


@dataclass(frozen=True)
class SarifRule:
    """A rule that was asked, whether it found something or not.

    Attributes:
        name: its id.
        title: a few words.
        why: why it matters.
        remedy: what to do.
        level: how bad a violation is.
        source: address of its documentation; "" where there is none.
    """

    name: str
    title: str
    why: str
    remedy: str
    level: Level
    source: str = ""


@dataclass(frozen=True)
class SarifResult:
    """One finding.

    Attributes:
        rule: name of its rule.
        level: how bad it is here.
        message: what was found.
        file: the file that it is about, as the user named it; "" where it is about none.
        where: the node, tensor or group in it; "" for the whole of it.
    """

    rule: str
    level: Level
    message: str
    file: str
    where: str = ""


def sarif_run(
    command: str,
    rules: Sequence[SarifRule],
    results: Iterable[SarifResult],
    *,
    errors: Sequence[str] = (),
    properties: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """One run of a log.

    Args:
        command: what ran, for example "check". Code scanning keeps the results of each command, apart from others'.
        rules: all that were asked.
        results: what they found.
        errors: why something could not be looked at; then the run says that it did not succeed.
        properties: further facts.
    """
    index = {rule.name: number for number, rule in enumerate(rules)}
    invocation: dict[str, Any] = {"executionSuccessful": not errors}
    if errors:
        invocation["toolExecutionNotifications"] = [{"level": "error", "message": _text(error)} for error in errors]
    return {
        "tool": {
            "driver": {"name": "onnxptq", "semanticVersion": __version__, "rules": [_rule(rule) for rule in rules]}
        },
        "automationDetails": {"id": f"onnxptq/{command}/"},
        "invocations": [invocation],
        "results": [_result(result, index) for result in results],
        **({"properties": dict(properties)} if properties else {}),
    }


def sarif_log(runs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A log of what `sarif_run` made."""
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [dict(run) for run in runs]}


def _rule(rule: SarifRule) -> dict[str, Any]:
    described = {
        "id": rule.name,
        "shortDescription": _text(rule.title),
        "fullDescription": _text(rule.why),
        "help": _text(f"{rule.remedy} Source: {rule.source}" if rule.source else rule.remedy),
        "defaultConfiguration": {"level": rule.level},
    }
    return {**described, "helpUri": rule.source} if rule.source.startswith("https://") else described


def _result(result: SarifResult, index: Mapping[str, int]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "ruleId": result.rule,
        "ruleIndex": index[result.rule],
        "level": result.level,
        "message": _text(result.message),
    }
    location: dict[str, Any] = {}
    if result.file:
        path = Path(result.file)
        uri = path.as_uri() if path.is_absolute() else quote(path.as_posix())
        location["physicalLocation"] = {"artifactLocation": {"uri": uri}}
    if result.where:
        location["logicalLocations"] = [{"fullyQualifiedName": printable(result.where), "kind": "element"}]
    return {**values, "locations": [location]} if location else values


def _text(text: str) -> dict[str, str]:
    return {"text": printable(text)}
