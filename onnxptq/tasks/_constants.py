"""Inputs that hold the same for every sample: the first state of a recurrent model, a sample rate, a switch.

    {"constants": {"state": 0, "sr": 16000}}

They are not stored with the data. A number fills the whole input; a nested list has the shape of one sample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError, UsageError, did_you_mean
from onnxptq.signature import Feeds, Signature, TensorSpec, placed, shown

KEY = "constants"


@dataclass(frozen=True)
class Constant:
    """One such input.

    Attributes:
        name: of the input.
        value: as the specification gives it.
        sample: what one sample is fed, in the dtype of the model.
        axis: the dimension that counts samples in the model, None where it has none.
    """

    name: str
    value: Any
    sample: npt.NDArray[Any]
    axis: int | None

    def of(self, count: int) -> npt.NDArray[Any]:
        """For `count` samples, the samples in the first dimension."""
        return np.repeat(self.sample[None], count, axis=0)


def constants_of(specification: Mapping[str, Any], signature: Signature) -> tuple[Constant, ...]:
    """The constants that a specification gives.

    Raises:
        UsageError: they name an input that does not exist, or a value does not fit it.
        ModelError: the size of an input is not known, and a number cannot fill it; or nothing is left to feed.
    """
    given = specification.get(KEY) or {}
    if not isinstance(given, Mapping):
        raise UsageError(f'preprocessing: {KEY} must be as {{"state": 0}}, got {given!r}.')
    specs = {spec.name: spec for spec in signature.inputs}
    for name in given:
        if name not in specs:
            raise UsageError(f"{KEY} names the input {name!r}, which the model lacks. {did_you_mean(str(name), specs)}")
    if given and len(given) == len(specs):
        raise ModelError(f"{KEY} name every input of the model ({', '.join(given)}); one must be fed with samples.")
    axes = signature.batch_axes
    return tuple(_constant(specs[name], value, axes[name]) for name, value in given.items())


def without(signature: Signature, names: Sequence[str]) -> Signature:
    """The signature as whoever feeds the other inputs sees it."""
    return Signature(tuple(spec for spec in signature.inputs if spec.name not in names), signature.outputs)


def with_constants(feeds: Feeds, constants: Sequence[Constant]) -> Feeds:
    """Feeds and the constants beside them, the samples in the first dimension."""
    if not constants:
        return feeds
    count = len(next(iter(feeds.values())))
    return {**feeds, **{one.name: one.of(count) for one in constants}}


def arranged(feeds: Feeds, constants: Sequence[Constant]) -> Feeds:
    """Of the feeds the constants, as the model takes them."""
    return {one.name: placed(feeds[one.name], one.axis) for one in constants if one.name in feeds}


def _constant(spec: TensorSpec, value: Any, axis: int | None) -> Constant:
    wanted = tuple(size for number, size in enumerate(spec.shape) if number != axis)
    try:
        array = np.asarray(value, spec.dtype)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{KEY}: {str(value)[:80]!r} is no {spec.dtype} for the input {spec.name!r}.") from None
    if array.ndim == 0 and wanted:
        if None in wanted:
            raise ModelError(
                f"{KEY}: input {spec.name!r} has shape {shown(spec.shape)}, and nothing says how large it is. Give "
                "all of its numbers, as a nested list in the shape of one sample."
            )
        array = np.full([size or 1 for size in wanted], array)
    if len(array.shape) != len(wanted) or any(b not in (None, a) for a, b in zip(array.shape, wanted, strict=True)):
        raise UsageError(
            f"{KEY}: the input {spec.name!r} takes {shown(wanted)} for one sample, and got {shown(array.shape)}."
        )
    return Constant(spec.name, value, array, axis)
