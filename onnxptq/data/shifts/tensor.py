"""Shifts of samples that are plain tensors, for calibration sets and for evaluation.

A batch is a dict from input name to an array whose first dimension counts the samples. Floating-point arrays are
changed, all others (token ids, masks, strings) are copied. A table has columns of different units, so a number stands
beside those of its own column only; of other kinds, numbers of one channel stand together.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts._apply import generators
from onnxptq.data.shifts._base import SHIFTS, Facts, InputFacts, Seeds, Shift

Array = npt.NDArray[Any]
Tensors = dict[str, Array]

SCALE = (0.5, 0.3, 0.15, 0.1, 0.05)
NOISE = (0.1, 0.2, 0.3, 0.5, 0.8)
OFFSET = (0.1, 0.2, 0.3, 0.5, 0.8)

LONG = 2048
"""Numbers of a sample of one dimension from which it is taken for a waveform, not for a table's columns."""


def kind_of(shape: tuple[int | None, ...]) -> str:
    """What a sample of this shape (without the batch) is taken for where nobody says: a table, a waveform, a tensor."""
    if len(shape) <= 1:
        return "audio" if shape and (shape[0] or 0) >= LONG else "table"
    return "tensor"


def each_float(batch: Tensors, facts: Facts, change: Callable[[Array, InputFacts], Array]) -> Tensors:
    """The batch with every floating-point array changed, in float64, and put back in its own type."""
    changed = {}
    for name, array in batch.items():
        if is_float(array) and array.size:
            known = facts.get(name) or InputFacts(kind_of(array.shape[1:]))
            changed[name] = change(array.astype(np.float64), known).astype(array.dtype)
        else:
            changed[name] = array.copy()
    return changed


def each_sample(change: Callable[[Array, InputFacts], Array]) -> Callable[[Array, InputFacts], Array]:
    """A change of one sample, for all samples of an array."""
    return lambda array, known: np.stack([change(sample, known) for sample in array])


def spread(sample: Array, known: InputFacts) -> Array:
    """What counts as one deviation of each number of a sample, of a shape that broadcasts to it.

    The training data's own where it is known. Else in a table each number's size, since the columns beside it have
    other units; elsewhere the standard deviation of each channel, or the size of a channel of equal numbers.
    """
    if known.standard:
        return known.deviation
    if known.kind == "table":
        return np.abs(sample)
    axes = tuple(axis for axis in range(sample.ndim) if axis != channel_axis(sample))
    deviation = sample.std(axis=axes, keepdims=True)
    return np.asarray(np.where(deviation > 0, deviation, np.abs(sample).max(axis=axes, keepdims=True)))


def channel_axis(sample: Array) -> int:
    """The axis of the channels of a sample: the shorter of two, the first of more, none (-1) of one."""
    if sample.ndim < 2:
        return -1
    return int(np.argmin(sample.shape)) if sample.ndim == 2 else 0


def is_float(array: Array) -> bool:
    """Whether shifts change it."""
    return np.issubdtype(array.dtype, np.floating)


def scale(batch: Tensors, severity: int, seeds: Seeds) -> Tensors:
    """x * c."""
    factor = SCALE[severity - 1]
    return {
        name: array * array.dtype.type(factor) if is_float(array) else array.copy() for name, array in batch.items()
    }


def tensor_noise(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """x + N(0, c * s), s as `spread` says."""
    noisy = {name: array.copy() for name, array in batch.items()}
    # By name, so that a sample's noise does not depend on the order in which the inputs were listed.
    floats = [name for name in sorted(noisy) if is_float(noisy[name])]
    for index, generator in enumerate(generators("tensor_noise", seeds)):
        for name in floats:
            values = noisy[name][index].astype(np.float64)
            known = facts.get(name) or InputFacts(kind_of(values.shape))
            if values.size:
                values += generator.standard_normal(values.shape) * (NOISE[severity - 1] * spread(values, known))
            noisy[name][index] = values
    return noisy


def offset(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
    """x - c * w, w the width of the input's bounds or six deviations; what falls below the bounds stays on them."""

    def lowered(sample: Array, known: InputFacts) -> Array:
        if known.bounds is None:
            return sample - OFFSET[severity - 1] * 6 * spread(sample, known)
        low, high = known.bounds
        return np.maximum(sample - OFFSET[severity - 1] * (high - low), low)

    return each_float(batch, facts, each_sample(lowered))


SHIFTS.register(
    Shift(
        name="scale",
        family="scale",
        modality="tensor",
        apply=scale,
        summary="float inputs times 0.5, 0.3, 0.15, 0.1, 0.05",
        source="ours",
    )
)
SHIFTS.register(
    Shift(
        name="tensor_noise",
        family="noise",
        modality="tensor",
        apply=tensor_noise,
        summary="gaussian noise, 0.1 to 0.8 of the deviation of each column or channel",
        source="ours",
        seeded=True,
        informed=True,
    )
)
SHIFTS.register(
    Shift(
        name="offset",
        family="scale",
        modality="tensor",
        apply=offset,
        summary="float inputs less 0.1 to 0.8 of their width: what a lower gain does to log features",
        source="ours",
        informed=True,
    )
)
