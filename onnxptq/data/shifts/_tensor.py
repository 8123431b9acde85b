"""Shifts of samples that are plain tensors: they know nothing of what the numbers mean.

A batch is a dict from input name to an array whose first dimension counts the samples. Floating-point arrays are
changed, all others (token ids, masks, strings) are copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts._apply import generators
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift

Tensors = dict[str, npt.NDArray[Any]]

SCALE = (0.5, 0.3, 0.15, 0.1, 0.05)
NOISE = (0.1, 0.2, 0.3, 0.5, 0.8)


def scale(batch: Tensors, severity: int, seeds: Seeds) -> Tensors:
    """x * c."""
    factor = SCALE[severity - 1]
    return {
        name: array * array.dtype.type(factor) if _is_float(array) else array.copy() for name, array in batch.items()
    }


def tensor_noise(batch: Tensors, severity: int, seeds: Seeds) -> Tensors:
    """x + N(0, c * s), s the standard deviation of the sample in that input.

    A sample of equal numbers, such as a single one, has no standard deviation: its size |x| stands in.
    """
    noisy = {name: array.copy() for name, array in batch.items()}
    # By name, so that a sample's noise does not depend on the order in which the inputs were listed.
    floats = [noisy[name] for name in sorted(noisy) if _is_float(noisy[name])]
    for index, generator in enumerate(generators("tensor_noise", seeds)):
        for array in floats:
            values = array[index].astype(np.float64)
            if values.size:
                deviation = values.std() or abs(values.flat[0])
                values += generator.standard_normal(values.shape) * (NOISE[severity - 1] * deviation)
            array[index] = values
    return noisy


def _is_float(array: npt.NDArray[Any]) -> bool:
    return np.issubdtype(array.dtype, np.floating)


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
        summary="gaussian noise, 0.1 to 0.8 of each sample's standard deviation",
        source="ours",
        seeded=True,
    )
)
