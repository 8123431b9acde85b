"""MinMax: the range is everything that was seen."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.calibrators.methods._base import RANGE_METHODS, QuantizationType, Range, RangeMethod
from onnxptq.calibrators.statistics import TensorStatistics


def minmax(statistics: Sequence[TensorStatistics], quantization: QuantizationType, *, symmetric: bool = False) -> Range:
    """The exact minimum and maximum over all environments: what ONNX Runtime's `MinMaxCalibrater` returns.

    Zero is not forced into the range: the quantizer does that (`compute_scale_zp`).

    Args:
        statistics: one per environment.
        quantization: not used.
        symmetric: return (-a, a) with a the largest magnitude, as the option `CalibTensorRangeSymmetric` does.
    """
    lower = min(part.minimum for part in statistics)
    upper = max(part.maximum for part in statistics)
    if symmetric:
        largest = max(abs(lower), abs(upper))
        return -largest, largest
    return lower, upper


RANGE_METHODS.register(
    RangeMethod(
        name="minmax",
        summary="The smallest and the largest value seen.",
        source="onnxruntime/quantization/calibrate.py, MinMaxCalibrater",
        when="8 bits, and calibration data as wide as what comes later: nothing is clipped.",
        compute=minmax,
        parameters={"symmetric": False},
        needs_histogram=False,
    )
)
