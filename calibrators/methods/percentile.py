"""Percentile: the range leaves out the rarest values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.methods._base import RANGE_METHODS, QuantizationType, Range, RangeMethod
from onnxptq.calibrators.statistics import TensorStatistics, merge_tensors, value_histogram
from onnxptq.errors import UsageError


def percentile(
    statistics: Sequence[TensorStatistics],
    quantization: QuantizationType,
    *,
    percentile: float = 99.999,
    symmetric: bool = True,
) -> Range:
    """The percentile of all values of all environments together, with the meaning that ONNX Runtime gives it.

    Symmetric: (-t, t) with t the percentile of the magnitudes. Otherwise half of what is cut off goes on each side.
    Both are cut to the extremes. The percentile is the smallest value that at least this share of the values does
    not exceed, known to 2**-11 of itself; ONNX Runtime's is the lower edge of its histogram's bin, and on heavy
    tails up to 18 bins off.

    Args:
        statistics: one per environment.
        quantization: not used.
        percentile: share of the values kept, in percent, 0 to 100; 100 is MinMax.
        symmetric: ONNX Runtime's default.

    Raises:
        UsageError: `percentile` outside 0 to 100, or statistics without a histogram.
    """
    if not 0 <= percentile <= 100:
        raise UsageError(f"a percentile lies between 0 and 100, got {percentile}")
    pool = merge_tensors(statistics)
    histogram = value_histogram(pool)
    share = Fraction(str(percentile)) / 100
    if symmetric:
        magnitudes = np.abs(histogram.centers)
        order = np.argsort(magnitudes, kind="stable")
        upper = _quantile(magnitudes[order], histogram.counts[order], share)
        lower = -upper
    else:
        share = 1 - (1 - share) / 2
        upper = _quantile(histogram.centers, histogram.counts, share)
        lower = -_quantile(-histogram.centers[::-1], histogram.counts[::-1], share)
    return max(np.float32(lower), pool.minimum), min(np.float32(upper), pool.maximum)


def _quantile(values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64], share: Fraction) -> float:
    """The smallest of ascending `values` that at least `share` of the counts do not exceed; infinity for all."""
    total = int(counts.sum())
    # A fraction, because 0.99999 * total rounds to the wrong rank.
    rank = max(1, math.ceil(share * total))
    return math.inf if rank >= total else float(values[np.searchsorted(np.cumsum(counts), rank)])


RANGE_METHODS.register(
    RangeMethod(
        name="percentile",
        summary="The range that keeps a given share of all values (99.999 %).",
        source="onnxruntime/quantization/calibrate.py, PercentileCalibrater",
        when="a few outliers would stretch the range; worse than minmax at 8 bits on shifted data.",
        compute=percentile,
        parameters={"percentile": 99.999, "symmetric": True},
    )
)
