"""The types that keys of a specification have, looked at before any task reads them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from onnxptq.errors import DataError


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
    "inputs": (_roles, 'names of inputs, as {"ids": "input_ids"}'),
    "tokenizer": (_tokenizer, "the name of a file, or a table"),
}
