"""What heads have in common: finding their output and their truth, and numbers that stand for answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError, did_you_mean
from onnxptq.heads._base import Specification, Truths
from onnxptq.signature import Signature, TensorSpec


def find_output(
    specification: Specification, signature: Signature, fits: Callable[[TensorSpec], bool]
) -> tuple[TensorSpec, int] | None:
    """The output that the specification names, else the first that fits, and its position; None where none does.

    Raises:
        UsageError: the specification names an output that there is not.
    """
    names = [spec.name for spec in signature.outputs]
    named = specification.get("output")
    if named is not None and named not in names:
        raise UsageError(f"the model has no output {named!r}. {did_you_mean(str(named), names)}")
    for position, spec in enumerate(signature.outputs):
        if named == spec.name or (named is None and fits(spec)):
            return spec, position
    return None


def find_truth(truths: Truths, names: Sequence[str]) -> tuple[str, Sequence[Any]] | None:
    """The first of these columns that the data has, and its values; None where it has none."""
    for name in names:
        values = truths.get(name, ())
        if any(value is not None for value in values):
            return name, values
    return None


def codes_of(contents: Iterable[bytes]) -> npt.NDArray[np.int64]:
    """A number for each content, equal where they are: int64, (N,). Two of a billion differ with one chance in 18."""
    digests = [hashlib.blake2b(content, digest_size=8).digest() for content in contents]
    return np.array([int.from_bytes(one, "little") >> 1 for one in digests], np.int64)


def number_range(count: int) -> str:
    """The range that a number of objects or classes lies in, as the name of a group."""
    return "0" if count == 0 else "1" if count == 1 else "2-4" if count < 5 else "5-9" if count < 10 else "10+"


def length_range(count: int) -> str:
    """The range that a number of symbols or tokens lies in, as the name of a group."""
    return (
        "0" if not count else "1-5" if count <= 5 else "6-20" if count <= 20 else "21-80" if count <= 80 else "over 80"
    )
