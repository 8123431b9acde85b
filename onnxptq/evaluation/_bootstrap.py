"""The bootstrap by source: resample original samples with all their copies, never rows (Efron 1979, Ann. Stat. 7:1)."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.evaluation._intervals import check_confidence
from onnxptq.evaluation._source_sums import Floats, SourceSums

REPLICATES = 1000
"""Enough for the ends of a 95 % interval to hold within a tenth of its width."""


_KEPT_SOURCES = 50_000
"""50 MB of resamples."""

_BLOCK = 50
"""Replicates that are worked on together: 400 bytes of weights a source."""


@dataclass(frozen=True)
class BootstrapMeans:
    """What resampling leaves of the means.

    Attributes:
        groups: float64, (replicates, G): the mean of each group; NaN where the resample has no row of it.
        overall: float64, (replicates,): the mean over all rows.
    """

    groups: Floats
    overall: Floats


def resampling_weights(n_sources: int, replicates: int, seed: int) -> Iterator[Floats]:
    """How often each source is drawn in each replicate (multinomial): `replicates` float64 arrays, (n_sources,).

    Raises:
        UsageError: `replicates` is below 1.
    """
    if replicates < 1:
        raise UsageError(f"the number of bootstrap replicates must be at least 1, got {replicates}. Usual: 1000.")
    rng = np.random.default_rng(seed)
    for _ in range(replicates):
        drawn = rng.integers(n_sources, size=n_sources)
        yield np.bincount(drawn, minlength=n_sources).astype(np.float64)


def bootstrap_means(sums: SourceSums, replicates: int = REPLICATES, seed: int = 0) -> BootstrapMeans:
    """Means of groups and of all rows in resamples of the sources.

    The same seed draws the same sources whatever the value, so replicates of two `SourceSums` over the same rows are
    paired. One replicate is worked on at a time: memory is the result, 8 bytes for each replicate and group
    (8 MB for 1,000 groups), plus a few numbers per cell.
    """
    groups = np.empty((replicates, sums.n_groups))
    overall = np.empty(replicates)
    for i, weights in enumerate(resampling_weights(sums.n_sources, replicates, seed)):
        rows, total = sums.weighted(weights)
        groups[i] = np.divide(total, rows, out=np.full(sums.n_groups, np.nan), where=rows > 0)
        overall[i] = weights @ sums.all_total / (weights @ sums.all_rows)
    return BootstrapMeans(groups, overall)


def bootstrap_mean(sums: SourceSums, seed: int = 0) -> Floats:
    """`bootstrap_means(sums, REPLICATES, seed).overall` alone: float64, (REPLICATES,), without looking at groups.

    Resamples depend on the number of sources and the seed only, and those of the last call are kept where they are
    small (1 byte for each replicate and source): the models of a sweep, judged on the same sources, are resampled once.
    """
    if sums.n_sources > _KEPT_SOURCES:
        weights = resampling_weights(sums.n_sources, REPLICATES, seed)
        return np.array([(one @ sums.all_total) / (one @ sums.all_rows) for one in weights])
    overall = np.empty(REPLICATES)
    for first in range(0, REPLICATES, _BLOCK):
        block = _drawn(sums.n_sources, seed)[first : first + _BLOCK].astype(np.float64)
        overall[first : first + _BLOCK] = (block @ sums.all_total) / (block @ sums.all_rows)
    return overall


@functools.lru_cache(maxsize=1)
def _drawn(n_sources: int, seed: int) -> npt.NDArray[np.uint8]:
    """The weights of all replicates: uint8, (REPLICATES, n_sources). 255 draws of one source do not happen."""
    return np.stack([one.astype(np.uint8) for one in resampling_weights(n_sources, REPLICATES, seed)])


def percentile_interval(replicates: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Two-sided percentile interval along the first axis, NaN left out (Efron and Tibshirani 1993, chapter 13).

    It has no width where no replicate differs, as in a group without flips: that is the bootstrap's blindness, not
    certainty (`drop_interval` does not share it). Not for the largest drop or the CVaR: resampling noise pushes
    extremes further up, and the interval then lies wholly above the truth (`crossfit_drop` does not do that).
    """
    check_confidence(confidence)
    tail = (1.0 - confidence) / 2.0
    quantile = np.nanquantile if np.isnan(replicates).any() else np.quantile
    low, high = quantile(replicates, [tail, 1.0 - tail], axis=0)
    return np.asarray(low), np.asarray(high)
