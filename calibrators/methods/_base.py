"""What a range method is: one tensor's statistics and the quantization type in, one range out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnxptq.calibrators.statistics import TensorStatistics
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.registry import Registry

Range = tuple[np.float32, np.float32]
"""Lower and upper bound of the values that keep their own integer; what lies outside is clipped."""


@dataclass(frozen=True)
class QuantizationType:
    """What a range method must know of the integers that a tensor becomes.

    Attributes:
        bits: width of the integer, for example 8.
        signed: INT8 (True) or UINT8 (False).
        symmetric: the zero point is the middle of the integers, so that only ranges (-a, a) are of use.
    """

    bits: int = 8
    signed: bool = False
    symmetric: bool = False


@dataclass(frozen=True)
class RangeMethod:
    """A named rule that chooses the range of an activation.

    Attributes:
        name: as the user writes it, for example "percentile".
        summary: one line for `onnxptq methods`.
        source: the paper or the file of ONNX Runtime that it comes from.
        when: one line: which case it is good for.
        compute: `(statistics, quantization, **parameters) -> (lower, upper)`. Pure. One `TensorStatistics` per
            environment of the calibration set; most methods pool them.
        parameters: names and defaults of the keyword parameters.
        needs_histogram: False when exact minimum and maximum are enough, so that the pass may skip the counting.
    """

    name: str
    summary: str
    source: str
    when: str
    compute: Callable[..., Range]
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs_histogram: bool = True

    def range(self, statistics: Sequence[TensorStatistics], quantization: QuantizationType, **parameters: Any) -> Range:
        """The range for one tensor.

        Raises:
            UsageError: no statistics, an unknown parameter, or a value outside its limits.
        """
        for name in parameters:
            if name not in self.parameters:
                hint = did_you_mean(name, self.parameters)
                raise UsageError(f"the range method {self.name!r} has no parameter {name!r}. {hint}")
        if not statistics:
            raise UsageError(f"the range method {self.name!r} needs the statistics of at least one environment")
        return self.compute(statistics, quantization, **{**self.parameters, **parameters})


RANGE_METHODS: Registry[RangeMethod] = Registry(
    "range method",
    "onnxptq.range_methods",
    (
        "onnxptq.calibrators.methods.minmax",
        "onnxptq.calibrators.methods.percentile",
        "onnxptq.calibrators.methods.entropy",
        "onnxptq.calibrators.methods.mse",
        "onnxptq.calibrators.methods.lp",
    ),
)
