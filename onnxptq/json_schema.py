"""JSON schemas of what commands write, made from the dataclasses that they write, so that the two cannot disagree.

A shape is written as it looks: a type or a dataclass for what lies there, `{"key": shape}` for an object, `[shape]` for
an array; a key that ends in "?" may be missing, the key "*" stands for all others.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

DIALECT = "https://json-schema.org/draft/2020-12/schema"

Schema = dict[str, Any]

_SCALARS: dict[Any, Schema] = {
    str: {"type": "string"},
    Path: {"type": "string"},
    bool: {"type": "boolean"},
    int: {"type": "integer"},
    # What is not a finite number becomes null (`foreign_text.json_text` refuses NaN).
    float: {"type": ["number", "null"]},
    type(None): {"type": "null"},
    None: {"type": "null"},
    Any: {},
    object: {},
}


def schema_of(shape: Any) -> Schema:
    """JSON Schema (draft 2020-12) of a shape. An object may hold further keys: readers leave those alone.

    Raises:
        TypeError: a type that has no form in JSON.
    """
    if isinstance(shape, dict):
        return _object(shape)
    if isinstance(shape, list):
        return {"type": "array", "items": schema_of(shape[0])}
    if shape in _SCALARS:
        return dict(_SCALARS[shape])
    if dataclasses.is_dataclass(shape):
        return schema_of(fields_of(shape))
    return _generic(shape, get_origin(shape), get_args(shape))


def fields_of(kind: Any) -> dict[str, Any]:
    """The shape of a dataclass as `dataclasses.asdict` makes it, to be changed where its `to_dict` differs."""
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _object(shape: dict[str, Any]) -> Schema:
    named = {key.removesuffix("?"): schema_of(one) for key, one in shape.items() if key != "*"}
    required = [key for key in shape if key != "*" and not key.endswith("?")]
    others = {"additionalProperties": schema_of(shape["*"])} if "*" in shape else {}
    return {"type": "object", "properties": named, "required": required, **others}


def _generic(shape: Any, origin: Any, arguments: tuple[Any, ...]) -> Schema:
    if origin is Annotated:
        return schema_of(arguments[0])
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin in (Union, types.UnionType):
        return _union([schema_of(one) for one in arguments])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return schema_of({"*": arguments[1]})
    if isinstance(origin, type) and issubclass(origin, Sequence):
        inner = [schema_of(one) for one in arguments if one is not Ellipsis]
        return {"type": "array", "items": _union(inner)}
    raise TypeError(f"{shape!r} has no form in JSON")


def _union(schemas: list[Schema]) -> Schema:
    distinct = [one for place, one in enumerate(schemas) if one not in schemas[:place]]
    if len(distinct) == 1:
        return distinct[0]
    if all(set(one) == {"type"} for one in distinct):
        kinds = [kind for one in distinct for kind in ([one["type"]] if isinstance(one["type"], str) else one["type"])]
        return {"type": list(dict.fromkeys(kinds))}
    return {"anyOf": distinct}
