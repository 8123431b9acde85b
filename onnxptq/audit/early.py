"""The line in `quantize`: what a calibration set's inputs alone tell, without running the model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxptq.audit.clipping import Interval, covered
from onnxptq.audit.verdict import COVERED
from onnxptq.calibrators import CalibrationSamples
from onnxptq.recipe import Recipe


def early_note(recipe: Recipe, drawn: CalibrationSamples) -> str | None:
    """One line for a set whose inputs reach too little of what preprocessing allows, or None.

    Samples are read until the range is wide enough: of a harmless set that takes a few. Inputs whose bounds nobody
    knows, and sets that are dangerous at the model's other end, take `onnxptq audit`.

    Args:
        recipe: how the model is made; one that widens ranges by itself needs no line.
        drawn: the calibration set.
    """
    bounds = drawn.task.input_bounds()
    if not bounds or recipe.bounds or len(recipe.environments) > 1 or recipe.environments[0].shifts:
        return None
    seen: dict[str, Interval] = dict.fromkeys(bounds, (0.0, 0.0))
    for _, feeds in drawn:
        for name, (low, high) in seen.items():
            seen[name] = min(low, float(np.min(feeds[name]))), max(high, float(np.max(feeds[name])))
        if _reach(seen, bounds) >= COVERED:
            return None
    return (
        f"the calibration set {recipe.calibration} is dangerous: its inputs reach "
        f"{100 * _reach(seen, bounds):.0f} % of what preprocessing allows, and INT8 cuts off the rest. "
        "onnxptq audit says more; --method robust widens the ranges."
    )


def _reach(seen: Mapping[str, Interval], bounds: Mapping[str, Interval]) -> float:
    return min(covered(seen[name], bound) for name, bound in bounds.items())
