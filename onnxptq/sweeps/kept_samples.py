"""Evaluation samples that stay in a worker's memory, decoded and corrupted, where there are few of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxptq.evaluation import EvaluationSamples
from onnxptq.signature import Feeds

KEPT_BYTES = 64 * 2**20
"""Of feeds, in each worker: 1,700 images of 32 x 32 under three corruptions. Decoding and corrupting them costs a small
net as much as three predictions do, once a job; larger nets, on larger images, do not notice it."""

Batch = tuple[npt.NDArray[np.int64], Feeds]


@dataclass(frozen=True)
class KeptSamples(EvaluationSamples):
    """Samples whose batches are made once, as long as all of them fit into `KEPT_BYTES`."""

    _kept: dict[int, list[Batch]] = field(default_factory=dict, compare=False, repr=False)

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """As `EvaluationSamples.batches`."""
        if batch_size in self._kept:
            yield from self._kept[batch_size]
            return
        gathered: list[Batch] | None = []
        size = 0
        for rows, feeds in super().batches(batch_size):
            size += sum(array.nbytes for array in feeds.values())
            if gathered is not None and size <= KEPT_BYTES:
                gathered.append((rows, feeds))
            else:
                gathered = None
            yield rows, feeds
        if gathered is not None:
            self._kept.clear()  # Models of one job have one batch size; another one is rare.
            self._kept[batch_size] = gathered
