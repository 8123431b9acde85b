"""Reading a policy: every mistake is said with its line, what was expected and what to write instead."""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from onnxptq.errors import UsageError, did_you_mean
from onnxptq.gates.policy import FORMAT, About, Policy

Keys = tuple[str | int, ...]
"""Where a value stands in the file: names of tables and keys, and positions in lists."""


def load_policy(path: Path) -> Policy:
    """The policy in a TOML file.

    Raises:
        UsageError: no such file, no TOML, an unknown key, a value of the wrong type or range; with the line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UsageError(f"there is no policy {path}. `onnxptq check MODEL --init` writes one.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"the policy {path} cannot be read: {error}. Expected a TOML file in UTF-8.") from error
    return parse_policy(text, str(path))


def parse_policy(text: str, name: str = "policy") -> Policy:
    """The policy in TOML `text`; `name` is what messages call it. Raises UsageError as `load_policy` does."""
    try:
        values = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"the policy {name} is not TOML: {error}. `onnxptq check MODEL --init` shows one.") from error
    written = values.pop("format", FORMAT)
    if type(written) is not int or written != FORMAT:
        line = _place(text, name, ("format",))
        raise UsageError(f"{line}: the policy has format {written!r}; this version reads format {FORMAT}.")
    try:
        policy: Policy = _read(Policy, values, ())
    except _Wrong as wrong:
        raise UsageError(f"{_place(text, name, wrong.keys)}: {wrong.message}") from None
    return policy


class _Wrong(Exception):
    """A value that is wrong, and where it stands."""

    def __init__(self, keys: Keys, message: str) -> None:
        super().__init__(message)
        self.keys = keys
        self.message = message


def _read(kind: Any, values: Mapping[str, Any], keys: Keys) -> Any:
    """A dataclass from a table."""
    known = {key.name: key for key in keys_of(kind)}
    for name in values:
        if name not in known:
            where = f"in [{_header(keys)}]" if keys else "in the policy"
            raise _Wrong((*keys, name), f"unknown key {name!r} {where}. {did_you_mean(name, known)}")
    for name, key in known.items():
        if key.needed and name not in values:
            raise _Wrong(keys, f"[{_header(keys)}] needs {name!r}. {key.about.text}")
    return kind(**{name: _value(known[name].kind, known[name].about, values[name], (*keys, name)) for name in values})


@dataclasses.dataclass(frozen=True)
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
    return kind, About(**{key: value for one in said for key, value in one.items()})


def _value(kind: Any, about: About, value: Any, keys: Keys) -> Any:
    if get_origin(kind) is tuple:
        return _list(get_args(kind)[0], value, keys)
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, Mapping):
            raise _Wrong(
                keys, f"{_header(keys)!r} must be a table, got {value!r}. Write [{_header(keys)}] and its keys."
            )
        return _read(kind, value, keys)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise _Wrong(keys, f"{keys[-1]!r} is {value!r}. {did_you_mean(str(value), get_args(kind))}")
        return value
    return _scalar(kind, about, value, keys)


def _list(kind: Any, value: Any, keys: Keys) -> tuple[Any, ...]:
    if not isinstance(value, list):
        table = dataclasses.is_dataclass(kind)
        write = f"[[{_header(keys)}]], once for each" if table else f'{keys[-1]} = ["..."]'
        raise _Wrong(keys, f"{keys[-1]!r} must be a list, got {value!r}. Write {write}.")
    return tuple(_value(kind, About(), item, (*keys, number)) for number, item in enumerate(value))


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
    position = next((key for key in keys if isinstance(key, int)), 0)
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
