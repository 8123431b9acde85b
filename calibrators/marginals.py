"""What an INT8 file remembers of its calibration set: the distribution of a few numbers of a sample, each by itself.

Of a table every column (the first `MOST` numbers of a sample that has few), of other float inputs the mean, deviation,
least and greatest number of a sample, of integers (token ids) the share that is not 0. `POINTS` order statistics of
each are kept, to four digits, so that no sample can be put together again from them.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from onnxptq.signature import Feeds

POINTS = 33
"""Order statistics of a number that are kept, both ends among them."""

MOST = 32
"""Numbers of a sample up to which each counts by itself, as columns of a table."""


def numbers_of(samples: Iterable[Feeds]) -> dict[str, npt.NDArray[np.float64]]:
    """By name, one number of each of N samples: float64, (N,), to four digits.

    Args:
        samples: feeds of one sample each. Text inputs and samples that lack a number of others are left out.
    """
    found: dict[str, list[float]] = {}
    count = 0
    for feeds in samples:
        count += 1
        for name, array in feeds.items():
            for what, value in _numbers(np.asarray(array)).items():
                found.setdefault(f"{name}{what}", []).append(float(f"{value:.4g}"))
    return {name: np.array(values) for name, values in sorted(found.items()) if len(values) == count}


def compressed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """`POINTS` order statistics of N values, (..., N) to (..., POINTS)."""
    return np.asarray(np.quantile(values, np.linspace(0, 1, POINTS), axis=-1, method="inverted_cdf").T)


def marginals(samples: Iterable[Feeds]) -> dict[str, list[float]]:
    """What is kept of a calibration set, as JSON types: of a number that never differs one value."""
    found = numbers_of(samples)
    return {
        name: compressed(values).tolist() if np.ptp(values) else [float(values[0])] for name, values in found.items()
    }


def _numbers(array: npt.NDArray[np.generic]) -> dict[str, float]:
    if array.dtype.kind not in "fiub" or not array.size:
        return {}
    if array.dtype.kind in "ib" and array.size > MOST:
        return {" (share not 0)": float(np.count_nonzero(array) / array.size)}
    values = array.astype(np.float64).ravel()
    if values.size <= MOST:
        return {f"[{position}]": float(value) for position, value in enumerate(values)}
    return {
        " (mean)": float(values.mean()),
        " (deviation)": float(values.std()),
        " (least)": float(values.min()),
        " (greatest)": float(values.max()),
    }
