"""Tests of paired outcomes per group: McNemar and its form for clusters, drops beyond a limit, Holm's correction."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.evaluation._intervals import restricted_gain_rate
from onnxptq.evaluation._source_sums import Floats, SourceSums, design_effects, losses_and_gains

_SMALLEST_P = 1e-12
"""Probabilities from a Fourier transform carry an absolute error of about this much; smaller ones are raised to it."""

_SAME = 1e-9
"""Sums of counts divided by a design effect that differ by less are the same number."""


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


def sign_flip_test(net_losses: npt.ArrayLike) -> float:
    """Two-sided exact p-value of equal accuracy when a source has several rows (McNemar's test by clusters).

    Under the null hypothesis the two models may swap all outcomes of a source, each with probability 1/2. The
    p-value is the share of all swaps whose net loss is at least as far from 0 as the one observed; it is summed
    exactly, by the characteristic function, not sampled. Its normal approximation is the test of Durkalski et al.
    (2003, Stat. Med. 22:2417), chi2 = (sum d)² / sum d², which needs many sources with flips. With one row a source it
    is McNemar's exact test. Values under 1e-12 are reported as 1e-12 where a source nets more than one row.

    Args:
        net_losses: (sources,): losses minus gains of each source, whole numbers.

    Raises:
        UsageError: a number is not whole.
    """
    net = np.asarray(net_losses, dtype=np.float64)
    if not (net == np.rint(net)).all():
        raise UsageError("McNemar's test needs rows that are right or wrong; this value per row is not a drop.")
    sizes, counts = np.unique(np.abs(net[net != 0]).astype(np.int64), return_counts=True)
    if not len(sizes):
        return 1.0
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

    McNemar's exact test where each source occurs once in the group, else `sign_flip_test`. An exchange of the outcomes
    of a source is what it tests, so it answers "is there a change at all", never "is the change large".
    """
    groups = np.split(drops.total, drops.first[1:])
    return np.array([sign_flip_test(net_losses) for net_losses in groups])


def exceedance_p_values(drops: SourceSums, limit: float) -> Floats:
    """One-sided p-value of "the drop is at most `limit`" for each group, not yet corrected: float64, (G,).

    The probability of a net loss as large as the one observed when the drop is exactly `limit` and the rate of gains
    is its maximum likelihood estimate under that condition (Tango 1998, Stat. Med. 17:891). It is summed from the
    distribution of losses minus gains, not from the normal curve, which is too optimistic by a factor of 3 at
    one in a thousand when flips are rare (the estimated p-value of Storer and Kim 1990, J. Am. Stat. Assoc. 85:146).
    Counts are divided by the group's design effect (Rao and Scott 1992) where a source has several rows.

    Args:
        drops: sums of `reference_correct - correct`.
        limit: the largest drop allowed, as a fraction, 0 <= limit < 1.

    Raises:
        UsageError: the limit is out of range.
    """
    if not 0.0 <= limit < 1.0:
        raise UsageError(f"a limit on the drop is a fraction from 0 to below 1, got {limit}. Two points are 0.02.")
    effect = design_effects(drops)
    losses, gains = (count / effect for count in losses_and_gains(drops))
    rows = np.maximum(np.rint(drops.group_rows / effect), 1.0)
    # Rounding the effective sample size must not push the counts above it.
    changed = np.maximum(losses + gains, 1.0)
    shrink = np.minimum(1.0, rows / changed)
    losses, gains = losses * shrink, gains * shrink
    gain_rate = restricted_gain_rate(losses, gains, rows, np.full_like(rows, limit))
    observed = np.floor(losses - gains + _SAME)
    return np.array(
        [
            _net_loss_tail(int(x), int(n), rate, rate + limit)
            for x, n, rate in zip(observed, rows, gain_rate, strict=True)
        ]
    )


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
