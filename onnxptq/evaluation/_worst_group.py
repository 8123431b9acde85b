"""The worst group and the worst tenth of groups, without rewarding or blaming a model for the noise of many groups."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.evaluation._intervals import one_sided_quantile, two_sided_quantile
from onnxptq.evaluation._source_sums import Booleans, Floats, SourceSums, full_dependence

SPLITS = 20
"""More splits change the average by less than a tenth of its standard error."""


@dataclass(frozen=True)
class CrossfitDrop:
    """The drop of the worst groups, chosen on one half of the sources and measured on the other.

    Attributes:
        value: the mean over splits and both directions; NaN where no group could be judged.
        standard_error: of `value`, with sources as independent; on the large side (see `crossfit_drop`).
        per_split: float64, (splits,): the mean of both directions of each split; NaN where it had no eligible group.
        chosen: float64, (G,): how large a part of the choices fell on each group; sums to 1.
    """

    value: float
    standard_error: float
    per_split: Floats
    chosen: Floats

    def lower_bound(self, confidence: float = 0.95) -> float:
        """The one-sided lower bound: with this confidence some group's drop is at least this large."""
        return self.value - one_sided_quantile(confidence) * self.standard_error

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The two-sided normal interval of the mean drop of the groups that were chosen.

        Its upper end does not bound the worst group: a group that the halves are too small to find is not in it.
        """
        half = two_sided_quantile(confidence) * self.standard_error
        return self.value - half, self.value + half


def sources_to_decide(tolerance: float, confidence: float = 0.95) -> int:
    """Sources that a group needs before a drop beyond `tolerance`, a fraction, can be ruled out.

    Where none of n changes, Tango's upper end is z²/(n + z²). Where predictions do change it takes more.

    Raises:
        UsageError: the tolerance is not between 0 and 1.
    """
    if not 0.0 < tolerance < 1.0:
        raise UsageError(f"the tolerance must be above 0 and below 1, got {tolerance}. Usual: 0.1.")
    return math.ceil(two_sided_quantile(confidence) ** 2 * (1.0 - tolerance) / tolerance)


def worst_weights(values: Floats, count: int) -> Floats:
    """Weights, (G,), that sum to 1 over the `count` largest values; those tied for the last places share them.

    NaN is never among them; with fewer than `count` other values all of them count. Sharing makes the result
    independent of the order of groups.
    """
    known = len(values) - int(np.isnan(values).sum())
    count = min(count, known)
    if count == 0:
        return np.zeros(len(values))
    last = np.sort(values)[known - count]  # NaN comes after all numbers, and no comparison with it holds.
    above, tied = values > last, values == last
    weights: Floats = (above + tied * ((count - above.sum()) / tied.sum())) / count
    return weights


def crossfit_drop(
    sums: SourceSums, *, eligible: Booleans | None = None, worst: int = 1, splits: int = SPLITS, seed: int = 0
) -> CrossfitDrop:
    """The worst groups' mean value, nearly unbiased: chosen on one half of the sources, measured on the other.

    The largest of many noisy drops is large by chance alone; the other half does not know which group was lucky. Each
    split halves the sources at random, both halves choose in turn, and all results are averaged. (Sample splitting:
    Cox 1975, Biometrika 62:441; both ways and averaged over splits: Chernozhukov et al. 2018, Econom. J. 21:C1.)

    The standard error is the root mean over splits of the variance of one split's score: the squares of what each
    source contributes to it (the linearised mean of a chosen group in its scoring half), all copies of a source as
    one contribution, plus one pseudo-flip in each scoring half, because a handful of flips in one direction looks more
    certain than it is. Averaging over splits can only lower the true error, so this one is too large where
    the choice wavers between groups, and right where one group is always chosen.

    Args:
        sums: sums of the drop (`reference_correct - correct`), of flips, or of another value from -1 to 1 that is worse
            when larger. (Beyond that range the pseudo-flip is no longer one, and only the standard error suffers.)
        eligible: bool, (G,): groups that may be called worst; all without it. A group with no row in a half is not
            eligible in that split.
        worst: how many groups to choose: 1, or `worst_count(...)` for the cross-fitted CVaR.
        splits: number of random halvings.
        seed: makes the splits.

    Raises:
        UsageError: `splits` or `worst` is below 1.
    """
    if splits < 1 or worst < 1:
        raise UsageError(f"splits and worst must be at least 1, got {splits} and {worst}. Usual: 20 and 1.")
    allowed = np.ones(sums.n_groups, dtype=np.bool_) if eligible is None else np.asarray(eligible, dtype=np.bool_)
    rng = np.random.default_rng(seed)
    per_split, variances = np.full(splits, np.nan), np.full(splits, np.nan)
    chosen, one_source = np.zeros(sums.n_groups), full_dependence(sums)
    for split in range(splits):
        half = np.zeros(sums.n_sources)
        half[rng.permutation(sums.n_sources)[: sums.n_sources // 2]] = 1.0
        scored = _score_halves(sums, half, allowed, worst, one_source)
        if scored is not None:
            per_split[split], variances[split], choices = scored
            chosen += choices
    if np.isnan(per_split).all():
        return CrossfitDrop(math.nan, math.nan, per_split, chosen)
    return CrossfitDrop(
        value=float(np.nanmean(per_split)),
        standard_error=float(np.sqrt(np.nanmean(variances))),
        per_split=per_split,
        chosen=chosen / chosen.sum(),
    )


def _score_halves(
    sums: SourceSums, half: Floats, allowed: Booleans, worst: int, one_source: Floats
) -> tuple[float, float, Floats] | None:
    """Chooses in each half (1 in it, 0 not, per source) and scores in the other: score, its variance, choices (G,)."""
    rows, total = sums.weighted(half)
    other_rows, other_total = sums.weighted(1.0 - half)
    usable = allowed & (rows > 0) & (other_rows > 0)
    if not usable.any():
        return None
    means, other_means = _means(total, rows, usable), _means(other_total, other_rows, usable)
    ways = ((means, other_means, other_rows, 1.0 - half), (other_means, means, rows, half))
    score = pseudo_flips = 0.0
    influence, choices = np.zeros(sums.n_sources), np.zeros(sums.n_groups)
    for choosing, scoring, scoring_rows, scoring_half in ways:
        weights = worst_weights(choosing, worst)
        picked = np.flatnonzero(weights)
        score += float(weights[picked] @ scoring[picked]) / 2.0
        pseudo_flips += float(((weights[picked] * one_source[picked] / scoring_rows[picked]) ** 2).sum())
        influence += scoring_half * _contributions(sums, weights, scoring, scoring_rows)
        choices += weights
    return score, float((influence**2).sum() + pseudo_flips) / 4.0, choices


def _means(total: Floats, rows: Floats, usable: Booleans) -> Floats:
    means = np.full(len(rows), np.nan)
    means[usable] = total[usable] / rows[usable]
    return means


def _contributions(sums: SourceSums, weights: Floats, means: Floats, rows: Floats) -> Floats:
    """What each source adds to the weighted mean of the groups, centred: float64, (S,)."""
    cells = np.flatnonzero(weights[sums.group])
    group = sums.group[cells]
    centred = sums.total[cells] - means[group] * sums.rows[cells]
    shares = weights[group] * centred / rows[group]
    return np.bincount(sums.source[cells], shares, sums.n_sources).astype(np.float64)


def worst_count(n_groups: int, fraction: float = 0.1) -> int:
    """How many groups the worst `fraction` of `n_groups` is, rounded up: ceil(fraction * n_groups).

    Raises:
        UsageError: the fraction is not above 0 and at most 1.
    """
    if not 0.0 < fraction <= 1.0:
        raise UsageError(f"the fraction of worst groups must be above 0 and at most 1, got {fraction}. Usual: 0.1.")
    # 0.1 * 70 is 7.000000000000001 in binary: that is 7 groups, not 8.
    return max(1, math.ceil(fraction * n_groups - 1e-9))


def cvar_drop(drops: npt.ArrayLike, fraction: float = 0.1) -> float:
    """Mean of the worst ceil(fraction * G) groups (conditional value at risk).

    Source: Rockafellar and Uryasev 2000, J. Risk 2:21. Biased upward by noise as the largest drop is, but less, and
    with less variance; `crossfit_drop(..., worst=worst_count(...))` is the same without that bias and with an error.

    Args:
        drops: (G,), of eligible groups only; NaN is left out.
        fraction: above 0, at most 1.

    Returns:
        The mean; NaN without groups.
    """
    values = np.asarray(drops, dtype=np.float64)
    values = values[~np.isnan(values)]
    count = worst_count(len(values), fraction)
    return float(np.sort(values)[-count:].mean()) if len(values) else math.nan
