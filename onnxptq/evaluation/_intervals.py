"""Intervals for proportions and for differences of paired proportions, in closed form or by bisection."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.evaluation._source_sums import (
    Floats,
    SourceSums,
    centered,
    design_effects,
    losses_and_gains,
    medians,
    standard_errors,
)
from onnxptq.evaluation._student import student_quantile

_BISECTIONS = 60
"""Halvings of [-1, 1]: the bound is then exact to the last bits of a float64."""


def check_confidence(confidence: float) -> None:
    """Raises UsageError unless 0 < confidence < 1."""
    if not 0.0 < confidence < 1.0:
        raise UsageError(f"a confidence must lie between 0 and 1, got {confidence}. Usual: 0.95.")


def one_sided_quantile(confidence: float) -> float:
    """Standard errors between an estimate and its one-sided bound: 1.645 for 0.95."""
    check_confidence(confidence)
    return NormalDist().inv_cdf(confidence)


def two_sided_quantile(confidence: float) -> float:
    """Standard errors between an estimate and either end of its interval: 1.960 for 0.95."""
    check_confidence(confidence)
    return NormalDist().inv_cdf((1.0 + confidence) / 2.0)


def wilson_interval(successes: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Two-sided score interval of a proportion (Wilson 1927, J. Am. Stat. Assoc. 22:209).

    Args:
        successes: number or array. Divide it and `n` by the design effect where a source occurs more than once.
        n: number or array of trials; n = 0 gives (0, 1).
        confidence: between 0 and 1.

    Returns:
        Lower and upper bounds, float64, of the broadcast shape.
    """
    z = two_sided_quantile(confidence)
    successes, n = np.broadcast_arrays(np.asarray(successes, dtype=np.float64), np.asarray(n, dtype=np.float64))
    trials = np.where(n > 0, n, 1.0)
    proportion = np.where(n > 0, successes / trials, 0.5)
    scale = 1.0 + z**2 / trials
    middle = (proportion + z**2 / (2.0 * trials)) / scale
    half = z / scale * np.sqrt(proportion * (1.0 - proportion) / trials + z**2 / (4.0 * trials**2))
    low = np.where(successes <= 0, 0.0, middle - half)
    high = np.where(successes >= n, 1.0, middle + half)
    return np.where(n > 0, low, 0.0), np.where(n > 0, high, 1.0)


def restricted_gain_rate(losses: Floats, gains: Floats, n: Floats, drop: Floats) -> Floats:
    """Maximum likelihood estimate of the rate of gains when the rate of losses is that plus `drop` (Tango 1998)."""
    linear = (2.0 * n - losses + gains) * drop - losses - gains
    constant = -gains * drop * (1.0 - drop)
    root = np.sqrt(np.maximum(linear**2 - 8.0 * n * constant, 0.0))
    rate = (root - linear) / (4.0 * n)
    return np.clip(rate, np.maximum(0.0, -drop), (1.0 - drop) / 2.0)


def paired_drop_interval(
    losses: npt.ArrayLike, gains: npt.ArrayLike, n: npt.ArrayLike, confidence: float = 0.95
) -> tuple[Floats, Floats]:
    """Two-sided score interval of a drop between paired proportions (Tango 1998, Stat. Med. 17:891).

    It keeps an honest width where the bootstrap cannot: a group without a single flip gets (-z²/(n+z²), z²/(n+z²)).

    Args:
        losses: rows that the reference has right and the other wrong; number or array, need not be whole.
        gains: rows that the other has right and the reference wrong.
        n: all rows, above 0. Divide the three by the design effect where a source occurs more than once.
        confidence: between 0 and 1. One bound alone holds with (1 + confidence) / 2.

    Returns:
        Lower and upper bounds of (losses - gains) / n, float64, of the broadcast shape.
    """
    z = two_sided_quantile(confidence)
    b, c, rows = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (losses, gains, n)))
    observed = (b - c) / rows

    # Both bounds at once: side is the sign of the score that each may not exceed, outside the end that it starts from.
    side = np.array([-1.0, 1.0]).reshape(2, *[1] * observed.ndim)
    inside, outside = np.stack([observed, observed]), np.broadcast_to(side, (2, *observed.shape))
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2.0
        gain = restricted_gain_rate(b, c, rows, middle)
        variance = rows * (2.0 * gain + middle * (1.0 - middle))
        accepted = side * (rows * middle - (b - c)) <= z * np.sqrt(np.maximum(variance, 0.0))
        inside, outside = np.where(accepted, middle, inside), np.where(accepted, outside, middle)
    return inside[0], inside[1]


def mean_interval(sums: SourceSums, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Interval of each group's mean score or rate: lower and upper bounds, float64, (G,), from 0 to 1.

    Wilson's interval of a proportion where the value is 0 or 1 (`correct`, `flipped`), else `graded_interval`.

    Args:
        sums: sums of a value from 0 to 1. Counts are divided by the group's design effect.
        confidence: between 0 and 1.
    """
    if not sums.binary:
        low, high = graded_interval(sums, medians(sums), np.ones(sums.n_groups), confidence)
        return np.maximum(low, 0.0), np.minimum(high, 1.0)
    effect = design_effects(sums)
    return wilson_interval(sums.by_group(sums.total) / effect, sums.group_rows / effect, confidence)


def drop_interval(drops: SourceSums, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Interval of each group's drop: lower and upper bounds, float64, (G,), from -1 to 1.

    Tango's interval where rows are right or wrong; `graded_interval` of other scores.

    Each bound holds alone with (1 + confidence) / 2. The largest upper bound over groups bounds the worst group's drop
    with that confidence, however many groups there are (each group must pass: Berger 1982, Technometrics 24:295).

    Args:
        drops: sums of the reference's score minus the model's. Counts are divided by the group's design effect.
        confidence: between 0 and 1.
    """
    if drops.binary:
        return _tango(drops, confidence)
    center = medians(drops)
    low, high = graded_interval(drops, center, 1.0 + np.abs(center), confidence)
    return np.maximum(low, -1.0), np.minimum(high, 1.0)


def graded_interval(sums: SourceSums, center: Floats, reach: Floats, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Interval of each group's mean of a bounded value: lower and upper bounds, float64, (G,).

    Its ends are the outer ones of two intervals. Student's t by source knows nothing of a rare large change that no
    source shows. Tango's interval of the differences to the center, with their first two moments, leaves room for one,
    but its low end is too high where few rows lose much (docs/statistics.md has both rates). With 0 as the center, a
    rare loss among many small gains would be missed.

    Args:
        sums: sums of the value.
        center: float64, (G,): what most rows have, the median.
        reach: float64, (G,): the largest difference to the center that there can be.
        confidence: between 0 and 1.
    """
    tango = _tango(centered(sums, center, reach), confidence)
    student = student_interval(sums, confidence)
    return np.minimum(center + reach * tango[0], student[0]), np.maximum(center + reach * tango[1], student[1])


def student_interval(sums: SourceSums, confidence: float = 0.95) -> tuple[Floats, Floats]:
    """Student's t interval of each group's mean, sources as independent: lower and upper bounds, float64, (G,).

    Infinite where a group has one source; without width where all its sources do the same.
    """
    check_confidence(confidence)
    degrees = np.maximum(sums.group_sources - 1, 1)
    half = student_quantile((1.0 + confidence) / 2.0, degrees) * standard_errors(sums)
    return sums.group_means - half, sums.group_means + half


def _tango(drops: SourceSums, confidence: float) -> tuple[Floats, Floats]:
    effect = design_effects(drops)
    losses, gains = losses_and_gains(drops)
    return paired_drop_interval(losses / effect, gains / effect, drops.group_rows / effect, confidence)
