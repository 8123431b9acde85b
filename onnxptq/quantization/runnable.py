"""Ranges that ONNX Runtime's INT8 kernels can run with.

Its GlobalAveragePool gives up ("parameter out of computation range") where the scale of its input is 256 times that of
its result and the number of averaged values together (`qladd.cpp` and `qlgavgpool.cpp` of MLAS). So it is where a mean
is all that was left to remove: behind an InstanceNormalization the average of each map is 0 but for rounding.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxptq.calibrators.methods import Range
from onnxptq.graphs.parts import is_standard
from onnxptq.graphs.skeleton import skeleton

FINEST = 128.0
"""How much narrower than its input's the range of an average may be. An average of 1,000 numbers that were rounded to
steps of 1 is exact to 1 / 100, so a result in steps of 1 / 128 loses nothing that was there."""


def runnable(ranges: Mapping[str, Range], model: Path) -> Mapping[str, Range]:
    """The ranges, with those of averages wide enough for the kernel; others stay.

    Args:
        ranges: tensor -> (lower, upper).
        model: the float model that the quantizer is given.
    """
    found = dict(ranges)
    for node in skeleton(model).graph.node:
        if node.op_type != "GlobalAveragePool" or not is_standard(node):
            continue
        source, result = node.input[0], node.output[0]
        if source not in found or result not in found:
            continue
        least, width = _width(found[source]) / FINEST, _width(found[result])
        if width >= least:
            continue
        low, high = (float(end) for end in found[result])
        grown = (low * least / width, high * least / width) if width else (0.0, least)
        found[result] = (np.float32(grown[0]), np.float32(grown[1]))
    return found


def _width(values: Range) -> float:
    """Of a range, which always holds 0."""
    return max(float(values[1]), 0.0) - min(float(values[0]), 0.0)
