"""The default policy of `onnxptq check` on many simulated data sets at once: how benchmarks/gate.py counts verdicts.

Groups are disjoint and each source occurs once, so that a data set is nothing but the losses and gains of each group,
and thousands are judged in a second. `agreement` holds it against `onnxptq.gates.rules.judge`, draw by draw; only the
random halvings of the cross-fitted drop differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.evaluation.statistics import SPLITS, paired_drop_interval
from onnxptq.gates.policy import AVERAGE_MARGIN, GROUP_MARGIN, default_policy, tolerated

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

POLICY = default_policy(labelled=True)
AVERAGE, WORST = POLICY.average_drop, POLICY.worst_group_drop
Z = {0.95: 1.6448536269514722, 0.975: 1.959963984540054}

FAILED, UNDECIDED, PASSED = 0, 1, 2


@dataclass(frozen=True)
class Draws:
    """Simulated data sets.

    Attributes:
        losses, gains: int64, (R, G): of each group of each data set.
        n: sources of each group.
    """

    losses: Counts
    gains: Counts
    n: int


def draw(rng: np.random.Generator, repeats: int, n: int, drops: Floats, flips: float) -> Draws:
    """Data sets in which group g loses `drops[g]`, and `flips` of all predictions flip besides, half of them each way.

    Args:
        rng: draws.
        repeats: how many data sets, R.
        n: sources of each group.
        drops: float64, (G,).
        flips: share of predictions.
    """
    loss = drops + flips / 2
    losses = rng.binomial(n, np.broadcast_to(loss, (repeats, len(drops))))
    gains = rng.binomial(n - losses, (flips / 2) / (1 - loss))
    return Draws(losses.astype(np.int64), gains.astype(np.int64), n)


def verdicts(draws: Draws, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """The verdicts before and after: int64, (R,) each; FAILED, UNDECIDED or PASSED.

    Before: each rule a test at 95 %, and whatever does not fail passes. After: the two rules share the error rate (with
    two, Holm's procedure rejects any exactly where one is rejected at half the rate), and a pass needs the tolerances.
    """
    value, error = _crossfit(draws, rng)
    total = draws.losses.sum(axis=1), draws.gains.sum(axis=1)
    groups = draws.losses.shape[1]
    average = {level: _tango(*total, draws.n * groups, level) for level in Z}
    failed = {level: (value - z * error > WORST.limit) | (average[level][0] > AVERAGE.limit) for level, z in Z.items()}
    before = np.where(failed[0.95], FAILED, PASSED)
    within = (_tango(draws.losses, draws.gains, draws.n, 0.95)[1].max(axis=1) <= tolerated(WORST, GROUP_MARGIN)) & (
        average[0.95][1] <= tolerated(AVERAGE, AVERAGE_MARGIN)
    )
    after = np.where(failed[0.975], FAILED, np.where(within, PASSED, UNDECIDED))
    return before.astype(np.int64), after.astype(np.int64)


def _tango(losses: Counts, gains: Counts, n: int, confidence: float) -> tuple[Floats, Floats]:
    """One-sided bounds, each pair of counts computed once."""
    pairs, inverse = np.unique(losses.ravel() * (n + 1) + gains.ravel(), return_inverse=True)
    low, high = paired_drop_interval(pairs // (n + 1), pairs % (n + 1), n, 2 * confidence - 1)
    return low[inverse].reshape(losses.shape), high[inverse].reshape(losses.shape)


def _crossfit(draws: Draws, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """`crossfit_drop` of each data set: value and standard error, (R,) each."""
    losses, gains, n = draws.losses, draws.gains, draws.n
    repeats, groups = losses.shape
    scores, variances = np.zeros((SPLITS, repeats)), np.zeros((SPLITS, repeats))
    for split in range(SPLITS):
        rows = rng.multivariate_hypergeometric([n] * groups, groups * n // 2, size=repeats)
        lost = rng.hypergeometric(losses, n - losses, rows)
        gained = rng.hypergeometric(gains, n - losses - gains, rows - lost)
        one = _half(lost, gained, rows)
        other = _half(losses - lost, gains - gained, n - rows)
        for (choosing, _), (mean, spread) in ((one, other), (other, one)):
            weights = choosing == choosing.max(axis=1, keepdims=True)
            weights = weights / weights.sum(axis=1, keepdims=True)
            scores[split] += (weights * mean).sum(axis=1) / 2
            variances[split] += (weights**2 * spread).sum(axis=1) / 4
    return scores.mean(axis=0), np.sqrt(variances.mean(axis=0))


def _half(lost: Counts, gained: Counts, rows: Counts) -> tuple[Floats, Floats]:
    """The mean of each group in a half, and its variance with the pseudo-flip."""
    mean = (lost - gained) / rows
    return mean, (lost + gained - rows * mean**2 + 1.0) / rows**2.0
