"""A dataset: samples in a fixed order, with labels (or none), attributes to group by, and the digest of each sample."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int64]


TRUTH = "_truth"
"""The key of a row under which its truth lies, {column: value}, where the source has truth beside labels."""


def name_split(source: str, split: str | None) -> str:
    """What messages call one split of a source: "photos [train]", or "photos" where it has no named splits."""
    return f"{source} [{split}]" if split else source


class Rows(Protocol):
    """Random access to raw rows that need not fit in memory."""

    def __call__(self, indices: Indices) -> list[dict[str, Any]]:
        """The rows at `indices`, in that order. Each has the task's input columns, "_name" for messages, and under
        `TRUTH` the columns of the truth where the source has any."""
        ...


@dataclass(frozen=True)
class Dataset:
    """Samples of one split of one source.

    Attributes:
        source: as the user wrote it, for messages.
        split: the name of the split, or None where the source has none.
        rows: reads raw rows.
        indices: int64, (N,): which rows of the source these are.
        labels: int64, (N,): index into `label_names`, or None without labels.
        label_names: the classes, in the order of the model's output where that is known.
        attributes: group columns, each str, (N,); "label" is among them when there are labels.
        fingerprints: str, (N,): digest of each sample's input content (not of its label); equal content, equal digest.
        truths: str, (N,): digest of what each sample has under `TRUTH`, or None where none has anything.
    """

    source: str
    split: str | None
    rows: Rows
    indices: Indices
    labels: npt.NDArray[np.int64] | None
    label_names: tuple[str, ...]
    attributes: Mapping[str, npt.NDArray[np.str_]]
    fingerprints: npt.NDArray[np.str_]
    truths: npt.NDArray[np.str_] | None = None

    def __len__(self) -> int:
        return len(self.indices)

    def read(self, positions: Indices) -> list[dict[str, Any]]:
        """The raw rows at `positions`, which count from 0 to len(self) - 1."""
        return self.rows(self.indices[positions])

    def place(self, row: Mapping[str, Any]) -> str:
        """Where a row that was read lies, for messages: "photos [train]: cat/3.png", "table.csv: row 3"."""
        return f"{name_split(self.source, self.split)}: {row['_name']}"

    def select(self, positions: Indices) -> Dataset:
        """The samples at `positions`, in that order."""
        return replace(
            self,
            indices=self.indices[positions],
            labels=None if self.labels is None else self.labels[positions],
            attributes={name: values[positions] for name, values in self.attributes.items()},
            fingerprints=self.fingerprints[positions],
            truths=None if self.truths is None else self.truths[positions],
        )

    @cached_property
    def digest(self) -> str:
        """Digest of content, labels and attributes, in order: 64 hexadecimal digits of SHA-256."""
        state = hashlib.sha256()
        columns: Sequence[npt.NDArray[Any]] = [self.fingerprints]
        if self.labels is not None:
            columns = [*columns, self.labels]
        if self.truths is not None:
            columns = [*columns, self.truths]
        for name in sorted(self.attributes):
            state.update(name.encode() + b"\0")
            columns = [*columns, self.attributes[name]]
        for column in columns:
            state.update("\n".join(map(str, column.tolist())).encode() + b"\0")
        return state.hexdigest()
