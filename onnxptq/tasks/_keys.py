"""The types that keys of a specification have, looked at before any task reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from onnxptq.errors import DataError, UsageError
from onnxptq.heads import HEADS
from onnxptq.tasks._base import INPUTS

_OF_TASKS = ("task", "head", "expected_score", "constants")
"""Keys that a task reads itself."""

_COMMENTS = ("/", "_", "$", "#")

_MEANT = {
    "range": "input_range",
    "bounds": "input_range",
    "input_bounds": "input_range",
    "input_ranges": "input_range",
    "sampling_rate": "sample_rate",
}
"""What other tools call it."""


def check_keys(specification: Mapping[str, Any], where: str) -> None:
    """Looks at the types of the keys that our tasks share; null stands for a key that is left out.

    Args:
        specification: as it was read.
        where: the file or metadata that it is from, for messages.

    Raises:
        DataError: a key holds a value of another type, with the place, the key and what was expected.
    """
    for key, value in specification.items():
        if value is None or key not in _TYPES:
            continue
        fits, expected = _TYPES[key]
        if not fits(value):
            shown = repr(value)
            raise DataError(
                f"{where}: the key {key!r} must be {expected}, got {shown[:80]}{'...' if len(shown) > 80 else ''}."
            )


def check_no_misspelt(specification: Mapping[str, Any], input_name: str, head_name: str | None) -> None:
    """Refuses a key that nobody reads and that is one edit away from one that somebody does.

    Args:
        specification: as it was read.
        input_name: of the input; one of a plug-in that does not say its keys may have any.
        head_name: of the head where it is known.

    Raises:
        UsageError: with the key that was meant.
    """
    read = [INPUTS.get(input_name).keys, () if head_name is None else HEADS.get(head_name).keys]
    if None in read:
        return
    own = {*_OF_TASKS}.union(*(keys or () for keys in read))
    for key in unread_keys({key: value for key, value in specification.items() if key not in own}):
        if meant := meant_key(key):
            raise UsageError(
                f"unknown key {key!r} in the preprocessing. Did you mean {meant!r}? A key that begins with // or _ is "
                "a comment."
            )


def meant_key(key: str) -> str | None:
    """The key that somebody reads and that a misspelt one was meant for, or None."""
    if key.startswith(_COMMENTS) or key in known_keys():
        return None
    return _MEANT.get(key) or next((known for known in sorted(known_keys()) if _one_edit(key, known)), None)


def unread_keys(specification: Mapping[str, Any]) -> list[str]:
    """Keys of a specification that no input and no head reads, comments left out."""
    unknown = [key for key in specification if not key.startswith(_COMMENTS)]
    return unknown and [key for key in unknown if key not in known_keys()]


def _one_edit(one: str, other: str) -> bool:
    """Whether one character was left out, added or changed, or two neighbors changed places."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[same:], other[same:]
    changed = (one[1:] == other, one == other[1:], one[1:] == other[1:])
    return any(changed) or (one[:2] == other[1::-1] and one[2:] == other[2:])


def known_keys() -> frozenset[str]:
    """Every key that an input or a head of this environment says that it reads."""
    kinds = [*INPUTS, *HEADS]
    return frozenset(_OF_TASKS).union(*(kind.keys or () for kind in kinds))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MOST


_MOST = 2**31 - 1
"""Of pixels on a side, tokens of a text: ONNX Runtime could not hold such a tensor."""


def _sides(value: Any) -> bool:
    return _whole(value) or (isinstance(value, (list, tuple)) and len(value) == 2 and all(map(_whole, value)))


def _numbers(value: Any) -> bool:
    return _number(value) or (isinstance(value, (list, tuple)) and bool(value) and all(map(_number, value)))


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _names(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(
        isinstance(name, (str, int)) and not isinstance(name, bool) for name in value
    )


def _shapes(value: Any) -> bool:
    return isinstance(value, Mapping) and all(map(_shape, value.values()))


def _shape(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(size is None or _whole(size) for size in value)


def _roles(value: Any) -> bool:
    return isinstance(value, Mapping) and all(name is None or _text(name) for name in value.values())


def _tables(value: Any) -> bool:
    return isinstance(value, Mapping)


def _tokenizer(value: Any) -> bool:
    return isinstance(value, (str, Mapping))


_TEXT: tuple[Callable[[Any], bool], str] = (_text, "a text")
_NUMBERS = (_numbers, "a number or a list of numbers")
_SIDES = (_sides, "[height, width] in pixels, or one number")
_LENGTH = (_whole, "a whole number of at least 1")

_TYPES: dict[str, tuple[Callable[[Any], bool], str]] = {
    **dict.fromkeys(("input", "output", "layout", "color", "resize", "interpolation", "scores"), _TEXT),
    **dict.fromkeys(("mean", "std"), _NUMBERS),
    **dict.fromkeys(("size", "resize_to"), _SIDES),
    **dict.fromkeys(("length", "max_length"), _LENGTH),
    "scale": (_number, "a number"),
    "expected_score": (_share, "a number from 0 to 1: FP32's average score on clean samples"),
    "classes": (_names, "a list of names"),
    "shape": (_shapes, 'lists of sizes by input, as {"x": [null, 16]}'),
    "constants": (_tables, 'numbers by input, as {"state": 0}'),
    "inputs": (_roles, 'names of inputs, as {"ids": "input_ids"}'),
    "tokenizer": (_tokenizer, "the name of a file, or a table"),
}
