"""What a shift is: a seeded, pure change of samples, used for calibration sets and for evaluation groups alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.registry import Registry

DEFINITIONS = 2
"""Raised whenever a shift changes what it computes, so that nothing made with the old definition is found again."""

Batch = Any
"""A batch of raw samples of one modality. Images: float32, (N, H, W, C), C 1 or 3, values in [0, 1]."""

Seeds = npt.NDArray[np.uint64]
"""One seed a sample, (N,): what a shift does to a sample never depends on its neighbours or on the batch size."""


@dataclass(frozen=True)
class Shift:
    """A named change of samples.

    Attributes:
        name: as the user writes it, for example "dark".
        family: shifts that resemble each other; evaluation avoids the families used in calibration.
        modality: the kind of batch that it takes ("image", "tensor", "text").
        apply: `(batch, severity, seeds) -> batch`, or `(batch, severity, seeds, partners) -> batch` when `mixes`.
            Pure: the batch given is not changed, the batch returned has its shape and dtype. Severity is 1 to 5.
        summary: one line for `onnxptq shifts`.
        source: where the definition comes from.
        default_severity: what the bare name means.
        min_size: the smallest image side at which it makes sense.
        needs_color: it changes nothing on gray images.
        mixes: it needs a second sample beside each sample.
        seeded: it draws random numbers (the others ignore the seeds).
    """

    name: str
    family: str
    modality: str
    apply: Callable[..., Batch]
    summary: str
    source: str
    default_severity: int = 3
    min_size: int = 1
    needs_color: bool = False
    mixes: bool = False
    seeded: bool = False


SHIFTS: Registry[Shift] = Registry(
    "shift",
    "onnxptq.shifts",
    (
        "onnxptq.data.shifts._light",
        "onnxptq.data.shifts._noise",
        "onnxptq.data.shifts._blur",
        "onnxptq.data.shifts._weather",
        "onnxptq.data.shifts._digital",
        "onnxptq.data.shifts._augment",
        "onnxptq.data.shifts._tensor",
        "onnxptq.data.shifts._text",
    ),
)
