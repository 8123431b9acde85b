"""What a range cuts off of the values of a tensor: the share of values, and the share of the signal."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxptq.calibrators.statistics import TensorStatistics, value_histogram

Interval = tuple[float, float]
"""The least and the greatest value."""


@dataclass(frozen=True)
class Clipping:
    """What a calibrated range cuts off of one part of a probe, in one tensor.

    Attributes:
        part: the part of the probe: a group ("label=cat") or a chain of shifts ("autocontrast+invert@5").
        kind: "undrawn" (samples of the calibration side that were not drawn) or "augmented" (copies of drawn ones).
        share: fraction of the values that lie outside of the range.
        distortion: energy of what is cut off, as a fraction of the variance of the values. 0 cuts nothing; 1 does as
            much damage as replacing every value by the mean.
    """

    part: str
    kind: str
    share: float
    distortion: float


def quantized_range(statistics: TensorStatistics, *, symmetric: bool) -> Interval:
    """The values that MinMax can represent: the observed extremes, zero included, as the quantizer includes it."""
    low, high = min(float(statistics.minimum), 0.0), max(float(statistics.maximum), 0.0)
    if symmetric:
        return -max(-low, high), max(-low, high)
    return low, high


def clipping(values: TensorStatistics, kept: Interval, part: str, kind: str) -> Clipping:
    """What the range `kept` cuts off of `values`, from their histogram.

    Raises:
        UsageError: the statistics were collected without a histogram.
    """
    histogram = value_histogram(values)
    total = histogram.counts.sum()
    if not total:
        return Clipping(part, kind, 0.0, 0.0)
    weights = histogram.counts / total
    # Whole bins that lie inside are inside: the middle of the outermost one may not be.
    above = np.where(histogram.upper > kept[1], np.maximum(histogram.centers - kept[1], 0), 0)
    below = np.where(histogram.lower < kept[0], np.maximum(kept[0] - histogram.centers, 0), 0)
    lost = above + below
    mean = float(weights @ histogram.centers)
    variance = float(weights @ (histogram.centers - mean) ** 2)
    share = float(weights[lost > 0].sum())
    energy = float(weights @ lost**2)
    # A tensor without variance is a constant; cutting it off loses all that it says.
    return Clipping(part, kind, share, energy / variance if variance > 0 else float(energy > 0))


def covered(observed: Interval, reference: Interval) -> float:
    """The fraction of `reference` that `observed` covers, both with zero included: 1 where nothing is missing."""
    low, high = min(reference[0], 0.0), max(reference[1], 0.0)
    if high == low:
        return 1.0
    inside = min(observed[1], high) - max(observed[0], low)
    return max(0.0, inside) / (high - low)
