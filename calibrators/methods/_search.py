"""Search for the range of least rounding and clipping error, the core of `mse` and `lp`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.methods._base import QuantizationType, Range
from onnxptq.calibrators.methods._linear import resample
from onnxptq.calibrators.statistics import TensorStatistics, value_histogram
from onnxptq.errors import UsageError

Floats = npt.NDArray[np.float64]

BINS = 2048
"""Bins per environment: 8 to a step of an 8-bit quantizer, so that the error within a step is seen."""

ONE_SIDED = np.linspace(0.04, 1.0, 49)
"""Share of the extreme kept, where one side is zero or the range must be symmetric."""

TWO_SIDED = np.linspace(0.04, 1.0, 25)
"""Share of each extreme kept: 25 x 25 pairs."""


@dataclass(frozen=True)
class _Values:
    """One environment's values, zeros left out: what a search sees. `weights` sum to 1; both float64, (V,)."""

    values: Floats
    weights: Floats


def least_error(statistics: Sequence[TensorStatistics], quantization: QuantizationType, norm: float) -> Range:
    """The range, among shares of the extremes over all environments, of least mean `|x - quantized(x)| ** norm`.

    The mean is taken in every environment and then over environments, so that a large one does not outvote the
    others. Zeros are left
    out: every candidate holds them exactly. Of equal candidates the widest wins.

    Raises:
        UsageError: `norm` is not positive, or statistics without a histogram.
    """
    if norm <= 0:
        raise UsageError(f"the norm must be positive, got {norm}")
    lowest = min(float(part.minimum) for part in statistics)
    highest = max(float(part.maximum) for part in statistics)
    environments = [found for part in statistics if (found := _values(part)) is not None]
    if not environments:
        return np.float32(lowest), np.float32(highest)
    lows, highs = _candidates(min(lowest, 0.0), max(highest, 0.0), quantization)
    errors = np.mean([_errors(one, lows, highs, quantization, norm) for one in environments], axis=0)
    best = int(np.argmin(errors))
    return np.float32(lows[best]), np.float32(highs[best])


def _values(statistics: TensorStatistics) -> _Values | None:
    histogram = value_histogram(statistics)
    low, high = float(statistics.minimum), float(statistics.maximum)
    if low == high:
        return None if low == 0 else _Values(np.array([low]), np.ones(1))
    zeros = (histogram.lower == 0) & (histogram.upper == 0)
    some = type(histogram)(histogram.lower[~zeros], histogram.upper[~zeros], histogram.counts[~zeros])
    edges = np.linspace(low, high, BINS + 1)
    counts = resample(some, edges)
    kept = counts > 0
    centers = (edges[1:] + edges[:-1]) / 2
    return _Values(centers[kept], counts[kept] / counts.sum())


def _candidates(low: float, high: float, quantization: QuantizationType) -> tuple[Floats, Floats]:
    """Lower and upper bounds, widest first; both (K,)."""
    one, two = ONE_SIDED[::-1], TWO_SIDED[::-1]
    if quantization.symmetric:
        bound = max(-low, high) * one
        return -bound, bound
    if low == 0 or high == 0:
        return low * one, high * one
    return np.repeat(low * two, two.size), np.tile(high * two, two.size)


def _errors(environment: _Values, lows: Floats, highs: Floats, quantization: QuantizationType, norm: float) -> Floats:
    """Mean error under every candidate, (K,)."""
    steps = 2**quantization.bits - (2 if quantization.symmetric and quantization.signed else 1)
    values, weights = environment.values, environment.weights
    errors = np.empty(lows.size)
    for i, (low, high) in enumerate(zip(lows, highs, strict=True)):
        scale = (high - low) / steps
        # In steps, with the zero point rounded as the quantizer rounds it: the grid always holds zero.
        below = np.rint(low / scale)
        rounded = np.clip(np.rint(values / scale), below, below + steps) * scale
        difference = np.abs(values - rounded)
        errors[i] = weights @ (difference * difference if norm == 2 else difference**norm)
    return errors


__all__ = ["least_error"]
