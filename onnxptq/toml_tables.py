"""Tables that a user writes in TOML, read into dataclasses: every mistake is said with its line, what was expected and
what to write instead. The JSON schema of such a file is made from the same dataclasses, so the two cannot disagree.

A key is a field. `Annotated[..., About(...)]` says what it means and which values it takes; a field without a default
must be given. Fields are texts, numbers, truth values, `Literal`s, dataclasses (a table of their own), tuples of these,
and each of them `| None`.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import tomllib
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from onnxptq.errors import UsageError, did_you_mean

Keys = tuple[str | int, ...]
"""Where a value stands in the file: names of tables and keys, and positions in lists."""

T = TypeVar("T")


@dataclass(frozen=True)
class About:
    """What a key of a file means and which numbers it takes: for the JSON schema and for messages."""

    text: str = ""
    minimum: float | None = None
    above: float | None = None
    maximum: float | None = None
    below: float | None = None


def parse_tables(kind: type[T], text: str, name: str, *, what: str, format_version: int, remedy: str) -> T:
    """The dataclass `kind` from TOML text.

    Args:
        kind: the dataclass of the whole file.
        text: TOML.
        name: what messages call the file.
        what: what it is, for example "policy".
        format_version: the value of the key `format` that is read; a file without the key has it.
        remedy: a sentence that says how to get a right file.

    Raises:
        UsageError: no TOML, an unknown key, a value of the wrong type or range; with the line.
    """
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the {what} {name} is not TOML: {error}. {remedy}") from error
    return read_tables(kind, values, text, name, what=what, format_version=format_version)


def read_tables(kind: type[T], values: Mapping[str, Any], text: str, name: str, *, what: str, format_version: int) -> T:
    """As `parse_tables`, from values that were parsed already; `text` is only searched for lines."""
    values = dict(values)
    written = values.pop("format", format_version)
    if type(written) is not int or written != format_version:
        line = _place(text, name, ("format",))
        raise UsageError(f"{line}: the {what} has format {written!r}; this version reads format {format_version}.")
    try:
        read: T = _read(kind, values, (), what)
    except _Wrong as wrong:
        raise UsageError(f"{_place(text, name, wrong.keys)}: {wrong.message}") from None
    return read


def toml_value(value: Any) -> str:
    """A value as TOML, on one line: a text, number, truth value, list, or table of these, which leaves None out."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are TOML's, but JSON leaves the control character DEL as it is.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        pairs = (f"{toml_value(key)} = {toml_value(one)}" for key, one in value.items() if one is not None)
        return "{ " + ", ".join(pairs) + " }"
    return "[" + ", ".join(map(toml_value, value)) + "]"


class _Wrong(Exception):
    """A value that is wrong, and where it stands."""

    def __init__(self, keys: Keys, message: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.message = message


def _read(kind: Any, values: Mapping[str, Any], keys: Keys, what: str) -> Any:
    """A dataclass from a table."""
    known = {key.name: key for key in keys_of(kind)}
    for name in values:
        if name not in known:
            where = f"in [{_header(keys)}]" if keys else f"in the {what}"
            raise _Wrong((*keys, name), f"unknown key {name!r} {where}. {did_you_mean(name, known)}")
    for name, key in known.items():
        if key.needed and name not in values:
            where = f"[{_header(keys)}]" if keys else f"the {what}"
            raise _Wrong(keys, f"{where} needs {name!r}. {key.about.text}")
    read = {name: _value(known[name].kind, known[name].about, values[name], (*keys, name), what) for name in values}
    try:
        return kind(**read)
    except ValueError as error:  # Values that are right one by one, and do not go together.
        raise _Wrong(keys, f"[{_header(keys)}]: {error}.") from None


@dataclass(frozen=True)
class Key:
    """A key of a table: its name, its plain type, what it means, whether it must be there."""

    name: str
    kind: Any
    about: About
    needed: bool


def keys_of(kind: Any) -> list[Key]:
    """The keys of a table, from its dataclass."""
    hints = get_type_hints(kind, include_extras=True)
    keys = []
    for field in dataclasses.fields(kind):
        plain, about = _annotated(hints[field.name])
        needed = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        keys.append(Key(field.name, plain, about, needed))
    return keys


def _annotated(hint: Any) -> tuple[Any, About]:
    """The plain type of an annotation, and all that is said about it in one."""
    if get_origin(hint) is not Annotated:
        return without_none(hint), About()
    kind, *parts = get_args(hint)
    said = [{key: value for key, value in vars(part).items() if value not in (None, "")} for part in parts]
    return without_none(kind), About(**{key: value for one in said for key, value in one.items()})


def _value(kind: Any, about: About, value: Any, keys: Keys, what: str) -> Any:
    if get_origin(kind) is tuple:
        return _list(get_args(kind)[0], about, value, keys, what)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise _Wrong(
                keys, f"{_header(keys)!r} must be a table, got {value!r}. Write [{_header(keys)}] and its keys."
            )
        return _read(kind, value, keys, what)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise _Wrong(keys, f"{keys[-1]!r} is {value!r}. {did_you_mean(str(value), get_args(kind))}")
        return value
    return _scalar(kind, about, value, keys)


def _list(kind: Any, about: About, value: Any, keys: Keys, what: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        table = dataclasses.is_dataclass(kind)
        write = f"[[{_header(keys)}]], once for each" if table else f'{keys[-1]} = ["..."]'
        raise _Wrong(keys, f"{keys[-1]!r} must be a list, got {value!r}. Write {write}.")
    return tuple(_value(kind, about, item, (*keys, number), what) for number, item in enumerate(value))


def _scalar(kind: Any, about: About, value: Any, keys: Keys) -> Any:
    # isinstance would take True for a number.
    accepted = (int, float) if kind is float else (kind,)
    if type(value) not in accepted:
        name = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}[kind]
        raise _Wrong(keys, f"{_named(keys)} must be {name}, got {value!r}. {_range(about)}".rstrip())
    if kind is str:
        return value
    if kind is not bool and not _inside(value, about):
        hint = " Two points are 0.02, two percent 0.02." if 1.0 in (about.below, about.maximum) else ""
        raise _Wrong(keys, f"{_named(keys)} is {value!r}, out of range. {_range(about)}{hint}")
    return float(value) if kind is float else value


def _inside(value: float, about: About) -> bool:
    return (
        math.isfinite(value)
        and (about.minimum is None or value >= about.minimum)
        and (about.maximum is None or value <= about.maximum)
        and (about.above is None or value > about.above)
        and (about.below is None or value < about.below)
    )


def _range(about: About) -> str:
    bounds = ((word, getattr(about, key)) for key, word in _WORDS.items())
    parts = [f"{word} {bound:g}" for word, bound in bounds if bound is not None]
    return f"Expected {' and '.join(parts)}." if parts else ""


_WORDS = {"minimum": "at least", "above": "more than", "maximum": "at most", "below": "less than"}


def without_none(kind: Any) -> Any:
    """The type X of an annotation `X | None`."""
    if get_origin(kind) in (Union, types.UnionType):
        return next(part for part in get_args(kind) if part is not type(None))
    return kind


def _named(keys: Keys) -> str:
    if isinstance(keys[-1], int):
        return f"entry {keys[-1] + 1} of {_named(keys[:-1])}"
    table = _header(keys[:-1])
    return f"{keys[-1]!r} of [{table}]" if table else repr(keys[-1])


def _header(keys: Keys) -> str:
    return ".".join(key for key in keys if isinstance(key, str))


def _place(text: str, name: str, keys: Keys) -> str:
    """ "FILE, line 12"; tomllib does not say where a key stands, so the lines are searched."""
    number = _line(text, keys)
    return f"{name}, line {number}" if number else name


def _line(text: str, keys: Keys) -> int | None:
    names = [key for key in keys if isinstance(key, str)]
    # A number at the end counts values of a list, any other one tables of the same name.
    position = next((key for key in keys[:-1] if isinstance(key, int)), 0)
    table, seen, header = "", 0, None
    for number, line in enumerate(text.splitlines(), start=1):
        if found := re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]\]?\s*(#.*)?$", line):
            table = found.group(1).replace('"', "")
            seen += table == names[0]
            if table == ".".join(names) or (table == names[0] and seen == position + 1):
                header = number
            continue
        key = re.match(r"\s*\"?([A-Za-z0-9_.-]+)\"?\s*=", line)
        here = key and ".".join(filter(None, (table, key.group(1))))
        if here == ".".join(names) and (not table or seen == position + 1):
            return number
        if here == names[0] and not table:  # The whole table in one line, or the beginning of a list of tables.
            header = number
    return header


_BOUNDS = {"minimum": "minimum", "maximum": "maximum", "above": "exclusiveMinimum", "below": "exclusiveMaximum"}
_SCALARS = {bool: "boolean", int: "integer", float: "number", str: "string"}


def tables_schema(kind: Any, *, title: str, description: str, format_version: int) -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a file that `parse_tables` reads into `kind`."""
    schema = _table(kind)
    schema["properties"]["format"] = {"description": "Version of this format.", "const": format_version}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **schema,
        "description": description,
    }


def _table(kind: Any) -> dict[str, Any]:
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    properties: dict[str, Any] = {}
    for key in keys_of(kind):
        described = {"description": key.about.text} if key.about.text else {}
        properties[key.name] = {**described, **_type(key.kind, key.about)}
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


def _type(kind: Any, about: About) -> dict[str, Any]:
    if get_origin(kind) is tuple:
        return {"type": "array", "items": _type(get_args(kind)[0], about)}
    bounds = {name: bound for mine, name in _BOUNDS.items() if (bound := getattr(about, mine)) is not None}
    if get_origin(kind) is Literal:
        return {"enum": list(get_args(kind))}
    if dataclasses.is_dataclass(kind):
        return _table(kind)
    return {"type": _SCALARS[kind], **bounds}
