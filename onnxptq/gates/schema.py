"""The JSON schema of a policy, made from its dataclasses, so that the two cannot disagree.

`policy.schema.json` beside this file is what `policy_schema` gives; editors check a policy against it (docs/check.md).
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, Literal, get_args, get_origin

from onnxptq.gates.policy import FORMAT, Policy
from onnxptq.gates.policy_file import keys_of

_BOUNDS = {"minimum": "minimum", "maximum": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string"}


def policy_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a policy."""
    schema = _table(Policy)
    schema["properties"]["format"] = {"description": "Version of this format.", "const": FORMAT}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policy of onnxptq check",
        **schema,
        "description": "What an INT8 model must pass. A rule is on where its table is present.",
    }


def schema_text() -> str:
    """The text of `policy.schema.json`."""
    return json.dumps(policy_schema(), indent=2, ensure_ascii=False) + "\n"


def _table(kind: Any) -> dict[str, Any]:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    properties: dict[str, Any] = {}
    for key in keys_of(kind):
        described = {"description": key.about.text} if key.about.text else {}
        bounds = {name: bound for mine, name in _BOUNDS.items() if (bound := getattr(key.about, mine)) is not None}
        properties[key.name] = {**described, **_type(key.kind), **bounds}
        if isinstance(defaults[key.name], bool | int | float | str):
            properties[key.name]["default"] = defaults[key.name]
    required = [key.name for key in keys_of(kind) if key.needed]
    return {
        "description": kind.__doc__.splitlines()[0],
        "type": "object",
        "additionalProperties": False,
        "properties": properties,
        **({"required": required} if required else {}),
    }


def _type(kind: Any) -> dict[str, Any]:
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _type(get_args(kind)[0])}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if dataclasses.is_dataclass(kind):
        return _table(kind)
    return {"type": _SCALARS[kind]}
