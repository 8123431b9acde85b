"""Tests of paired scores per group: McNemar, sign flips of sources, drops beyond a limit, Holm's correction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.evaluation._intervals import restricted_gain_rate
from onnxptq.evaluation._source_sums import (
    Floats,
    SourceSums,
    centered,
    design_effects,
    losses_and_gains,
    medians,
    standard_errors,
)
from onnxptq.evaluation._student import student_tail

_SMALLEST_P = 1e-12
"""Probabilities from a Fourier transform carry an absolute error of about this much; smaller ones are raised to it."""

_SAME = 1e-9
"""Sums of counts divided by a design effect that differ by less are the same number."""


SIGN_FLIPS = 9_999
"""Random swaps of a test of graded scores: p is then known within .004 at .05."""

_MOST_SIGN_FLIPS = 99_999
_ALL_SWAPS = 13
"""Sources up to which all swaps are gone through: 8,192 of them, fewer than random ones."""

_SIGNS_AT_ONCE = 4_000_000
"""36 MB of signs."""


def mcnemar(losses: int, gains: int) -> float:
    """Two-sided p-value of equal accuracy, exact (McNemar 1947, Psychometrika 12:153, binomial form).

    Args:
        losses: pairs that the reference has right and the other wrong, b.
        gains: pairs that the other has right and the reference wrong, c.
    """
    n, smaller = losses + gains, min(losses, gains)
    if losses == gains:
        return 1.0
    # log of n! / (k! (n - k)!) for k = 0..smaller, built up so that no factorial overflows
    k = np.arange(1, smaller + 1, dtype=np.float64)
    log_choose = np.concatenate([[0.0], np.cumsum(np.log((n - k + 1.0) / k))])
    largest = log_choose[-1]
    log_tail = largest + np.log(np.exp(log_choose - largest).sum()) - n * np.log(2.0)
    return float(min(1.0, 2.0 * np.exp(log_tail)))


def sign_flip_test(net_losses: npt.ArrayLike, *, flips: int = SIGN_FLIPS, seed: int = 0) -> float:
    """Two-sided p-value of "no difference" when the two models may swap all scores of a source.

    Under the null hypothesis each source swaps with probability 1/2. The p-value is the share of all swaps whose net
    loss is at least as far from 0 as the one observed (Fisher 1935, The Design of Experiments, section 21).

    Whole net losses (rows that are right or wrong) are summed exactly, by the characteristic function. With one row a
    source this is McNemar's exact test; the normal approximation is the test of Durkalski et al. (2003, Stat. Med.
    22:2417), chi2 = (sum d)² / sum d², which needs many sources with flips. Values under 1e-12 are reported as 1e-12
    where a source nets more than one row.

    Other net losses (graded scores) go through all swaps of up to 13 sources, and through random ones of more, with
    the observed one counted among them (Phipson and Smyth 2010), so that the p-value is at least 1 / (1 + flips).

    Args:
        net_losses: (sources,): losses minus gains of each source, finite.
        flips: random swaps.
        seed: of the random swaps.
    """
    net = np.asarray(net_losses, dtype=np.float64)
    net = net[net != 0]
    if not len(net):
        return 1.0
    if (net == np.rint(net)).all():
        return _whole_sign_flips(net)
    if len(net) <= _ALL_SWAPS:
        return float(_as_far(net, _every_pattern(len(net))).mean())
    rng = np.random.default_rng(seed)
    block = max(1, _SIGNS_AT_ONCE // len(net))
    beyond = 0
    for first in range(0, flips, block):
        signs = rng.integers(0, 2, size=(min(block, flips - first), len(net)), dtype=np.int8)
        beyond += int(_as_far(net, signs).sum())
    return (1 + beyond) / (1 + flips)


def _as_far(net: Floats, kept: npt.NDArray[np.int8]) -> npt.NDArray[np.bool_]:
    """Whether each swap is as far from 0 as `net.sum()`; `kept` (swaps, sources) says which keep their sign."""
    total = net.sum()
    # The order of summation differs, so that equal sums may differ in the last bits.
    swapped: npt.NDArray[np.bool_] = np.abs(2.0 * (kept @ net) - total) >= abs(total) - _SAME * np.abs(net).sum()
    return swapped


def _every_pattern(length: int) -> npt.NDArray[np.int8]:
    """All patterns of 0 and 1: int8, (2 ** length, length)."""
    return (np.arange(2**length)[:, None] >> np.arange(length) & 1).astype(np.int8)


def _whole_sign_flips(net: Floats) -> float:
    """The exact p-value for whole numbers other than 0."""
    sizes, counts = np.unique(np.abs(net).astype(np.int64), return_counts=True)
    if sizes[-1] == 1:
        return mcnemar(int((net > 0).sum()), int((net < 0).sum()))
    largest = int((sizes * counts).sum())
    length = 2 * largest + 1
    angle = 2.0 * np.pi * np.arange(largest + 1) / length
    characteristic = np.prod([np.cos(size * angle) ** count for size, count in zip(sizes, counts, strict=True)], axis=0)
    probability = np.fft.irfft(characteristic, n=length)
    observed = int(abs(net.sum()))
    if observed == 0:
        return 1.0
    return float(np.clip(2.0 * probability[observed : largest + 1].sum(), _SMALLEST_P, 1.0))


def equality_p_values(drops: SourceSums) -> Floats:
    """p-value of "no difference" for each group, not yet corrected for many groups: float64, (G,).

    `sign_flip_test` of the net loss of each source; McNemar's exact test where rows are right or wrong and each source
    occurs once in the group. An exchange of the scores of a source is what it tests, so it answers "is there a change
    at all", never "is the change large".
    """
    # Corrected for so many groups, the smallest p-value that random swaps can give must still be able to tell.
    flips = min(max(SIGN_FLIPS, 200 * drops.n_groups), _MOST_SIGN_FLIPS)
    return np.array([sign_flip_test(net_losses, flips=flips) for net_losses in np.split(drops.total, drops.first[1:])])


def exceedance_p_values(drops: SourceSums, limit: float) -> Floats:
    """One-sided p-value of "the drop is at most `limit`" for each group, not yet corrected: float64, (G,).

    The probability of a net loss as large as the one observed when the drop is exactly `limit` and the rate of gains
    is its maximum likelihood estimate under that condition (Tango 1998, Stat. Med. 17:891). It is summed from the
    distribution of losses minus gains, not from the normal curve, which is too optimistic by a factor of 3 at
    one in a thousand when flips are rare (the estimated p-value of Storer and Kim 1990, J. Am. Stat. Assoc. 85:146).
    Counts are divided by the group's design effect (Rao and Scott 1992) where a source has several rows.

    For graded scores it is the larger of two: that of the differences to the group's median drop, with their first two
    moments, and that of Student's t by source (`graded_interval` says why).

    Args:
        drops: sums of the reference's score minus the model's.
        limit: the largest drop allowed, as a fraction, 0 <= limit < 1.

    Raises:
        UsageError: the limit is out of range.
    """
    if not 0.0 <= limit < 1.0:
        raise UsageError(f"a limit on the drop is a fraction from 0 to below 1, got {limit}. Two points are 0.02.")
    if drops.binary:
        return _net_loss_p_values(drops, np.full(drops.n_groups, limit))
    center = medians(drops)
    reach = 1.0 + np.abs(center)
    p_values = _net_loss_p_values(centered(drops, center, reach), (limit - center) / reach)
    return np.maximum(p_values, _student_p_values(drops, limit))


def _net_loss_p_values(drops: SourceSums, limits: Floats) -> Floats:
    """The probability of a net loss as large as the one observed when the drop is the limit: float64, (G,)."""
    effect = design_effects(drops)
    losses, gains = (count / effect for count in losses_and_gains(drops))
    rows = np.maximum(np.rint(drops.group_rows / effect), 1.0)
    # Rounding the effective sample size must not push the counts above it.
    changed = np.maximum(losses + gains, 1.0)
    shrink = np.minimum(1.0, rows / changed)
    losses, gains = losses * shrink, gains * shrink
    gain_rate = restricted_gain_rate(losses, gains, rows, limits)
    observed = np.floor(losses - gains + _SAME)
    return np.array(
        [
            _net_loss_tail(int(x), int(n), rate, rate + limit)
            for x, n, rate, limit in zip(observed, rows, gain_rate, limits, strict=True)
        ]
    )


def _student_p_values(drops: SourceSums, limit: float) -> Floats:
    """One-sided p-values of "the mean is at most `limit`" by Student's t over sources: float64, (G,)."""
    above, errors = drops.group_means - limit, standard_errors(drops)
    t = np.divide(above, errors, out=np.where(above > 0, np.inf, -np.inf), where=errors > 0)
    return np.maximum(student_tail(t, np.maximum(drops.group_sources - 1, 1)), _SMALLEST_P)


def _net_loss_tail(observed: int, n: int, gain_rate: float, loss_rate: float) -> float:
    """P(losses - gains >= observed) in `n` independent rows."""
    length = 2 * n + 1
    angle = 2.0 * np.pi * np.arange(n + 1) / length
    one_row = 1.0 - gain_rate - loss_rate + loss_rate * np.exp(-1j * angle) + gain_rate * np.exp(1j * angle)
    probability = np.fft.irfft(one_row**n, n=length)  # entry k is P(net = k), negative k from the end
    tail = probability[observed : n + 1].sum()
    if observed < 0:
        tail = probability[observed:].sum() + probability[: n + 1].sum()
    return float(np.clip(tail, _SMALLEST_P, 1.0))


def holm(p_values: npt.ArrayLike) -> Floats:
    """p-values corrected for their number, step-down (Holm 1979, Scand. J. Stat. 6:65): float64, same order.

    Rejecting where the result is at most alpha errs anywhere with probability alpha at most, whatever the dependence.
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted
