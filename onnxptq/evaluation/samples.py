"""Evaluation samples: a dataset, clean and under each corruption, as batches that several models read side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.dataset import TRUTH, Dataset
from onnxptq.data.shifts import SHIFTS, Batch, apply_shift, parse_shift, sample_seeds
from onnxptq.errors import UsageError
from onnxptq.heads import HEADS, Truths
from onnxptq.signature import Feeds
from onnxptq.tasks import Row, Task

CLEAN = "clean"

_LOADED_AT_ONCE = 256
"""Samples read and decoded together at most: enough for vectorised corruptions."""

_LOADED_BYTES = 64 * 2**20
"""What they take at most: 111 images of 224 x 224 in color. Feeds take as much again, so memory is flat from there."""


@dataclass(frozen=True)
class EvaluationSamples:
    """What models are judged on: every sample of a dataset under every corruption.

    The row of sample `s` under corruption `c` is `c * len(dataset) + s`.

    Attributes:
        task: reads and feeds the samples.
        dataset: the evaluation side of the data.
        corruptions: "clean" and `name@severity`, in the order of the rows.
        seed: of the corruptions.
    """

    task: Task
    dataset: Dataset
    corruptions: tuple[str, ...]
    seed: int = 0

    def __len__(self) -> int:
        return len(self.dataset) * len(self.corruptions)

    def batches(self, batch_size: int) -> Iterator[tuple[npt.NDArray[np.int64], Feeds]]:
        """`(rows, feeds)` of at most `batch_size` samples each, until every row was given once."""
        for rows, feeds, _ in self.batches_with_truths(batch_size):
            yield rows, feeds

    def batches_with_truths(self, batch_size: int) -> Iterator[tuple[npt.NDArray[np.int64], Feeds, Truths]]:
        """`(rows, feeds, truths)`: as `batches`, with what the head's truth columns hold for the rows."""
        count, together_at_most = len(self.dataset), self._loaded_at_once(batch_size)
        for start in range(0, count, together_at_most):
            loaded = np.arange(start, min(start + together_at_most, count))
            rows = self.dataset.read(loaded)
            for together in self.task.loadable_together(rows):
                some = [rows[i] for i in together]
                raw = self.task.load(some)
                yield from self._corrupted(raw, loaded[together], self._truths(some, loaded[together]), batch_size)

    def _loaded_at_once(self, batch_size: int) -> int:
        """Whole batches within `_LOADED_AT_ONCE` and `_LOADED_BYTES`, by a sample of noise, and one at least."""
        raw = self.task.noise(1, 0)
        arrays = raw.values() if isinstance(raw, Mapping) else [raw]
        size = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
        most = min(_LOADED_AT_ONCE, _LOADED_BYTES // max(1, size))
        return max(1, most // batch_size) * batch_size

    def _corrupted(
        self, raw: Batch, positions: npt.NDArray[np.int64], truths: Truths, batch_size: int
    ) -> Iterator[tuple[npt.NDArray[np.int64], Feeds, Truths]]:
        """The samples at `positions`, loaded as `raw`, under each corruption."""
        for number, corruption in enumerate(self.corruptions):
            batch = raw
            if corruption != CLEAN:
                shift, severity = parse_shift(corruption)
                fingerprints = [f"{f}+{corruption}" for f in self.dataset.fingerprints[positions]]
                batch = apply_shift(
                    shift, raw, severity, sample_seeds(self.seed, fingerprints), facts=self.task.input_facts()
                )
            for together, feeds in self.task.feed_groups(batch):
                for first in range(0, len(together), batch_size):
                    part = slice(first, first + batch_size)
                    rows = number * len(self.dataset) + positions[together[part]]
                    true = {name: [values[i] for i in together[part].tolist()] for name, values in truths.items()}
                    yield rows, {name: array[part] for name, array in feeds.items()}, true

    def _truths(self, rows: Sequence[Row], positions: npt.NDArray[np.int64]) -> Truths:
        """By truth column the value of each row, None where it has none."""
        found: dict[str, Sequence[Any]] = {
            name: [row.get(TRUTH, {}).get(name) for row in rows] for name in self.task.head.truth_columns()
        }
        labels = self.dataset.labels
        found["label"] = [-1] * len(rows) if labels is None else labels[positions].tolist()
        return found

    @cached_property
    def labelled(self) -> bool:
        """Whether the data has the truth that the head's measures need, in one sample at least."""
        if not HEADS.get(self.task.head.name).measures:
            return False
        columns = self.task.head.truth_columns()
        if not columns:
            return self.dataset.labels is not None
        for start in range(0, len(self.dataset), _LOADED_AT_ONCE):
            rows = self.dataset.read(np.arange(start, min(start + _LOADED_AT_ONCE, len(self.dataset))))
            if any(row.get(TRUTH, {}).get(name) is not None for row in rows for name in columns):
                return True
        return False

    @property
    def flips(self) -> bool:
        """Whether answers are equal or different, so that flips can be counted."""
        return HEADS.get(self.task.head.name).agreement.binary

    @cached_property
    def sample_id(self) -> npt.NDArray[np.str_]:
        """str, (N,): unique also where two rows of the data have the same content."""
        names = [
            f"{i}:{f}" for i, f in zip(self.dataset.indices.tolist(), self.dataset.fingerprints.tolist(), strict=True)
        ]
        return np.asarray([f"{name}+{c}" if c != CLEAN else name for c in self.corruptions for name in names])

    def place(self, row: int) -> str:
        """Where the sample of a row lies and what was done to it, for messages: "photos: cat/3.png under dark@3"."""
        number, position = divmod(row, len(self.dataset))
        place = self.dataset.place(self.dataset.read(np.asarray([position]))[0])
        corruption = self.corruptions[number]
        return place if corruption == CLEAN else f"{place} under {corruption}"

    @cached_property
    def source_id(self) -> npt.NDArray[np.str_]:
        """str, (N,): the digest of the original sample."""
        return np.tile(self.dataset.fingerprints, len(self.corruptions))

    @cached_property
    def label(self) -> npt.NDArray[np.int64]:
        """int64, (N,): -1 without labels."""
        labels = self.dataset.labels
        if labels is None:
            labels = np.full(len(self.dataset), -1, dtype=np.int64)
        return np.tile(labels, len(self.corruptions))

    @cached_property
    def groups(self) -> dict[str, npt.NDArray[np.str_]]:
        """The dataset's group columns and "corruption", each str, (N,)."""
        columns = {name: np.tile(values, len(self.corruptions)) for name, values in self.dataset.attributes.items()}
        columns["corruption"] = np.repeat(np.asarray(self.corruptions), len(self.dataset))
        return columns


def default_corruptions(task: Task, families: frozenset[str] = frozenset()) -> tuple[str, ...]:
    """Clean, and the task's default corruptions that are not of the families used in calibration."""
    chosen = [name for name in task.evaluation_shifts() if parse_shift(name)[0].family not in families]
    return (CLEAN, *chosen)


def named_corruptions(names: tuple[str, ...], task: Task) -> tuple[str, ...]:
    """Clean, and the corruptions that a user named, as `name@severity`.

    Raises:
        UsageError: an unknown name or severity, one that does not fit the input, or one that needs a second sample.
    """
    chosen = [CLEAN]
    for name in names:
        if name == CLEAN:
            continue
        shift, severity = parse_shift(name)
        if shift.mixes:
            alone = [s.name for s in SHIFTS if not s.mixes]
            raise UsageError(
                f"{shift.name!r} mixes two samples, so its result has no label; choose of {', '.join(alone)}."
            )
        if reason := task.fits(shift.name):
            raise UsageError(f"the corruption {shift.name!r} does not fit the model's input: {reason}")
        if f"{shift.name}@{severity}" not in chosen:
            chosen.append(f"{shift.name}@{severity}")
    return tuple(chosen)
