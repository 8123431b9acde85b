"""What every kind of source is turned into before labels, attributes and digests are settled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxptq.data.dataset import Rows

SPLIT_NAMES = {
    "train": "train", "training": "train",
    "validation": "validation", "valid": "validation", "val": "validation", "dev": "validation",
    "test": "test", "testing": "test", "eval": "test", "evaluation": "test",
}  # fmt: skip
"""Words for a split in the names of files, folders and arrays, and the split that each stands for."""


@dataclass(frozen=True)
class RawSplit:
    """One split as its reader sees it.

    Attributes:
        rows: reads raw rows.
        count: number of rows.
        labels: one label a row as the source has it, or None without a label column.
        declared: the class names into which integer labels point, where the source declares them.
        attributes: group columns, one value a row each.
        skipped: a line for each sample that was left out before there were rows.
    """

    rows: Rows
    count: int
    labels: Sequence[Any] | None
    declared: tuple[str, ...] | None
    attributes: Mapping[str, Sequence[Any]]
    skipped: tuple[str, ...] = ()
