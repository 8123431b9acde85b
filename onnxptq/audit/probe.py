"""What a calibration set is held against: samples that were not drawn, by group, and augmented copies of those that were."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxptq.calibrators import CalibrationSamples
from onnxptq.data import Dataset
from onnxptq.recipe import Environment
from onnxptq.tasks import Task

UNDRAWN = 128
"""Samples of the probe that were not drawn: as many as a calibration set has."""

COPIES = 32
"""Drawn samples that each augmentation copies; a range is found with few samples, and each costs a pass of inference."""

GROUPS = 24
"""Groups up to which the probe keeps them apart: with more, each would be a handful of samples."""

IMAGE_AUGMENTATIONS = (
    "autocontrast",
    "autocontrast+invert@5",
    "autocontrast+cutout",
    "blur@5+autocontrast",
    "permute_channels",
    "mixup",
    "jitter@5",
)
"""Chains that undo what narrows a range: stretching undoes darkness and low contrast; of noise, a blur makes shapes."""


TENSOR_AUGMENTATIONS = ("tensor_noise@3",)
"""For inputs that are not images: what they may hold is known to nobody, so copies stay near the samples."""


def augmentations(task: Task) -> tuple[str, ...]:
    """The chains of shifts that copies of the set are made with."""
    return IMAGE_AUGMENTATIONS if task.modality == "image" else TENSOR_AUGMENTATIONS


@dataclass(frozen=True)
class ProbePart:
    """Samples that are looked at together.

    Attributes:
        name: a group, or a chain of shifts.
        kind: "undrawn" or "augmented".
        samples: as the calibration pass takes them.
    """

    name: str
    kind: str
    samples: CalibrationSamples


def undrawn_parts(
    task: Task, side: Dataset | None, drawn: CalibrationSamples, count: int = UNDRAWN
) -> tuple[ProbePart, ...]:
    """Samples of the calibration side that were not drawn, as they are, in equal shares of each group.

    Args:
        task: reads them.
        side: the calibration side, or None where there is no data.
        drawn: the calibration set; its seed decides which samples are taken.
        count: samples in all, rounded to at least one of each group.
    """
    if side is None:
        return ()
    taken = [] if drawn.dataset is None else drawn.dataset.fingerprints
    # By content and not by row, as the calibration set is drawn.
    order = np.argsort(side.fingerprints, kind="stable")
    free = order[~np.isin(side.fingerprints[order], taken)]
    free = np.random.default_rng(drawn.seed).permutation(free)
    names = _groups(side)
    parts = []
    known = np.unique(names[free])
    for name in known:
        positions = free[names[free] == name][: max(1, count // len(known))]
        part = CalibrationSamples(task, side.select(positions), len(positions), drawn.seed, ())
        parts.append(ProbePart(str(name), "undrawn", part))
    return tuple(parts)


def augmented_parts(task: Task, drawn: CalibrationSamples, chains: Sequence[str]) -> tuple[ProbePart, ...]:
    """Copies of the first drawn samples under each chain of shifts that fits the input."""
    return tuple(
        ProbePart(chain, "augmented", drawn.environment(Environment(chain, COPIES)))
        for chain in chains
        if all(task.fits(shift) is None for shift in chain.split("+"))
    )


def _groups(side: Dataset) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    """The group of each sample: all attributes crossed where that makes few groups, else the label, else one for all."""
    columns = [np.char.add(f"{name}=", values.astype(str)) for name, values in sorted(side.attributes.items())]
    crossed = columns[0] if columns else None
    for column in columns[1:]:
        crossed = np.char.add(np.char.add(crossed, "*"), column)
    label = side.attributes.get("label")
    for names in (crossed, None if label is None else np.char.add("label=", label.astype(str))):
        if names is not None and len(np.unique(names)) <= GROUPS:
            return names
    return np.full(len(side), "all")
