"""Paired tests: against scipy, statsmodels, and sums over every possible outcome."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxptq.errors import UsageError
from onnxptq.evaluation.statistics import (
    design_effects,
    equality_p_values,
    exceedance_p_values,
    holm,
    mcnemar,
    sign_flip_test,
    sum_by_source,
)


def drops_of(losses: int, gains: int, n: int):
    value = np.concatenate([np.ones(losses), -np.ones(gains), np.zeros(n - losses - gains)])
    return sum_by_source(value, np.arange(n), [np.arange(n)])


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (3, 9), (9, 3), (40, 41), (200, 120), (5000, 5300)])
def test_mcnemar_equals_statsmodels(b, c):
    tables = pytest.importorskip("statsmodels.stats.contingency_tables")
    assert mcnemar(b, c) == pytest.approx(tables.mcnemar([[10, b], [c, 10]], exact=True).pvalue, rel=1e-9)


@pytest.mark.parametrize(("b", "c"), [(1_000_000, 997_000), (300, 0), (2000, 500)])
def test_mcnemar_is_safe_for_big_counts_and_small_probabilities(b, c):
    stats = pytest.importorskip("scipy.stats")
    assert mcnemar(b, c) == pytest.approx(2 * stats.binom.cdf(min(b, c), b + c, 0.5), rel=1e-6)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_sign_flip_test_counts_every_exchange_of_outcomes(net):
    signs = np.array(list(itertools.product([-1, 1], repeat=len(net))))
    expected = np.mean(np.abs(signs @ net) >= abs(sum(net)))
    assert sign_flip_test(net) == pytest.approx(expected, rel=1e-9)


def test_sign_flip_test_is_mcnemar_where_a_source_nets_one_row():
    assert sign_flip_test([1] * 9 + [-1] * 3 + [0] * 50) == mcnemar(9, 3)


def test_sign_flip_test_approaches_durkalski_with_many_sources():
    stats = pytest.importorskip("scipy.stats")
    net = np.random.default_rng(0).integers(-3, 4, size=2000)
    net[:60] = 1
    durkalski = stats.chi2.sf(net.sum() ** 2 / (net**2).sum(), 1)
    assert 0.001 < durkalski < 0.5
    assert sign_flip_test(net) == pytest.approx(durkalski, rel=0.05)


def test_copies_of_one_source_are_one_piece_of_evidence():
    value = np.ones(10)
    alone = equality_p_values(sum_by_source(value, np.arange(10), [np.arange(10)]))
    together = equality_p_values(sum_by_source(value, np.zeros(10, dtype=int), [np.arange(10)]))
    assert alone[0] == pytest.approx(2**-9)
    assert together[0] == pytest.approx(1.0)


def exceedance_by_hand(b: float, c: float, n: int, limit: float) -> float:
    """Maximises the likelihood numerically, then adds up the distribution of the net loss row by row."""
    optimize = pytest.importorskip("scipy.optimize")

    def cost(gain: float) -> float:
        rates = np.array([gain + limit, gain, 1 - 2 * gain - limit])
        return -float(np.array([b, c, n - b - c]) @ np.log(np.maximum(rates, 1e-300)))

    found = optimize.minimize_scalar(cost, bounds=(0, (1 - limit) / 2), method="bounded", options={"xatol": 1e-12})
    gain = found.x if c else max(0.0, min([0.0, found.x], key=cost))
    distribution = np.ones(1)
    for _ in range(n):
        distribution = np.convolve(distribution, [gain, 1 - 2 * gain - limit, gain + limit])
    return float(distribution[n + math.floor(b - c) :].sum())


@pytest.mark.parametrize(
    ("b", "c", "n", "limit"),
    [
        *((20, 0, 200, 0.05), (30, 1, 200, 0.02), (8, 5, 100, 0.0), (2, 6, 60, 0.1), (1, 0, 5, 0.5), (0, 3, 40, 0.01)),
        *((5, 5, 100, 0.0), (3, 3, 60, 0.02)),  # A net loss of 0 is a value like any other.
    ],
)
def test_exceedance_equals_the_distribution_added_up_by_hand(b, c, n, limit):
    found = exceedance_p_values(drops_of(b, c, n), limit)[0]
    assert found == pytest.approx(exceedance_by_hand(b, c, n, limit), rel=1e-4)


def test_exceedance_of_copies_does_not_lose_a_flip_to_the_last_bit_of_a_division():
    once = drops_of(2, 0, 20)
    value = np.concatenate([np.ones(2), np.zeros(18)])
    threefold = sum_by_source(np.repeat(value, 3), np.repeat(np.arange(20), 3), [np.arange(60)])
    np.testing.assert_allclose(exceedance_p_values(threefold, 0.02), exceedance_p_values(once, 0.02))


def test_exceedance_keeps_the_effective_flips_within_the_effective_rows():
    """Seven rows, all changed, are 4.35 independent ones: 4 are counted, and with them as many flips."""
    drops = sum_by_source([1.0] * 6 + [-1.0], np.repeat(np.arange(4), [1, 4, 1, 1]), [np.arange(7)])
    changed = 7 / design_effects(drops)[0]
    assert changed == pytest.approx(4.352, abs=1e-3)
    assert exceedance_p_values(drops, 0.1)[0] == pytest.approx(
        exceedance_by_hand(6 / 7 * 4, 1 / 7 * 4, 4, 0.1), rel=1e-4
    )


def test_exceedance_with_losses_only_is_about_the_binomial_tail():
    stats = pytest.importorskip("scipy.stats")
    found = exceedance_p_values(drops_of(20, 0, 200), 0.05)[0]
    # A little above the tail of pure losses: the estimate leaves room for gains that were not seen.
    assert stats.binom.sf(19, 200, 0.05) < found < 2 * stats.binom.sf(19, 200, 0.05)


def test_exceedance_falls_with_the_losses_and_rises_with_the_limit():
    by_losses = [exceedance_p_values(drops_of(b, 2, 150), 0.02)[0] for b in range(0, 40, 4)]
    by_limit = [exceedance_p_values(drops_of(25, 2, 150), limit)[0] for limit in (0.0, 0.02, 0.05, 0.1, 0.3)]
    assert by_losses == sorted(by_losses, reverse=True)
    assert by_limit == sorted(by_limit)


def test_no_flip_is_no_evidence_of_a_drop_and_all_lost_is_the_strongest():
    assert exceedance_p_values(drops_of(0, 0, 50), 0.0)[0] == pytest.approx(1.0)
    assert exceedance_p_values(drops_of(0, 0, 50), 0.02)[0] == pytest.approx(1.0)
    assert exceedance_p_values(drops_of(50, 0, 50), 0.1)[0] == 1e-12


@pytest.mark.parametrize("limit", [-0.01, 1.0, 15])
def test_a_limit_that_is_no_fraction_is_refused(limit):
    with pytest.raises(UsageError, match="fraction"):
        exceedance_p_values(drops_of(1, 1, 4), limit)


@pytest.mark.parametrize("count", [1, 2, 30, 1000])
def test_holm_equals_statsmodels(count):
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p_values = np.random.default_rng(count).random(count) ** 3
    p_values[count // 2 :] = p_values[: count - count // 2]  # ties
    np.testing.assert_allclose(holm(p_values), multitest.multipletests(p_values, method="holm")[1], atol=1e-12)
