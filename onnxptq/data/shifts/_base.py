"""What a shift is: a seeded, pure change of samples, used for calibration sets and for evaluation groups alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.registry import Registry

DEFINITIONS = 3
"""Raised whenever a shift changes what it computes, so that nothing made with the old definition is found again."""

Batch = Any
"""A batch of raw samples of one modality. Images: float32, (N, H, W, C), C 1 or 3, values in [0, 1].
Recordings: float32, (N, T), about -1 to 1. Texts: a tuple of str, or of pairs of them. Tensors: {input: array (N,
...)}."""

Seeds = npt.NDArray[np.uint64]
"""One seed a sample, (N,): what a shift does to a sample never depends on its neighbours or on the batch size."""


KINDS = ("table", "log-mel", "audio", "tensor")
"""What the numbers of a tensor input are: columns of different units, log spectra, waveforms, or anything else."""


@dataclass(frozen=True)
class InputFacts:
    """What is known of the numbers of one tensor input, beside its samples.

    Attributes:
        kind: one of `KINDS`.
        bounds: the least and the greatest number that it can hold, or None.
        means, deviations: of the data that the model was trained on, one number for all or one a column or channel; ()
            where nobody knows them.
        axis: of a sample, counted from its end (-1 is the last), along which they lie.
        rate: samples a second of a waveform, 0 where nobody knows.
    """

    kind: str = "tensor"
    bounds: tuple[float, float] | None = None
    means: tuple[float, ...] = ()
    deviations: tuple[float, ...] = ()
    axis: int = -1
    rate: int = 0

    @property
    def standard(self) -> bool:
        """Whether the training data's means and deviations are known."""
        return bool(self.means)

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """The means, float64, of a shape that broadcasts to a sample."""
        return np.asarray(self.means, np.float64).reshape(-1, *(1,) * (-1 - self.axis))

    @property
    def deviation(self) -> npt.NDArray[np.float64]:
        """The deviations, as `mean`."""
        return np.asarray(self.deviations, np.float64).reshape(-1, *(1,) * (-1 - self.axis))


Facts = Mapping[str, InputFacts]
"""By the name of the input."""


@dataclass(frozen=True)
class Shift:
    """A named change of samples.

    Attributes:
        name: as the user writes it, for example "dark".
        family: shifts that resemble each other; evaluation avoids the families used in calibration.
        modality: the kind of batch that it takes ("image", "audio", "tensor", "text").
        apply: `(batch, severity, seeds) -> batch`, or `(batch, severity, seeds, partners) -> batch` when `mixes`.
            Pure: the batch given is not changed, the batch returned has its shape and dtype. Severity is 1 to 5.
        summary: one line for `onnxptq shifts`.
        source: where the definition comes from.
        default_severity: what the bare name means.
        min_size: the smallest image side at which it makes sense.
        needs_color: it changes nothing on gray images.
        mixes: it needs a second sample beside each sample.
        seeded: it draws random numbers (the others ignore the seeds).
        informed: it is called with the keyword `facts`, what is known of each tensor input, or of the waveform
            (`Facts`, maybe empty).
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
    informed: bool = False


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
        "onnxptq.data.shifts.tensor",
        "onnxptq.data.shifts._tensor_fill",
        "onnxptq.data.shifts._table",
        "onnxptq.data.shifts._text",
        "onnxptq.data.shifts._audio",
        "onnxptq.data.shifts._audio_copies",
    ),
)
