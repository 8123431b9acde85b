"""MSE: the range of least mean squared error between the values and what the quantizer makes of them."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.calibrators.methods._base import RANGE_METHODS, QuantizationType, Range, RangeMethod
from onnxptq.calibrators.methods._search import least_error
from onnxptq.calibrators.statistics import TensorStatistics


def mse(statistics: Sequence[TensorStatistics], quantization: QuantizationType) -> Range:
    """The range of least mean squared error, averaged over environments. See `_search.least_error`.

    Args:
        statistics: one per environment.
        quantization: the integers that the values become; decides how much clipping pays.

    Raises:
        UsageError: statistics without a histogram.
    """
    return least_error(statistics, quantization, norm=2)


RANGE_METHODS.register(
    RangeMethod(
        name="mse",
        summary="The range of least mean squared quantization error, averaged over environments.",
        source="Banner et al., Post training 4-bit quantization, NeurIPS 2019 (arXiv 1810.05723); grid search",
        when="4 bits, or no data of the right kind; on raw shifted data no better than minmax.",
        compute=mse,
    )
)
