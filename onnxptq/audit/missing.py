"""Which groups of the data a calibration set leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxptq.data import Dataset

FEW = 20
"""Values of an attribute up to which it makes groups. Names and identifiers have one value a sample."""


@dataclass(frozen=True)
class MissingGroups:
    """The values of one attribute that no drawn sample has.

    Attributes:
        attribute: the group column, for example "label".
        values: those that are missing, in order.
        of: how many values the data has.
    """

    attribute: str
    values: tuple[str, ...]
    of: int


def missing_groups(side: Dataset, drawn: Dataset | None) -> tuple[MissingGroups, ...]:
    """What the drawn samples lack of `side`, the calibration side; nothing for noise, which is of no group."""
    if drawn is None:
        return ()
    found = []
    for name in sorted(side.attributes):
        known = np.unique(side.attributes[name])
        if 1 < len(known) <= max(FEW, len(side) // FEW) and name in drawn.attributes:
            lacking = known[~np.isin(known, drawn.attributes[name])]
            if len(lacking):
                found.append(MissingGroups(name, tuple(map(str, lacking)), len(known)))
    return tuple(found)
