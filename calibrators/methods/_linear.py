"""A log-linear histogram resampled to bins of equal width, as searches over ranges want it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.statistics import ValueHistogram

Counts = npt.NDArray[np.int64]


def resample(histogram: ValueHistogram, edges: npt.NDArray[np.float64]) -> Counts:
    """Counts between E `edges`, int64, (E - 1,): half-open bins, the last one closed, as `numpy.histogram` has them.

    A bin that an edge cuts is split as if its values were spread evenly, and the running total is rounded, not the
    parts: no value is lost or counted twice, and only values within 2**-10 of an edge can land on its other side.
    """
    total = np.concatenate([[0], np.cumsum(histogram.counts)])
    # Bins wholly below each edge. A bin of width zero (one value) at an edge belongs to the right of it.
    below = np.searchsorted(histogram.upper, edges, side="left")
    cut = np.minimum(below, histogram.counts.size - 1)
    width = histogram.upper[cut] - histogram.lower[cut]
    part = np.divide(edges - histogram.lower[cut], width, out=np.zeros_like(edges), where=width > 0)
    running = total[below] + np.where(below < histogram.counts.size, np.clip(part, 0, 1) * histogram.counts[cut], 0)
    running = np.rint(running).astype(np.int64)
    running[0], running[-1] = 0, total[-1]
    counts: Counts = np.diff(running)
    return counts
