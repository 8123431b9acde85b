"""The line in `quantize`: what can be known of a calibration set from its inputs alone, without running the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from onnxptq.audit.clipping import Interval, covered
from onnxptq.audit.probe import undrawn_parts
from onnxptq.audit.verdict import LIMIT
from onnxptq.calibrators import CalibrationSamples
from onnxptq.data import Dataset
from onnxptq.recipe import Environment, Recipe
from onnxptq.tasks import Task

CHAINS = ("autocontrast", "autocontrast+invert@5")
"""Stretched copies reach both ends of what an image can hold; the inverted ones keep a set of one polarity from passing."""

COPIES = 16
"""Samples of each kind: the distortion of an input, a mean over all of its pixels, is settled by a few images."""

Array = npt.NDArray[np.float32]


def early_note(recipe: Recipe, drawn: CalibrationSamples, side: Dataset | None) -> str | None:
    """One line for a set whose inputs are too narrow, or None for a harmless one.

    What the samples become in the model's inputs is compared with that of a few samples that were not drawn and of
    stretched copies. Nothing is inferred. Sets that are dangerous further inside the model take `onnxptq audit`.

    Args:
        recipe: how the model is made; one that widens ranges by itself needs no line.
        drawn: the calibration set.
        side: the calibration side of the data, or None.
    """
    if recipe.bounds or len(recipe.environments) > 1 or recipe.environments[0].shifts:
        return None
    kept = _extremes(drawn)
    worst = max((_distortion(kept, part) for part in _probe(drawn.task, drawn, side)), default=0.0)
    if worst <= LIMIT:
        return None
    return (
        f"the calibration set {recipe.calibration} is dangerous: the range of its input{_reach(drawn.task, kept)} cuts "
        f"off {100 * min(worst, 1):.0f} % of the signal of other samples. onnxptq audit says which and what to do."
    )


def _probe(task: Task, drawn: CalibrationSamples, side: Dataset | None) -> list[list[Mapping[str, Array]]]:
    parts = [_feeds(part.samples) for part in undrawn_parts(task, side, drawn, COPIES)]
    together = [feeds for part in parts for feeds in part]
    copies = [
        _feeds(drawn.environment(Environment(chain, COPIES)))
        for chain in CHAINS
        if all(task.fits(shift) is None for shift in chain.split("+"))
    ]
    return [part for part in (together, *copies) if part]


def _feeds(samples: CalibrationSamples) -> list[Mapping[str, Array]]:
    return [{name: a for name, a in feeds.items() if a.dtype == np.float32} for _, feeds in samples]


def _extremes(samples: CalibrationSamples) -> dict[str, Interval]:
    """The range of each float input, zero included."""
    found: dict[str, Interval] = {}
    for _, feeds in samples:
        for name, array in feeds.items():
            if array.dtype == np.float32 and array.size:
                low, high = found.get(name, (0.0, 0.0))
                found[name] = min(low, float(array.min())), max(high, float(array.max()))
    return found


def _distortion(kept: Mapping[str, Interval], part: Iterable[Mapping[str, Array]]) -> float:
    """The largest over the inputs of what is lost of a part, as a share of its variance (see `Clipping`)."""
    part = list(part)
    worst = 0.0
    for name, (low, high) in kept.items():
        values = np.concatenate([feeds[name].ravel() for feeds in part]).astype(np.float64)
        variance = values.var()
        if variance > 0:
            worst = max(worst, float(((values - values.clip(low, high)) ** 2).mean() / variance))
    return worst


def _reach(task: Task, kept: Mapping[str, Interval]) -> str:
    from onnxptq.audit.bounds import input_bounds

    shares = [covered(kept[name], bound) for name, bound in input_bounds(task).items() if name in kept]
    return f", {100 * min(shares):.0f} % of what preprocessing allows," if shares else ""
