"""The one way to write down a recipe: what its digest, and with it every cache key, is made from."""

from __future__ import annotations

import functools

import numpy as np

from onnxptq.calibrators import CalibrationSet
from onnxptq.calibrators.histogram import Accumulator
from onnxptq.calibrators.methods import RANGE_METHODS, QuantizationType
from onnxptq.calibrators.statistics import TensorStatistics
from onnxptq.quantization.plugins import written_out
from onnxptq.quantization.remainder import check_remainder
from onnxptq.recipe import Recipe, Step, check_parameters


def canonical(recipe: Recipe) -> Recipe:
    """The recipe with its calibration set's canonical name and all parameters of its method and transforms written out.

    Two recipes that mean the same then have the same digest, and keep it when a default changes.

    Raises:
        UsageError: an unknown calibration set, range method, weight transform or parameter, or a value that the range
            method does not take.
    """
    check_remainder(recipe.remainder, recipe.target)
    method = RANGE_METHODS.get(recipe.ranges.name)
    check_parameters(f"the method {method.name!r}", recipe.ranges.keywords, method.parameters)
    ranges = Step.of(method.name, **{**method.parameters, **recipe.ranges.keywords})
    _try_out(ranges, len(recipe.environments))
    return recipe.changed(
        calibration=str(CalibrationSet.parse(recipe.calibration)),
        ranges=ranges,
        weight_transforms=tuple(map(written_out, recipe.weight_transforms)),
    )


@functools.lru_cache(maxsize=256)  # A sweep asks for each method once a cell.
def _try_out(ranges: Step, environments: int) -> None:
    """Raises what the method says of its parameters now, on four values, and not after all data was read."""
    accumulator = Accumulator()
    accumulator.add(np.array([-1, 0, 1, 2], np.float32))
    known = TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, *accumulator.sparse())
    RANGE_METHODS.get(ranges.name).range([known] * max(environments, 1), QuantizationType(), **ranges.keywords)
