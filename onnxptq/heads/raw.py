"""Any outputs at all, compared as they are: how near each one is to the reference's, the worst of them a sample.

Floats (and images of 8 bits): 1 - min(1, sqrt(error energy / signal energy)), where the signal is the reference's
output; 0.9 is 20 dB. Integers, bool and text: the share of equal values, since they name things. Where the two have
another shape, or the model gives NaN or infinity where the reference gives a number, nothing is left: 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError, UsageError, did_you_mean
from onnxptq.heads._base import HEADS, Head, HeadKind, Output, Scores, Specification
from onnxptq.heads._measure import Measure
from onnxptq.signature import Signature

FIDELITY = Measure(
    "fidelity", binary=False, against="reference", summary="1 - min(1, sqrt(error / signal energy)) of the worst output"
)
"""What a signal-to-noise ratio says, as a score: 0.9 is 20 dB, 0.99 is 40 dB, 0 is noise as large as the signal."""

_PIXELS = ("uint8", "int8")


@dataclass(frozen=True)
class Raw(Head):
    """All outputs, or those that the specification names as "outputs"."""

    outputs: tuple[str, ...]
    positions: tuple[int, ...]
    all_of_them: bool

    name = "raw"
    finite = False

    @property
    def specification(self) -> dict[str, Any]:
        """The names of the outputs where not all are judged."""
        return {} if self.all_of_them else {"outputs": list(self.outputs)}

    @property
    def judged(self) -> tuple[str, ...]:
        """The names of the outputs."""
        return self.outputs

    def answers(self, outputs: Sequence[Output]) -> list[Output]:
        """The outputs themselves."""
        return [outputs[position] for position in self.positions]

    def fidelity(self, answers: list[Output], reference: list[Output]) -> Scores:
        """The smallest fidelity of any output."""
        each = [output_fidelity(one, other) for one, other in zip(answers, reference, strict=True)]
        return np.asarray(np.min(each, axis=0), np.float32)


def output_fidelity(output: Output, reference: Output) -> npt.NDArray[np.float64]:
    """How near one output is to the reference's: float64, (N,), in [0, 1]."""
    if output.dtype == object or reference.dtype == object or output.shape != reference.shape:
        return np.array([_of_sample(one, other) for one, other in zip(output, reference, strict=True)], np.float64)
    return _of_table(output.reshape(len(output), -1), reference.reshape(len(reference), -1))


def _of_sample(one: Any, other: Any) -> float:
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return 0.0
    return float(_of_table(one.reshape(1, -1), other.reshape(1, -1))[0])


def _of_table(values: npt.NDArray[Any], exact: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    if not values.shape[1]:
        return np.ones(len(values))
    if values.dtype.kind != "f" and values.dtype.name not in _PIXELS:
        return np.asarray((values == exact).mean(axis=1), np.float64)
    values, exact = values.astype(np.float64), exact.astype(np.float64)
    # What the reference itself does not know, or masks with infinity, is no signal; the model must do the same.
    outside = ~np.isfinite(exact)
    alike = np.where(outside, np.isnan(values) == np.isnan(exact), np.isfinite(values)).all(axis=1)
    alike &= np.where(outside & ~np.isnan(exact), values == exact, True).all(axis=1)
    exact = np.where(outside, 0.0, exact)
    values = np.where(outside | ~np.isfinite(values), 0.0, values)
    # Divided by the largest value first: energies of huge outputs would overflow, of tiny ones vanish.
    largest = np.abs(exact).max(axis=1, keepdims=True)
    scale = np.where(largest > 0, largest, 1.0)
    signal, error = ((exact / scale) ** 2).sum(axis=1), (((exact - values) / scale) ** 2).sum(axis=1)
    ratio = np.where(error == 0, 0.0, error / np.where(signal > 0, signal, 1.0))
    ratio = np.where((signal == 0) & (error > 0), 1.0, ratio)
    return np.asarray(np.where(alike, 1 - np.minimum(1, np.sqrt(ratio)), 0.0), np.float64)


def build(specification: Specification, signature: Signature) -> Raw:
    """The head for one model.

    Raises:
        UsageError: the specification names an output that there is not.
        ModelError: the model has no output.
    """
    names = [spec.name for spec in signature.outputs]
    wanted = specification.get("outputs") or names
    if isinstance(wanted, str):
        wanted = [wanted]
    for name in wanted:
        if name not in names:
            raise UsageError(f"the model has no output {name!r}. {did_you_mean(str(name), names)}")
    if not names:
        raise ModelError("the model has no output, so there is nothing to judge.")
    return Raw(tuple(wanted), tuple(names.index(name) for name in wanted), set(wanted) == set(names))


HEADS.register(
    HeadKind(
        "raw",
        "any outputs, as near to FP32's as their values are; needs no labels",
        (),
        FIDELITY,
        build,
        keys=("outputs",),
    )
)
