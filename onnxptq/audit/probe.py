"""What a calibration set is held against: samples not drawn, by group, and augmented copies of those drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators import CalibrationSamples
from onnxptq.data import Dataset
from onnxptq.recipe import Environment
from onnxptq.tasks import Task

UNDRAWN = 128
"""Samples of the probe that were not drawn: as many as a calibration set has."""

DECISIONS = 600
"""Samples that were not drawn whose predictions are looked at: a share of one group of ten is then known to some 5
points, and they only pass through the model."""

COPIES = 32
"""Drawn samples that each augmentation copies; a range is found with few, and each costs an inference."""

GROUPS = 24
"""Groups up to which the probe keeps them apart: with more, each would be a handful of samples."""


@dataclass(frozen=True)
class ProbePart:
    """Samples that are looked at together.

    Attributes:
        name: a group, or a chain of shifts.
        kind: "undrawn", "evaluation" or "augmented".
        samples: as the calibration pass takes them.
    """

    name: str
    kind: str
    samples: CalibrationSamples


def undrawn_parts(
    task: Task, side: Dataset | None, drawn: CalibrationSamples, count: int = UNDRAWN, kind: str = "undrawn"
) -> tuple[ProbePart, ...]:
    """Samples of the calibration side that were not drawn, as they are, in equal shares of each group.

    Args:
        task: reads them.
        side: the calibration side, or None where there is no data.
        drawn: the calibration set; its seed decides which samples are taken.
        count: samples in all, rounded to at least one of each group.
        kind: what the parts are called: samples to judge on are taken in the same way.
    """
    if side is None:
        return ()
    # By content and not by row, as the calibration set is drawn.
    free = np.argsort(side.fingerprints, kind="stable")
    if drawn.dataset is not None:
        free = free[~np.isin(side.fingerprints[free], drawn.dataset.fingerprints)]
    free = np.random.default_rng(drawn.seed).permutation(free)
    names = _groups(side)
    parts = []
    known = np.unique(names[free])
    for name in known:
        positions = free[names[free] == name][: max(1, count // len(known))]
        part = CalibrationSamples(task, side.select(positions), len(positions), drawn.seed, ())
        parts.append(ProbePart(str(name), kind, part))
    return tuple(parts)


def augmented_parts(task: Task, drawn: CalibrationSamples) -> tuple[ProbePart, ...]:
    """Copies of the first drawn samples under each chain of shifts that the robust methods calibrate with."""
    return tuple(
        ProbePart(chain, "augmented", drawn.environment(Environment(chain, COPIES))) for chain in task.augmentations()
    )


def _groups(side: Dataset) -> npt.NDArray[np.str_]:
    """The group of each sample: all attributes crossed where that makes few, else the label, else one for all."""
    for names in (sorted(side.attributes), ["label"]):
        if names and set(names) <= side.attributes.keys():
            columns = [[f"{name}={value}" for value in side.attributes[name].tolist()] for name in names]
            crossed = np.array(["*".join(values) for values in zip(*columns, strict=True)])
            if len(np.unique(crossed)) <= GROUPS:
                return crossed
    return np.full(len(side), "all")
