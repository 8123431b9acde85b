"""L_p: as MSE, with another norm of the error."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.calibrators.methods._base import RANGE_METHODS, QuantizationType, Range, RangeMethod
from onnxptq.calibrators.methods._search import least_error
from onnxptq.calibrators.statistics import TensorStatistics


def lp(statistics: Sequence[TensorStatistics], quantization: QuantizationType, *, p: float = 2.4) -> Range:
    """The range of least mean `|error| ** p`, averaged over environments. See `_search.least_error`.

    The larger p, the dearer is clipping against rounding; p = 2 is MSE and a very large p is nearly MinMax.

    Args:
        statistics: one per environment.
        quantization: the integers that the values become.
        p: 2.4, with which BRECQ and its successors start their scales.

    Raises:
        UsageError: `p` is not positive, or statistics without a histogram.
    """
    return least_error(statistics, quantization, norm=p)


RANGE_METHODS.register(
    RangeMethod(
        name="lp",
        summary="The range of least mean |error|^p, p = 2.4: between mse and minmax.",
        source="Nahshan et al., Loss Aware PTQ (arXiv 1911.07190); p = 2.4 as in BRECQ (Li et al., arXiv 2102.05426)",
        when="low bits with heavy tails, where mse clips too much.",
        compute=lp,
        parameters={"p": 2.4},
    )
)
