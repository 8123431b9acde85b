"""Bounds of a recipe that come from what a model's inputs can be and what its operators can give."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from onnxptq.calibrators.methods import Range
from onnxptq.errors import UsageError
from onnxptq.quantization.intervals import attained, propagate
from onnxptq.quantization.plugins import BOUNDS, Bound
from onnxptq.tasks import Task

INPUT_RANGE = "input-range"
OPERATOR_BOUNDS = "operator-bounds"
WIDEN = "widen"

Ranges = Mapping[str, Range]


def input_range(ranges: Ranges, model: Path, task: Task) -> Ranges:
    """The exact range in place of the observed one, at the inputs and behind what only normalises or moves them.

    A dark calibration set leaves nothing above a normalised 0 of the input's range, and the quantizer then cuts off all
    that is brighter. Nothing changes where the task does not know the bounds.
    """
    exact = attained(model, task.input_bounds())
    return {name: _as_range(*exact[name]) if name in exact else found for name, found in ranges.items()}


def operator_bounds(ranges: Ranges, model: Path, task: Task) -> Ranges:
    """Each range, cut to what the tensor can hold: behind a Relu nothing is below 0, behind a Clip nothing outside.

    Ranges are never widened to such a bound, which lies far outside of real activations behind a few layers.
    """
    possible = propagate(model, task.input_bounds())
    cut = {}
    for name, (low, high) in ranges.items():
        least, most = possible.get(name, (-np.inf, np.inf))
        cut[name] = _as_range(*np.clip([float(low), float(high)], least, most))
    return cut


def widen(ranges: Ranges, model: Path, task: Task, factor: float) -> Ranges:
    """Each range times `factor`, about 0: room for what the calibration set does not show. Costs resolution.

    Raises:
        UsageError: the factor is below 1.
    """
    if not factor >= 1:
        raise UsageError(f"the factor of the bound {WIDEN!r} must be at least 1, got {factor}.")
    return {name: _as_range(float(low) * factor, float(high) * factor) for name, (low, high) in ranges.items()}


def _as_range(low: float, high: float) -> Range:
    return np.float32(low), np.float32(high)


BOUNDS.register(
    Bound(
        INPUT_RANGE,
        "The exact range that preprocessing can produce, in place of the observed one.",
        "onnxptq",
        input_range,
    )
)
BOUNDS.register(
    Bound(
        OPERATOR_BOUNDS,
        "Cuts ranges to what the operators can give at all (interval arithmetic).",
        "onnxptq",
        operator_bounds,
    )
)
BOUNDS.register(
    Bound(WIDEN, "Ranges times a factor, about 0.", "onnxptq", widen, {"factor": 1.5}),
)
