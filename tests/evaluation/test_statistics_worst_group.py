"""The cross-fitted worst group and the CVaR: no bias between equal models, and a bad group is found."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxptq.errors import UsageError
from onnxptq.evaluation.statistics import (
    crossfit_drop,
    cvar_drop,
    drop_interval,
    sources_to_decide,
    sum_by_source,
    worst_count,
)


def simulated(rng: np.random.Generator, groups: int, n: int, bad_drop: float = 0.0, flips: float = 0.02):
    """Disjoint groups of n independent rows; the first loses `bad_drop` more."""
    luck = rng.random((groups, n))
    drops = np.concatenate([[bad_drop], np.zeros(groups - 1)])[:, None]
    value = (luck < drops + flips / 2).astype(float) - (luck >= 1 - flips / 2)
    rows = np.arange(groups * n).reshape(groups, n)
    return sum_by_source(value.ravel(), rows.ravel(), list(rows))


def test_equal_models_have_no_crossfitted_drop_although_the_largest_drop_is_three_points():
    rng = np.random.default_rng(0)
    sums = [simulated(rng, groups=70, n=100) for _ in range(200)]
    fitted = np.mean([crossfit_drop(each, splits=3, seed=i).value for i, each in enumerate(sums)])
    tail = np.mean([crossfit_drop(each, splits=1, worst=7, seed=i).value for i, each in enumerate(sums)])
    assert abs(fitted) < 0.005
    assert abs(tail) < 0.005
    assert np.mean([each.group_means.max() for each in sums]) == pytest.approx(0.035, abs=0.005)
    assert np.mean([cvar_drop(each.group_means) for each in sums]) > 0.02


def test_a_bad_group_is_found_with_its_size_and_above_the_limit():
    rng = np.random.default_rng(1)
    fits = [crossfit_drop(simulated(rng, 70, 200, bad_drop=0.15), splits=5, seed=i) for i in range(40)]
    assert np.mean([fit.value for fit in fits]) == pytest.approx(0.15, abs=0.01)
    assert np.mean([fit.lower_bound() > 0.05 for fit in fits]) >= 0.9
    assert np.mean([fit.chosen[0] for fit in fits]) > 0.95


def test_equal_models_raise_an_alarm_in_fewer_than_one_of_twenty():
    rng = np.random.default_rng(2)
    alarms = [crossfit_drop(simulated(rng, 70, 100), splits=5, seed=i).lower_bound() > 0.0 for i in range(100)]
    assert np.mean(alarms) < 0.05


def crossfit_by_hand(value, source, groups, splits, seed):
    """The mean over splits and directions of the other half's mean in the group that one half finds worst."""
    rng = np.random.default_rng(seed)
    codes = np.unique(source)
    scores = []
    for _ in range(splits):
        first = np.isin(source, codes[rng.permutation(len(codes))[: len(codes) // 2]])
        for half in (first, ~first):
            means = [value[rows[half[rows]]].mean() for rows in groups]
            rows = groups[int(np.argmax(means))]
            scores.append(value[rows[~half[rows]]].mean())
    return np.reshape(scores, (splits, 2)).mean(axis=1)


def test_crossfit_equals_loops_over_rows():
    rng = np.random.default_rng(3)
    value, source = rng.normal(size=300), rng.integers(0, 90, size=300)
    groups = [np.flatnonzero(np.arange(300) % 4 == g) for g in range(4)] + [np.arange(100, 200)]
    found = crossfit_drop(sum_by_source(value, source, groups), splits=6, seed=8)
    np.testing.assert_allclose(found.per_split, crossfit_by_hand(value, source, groups, 6, 8))
    assert found.value == pytest.approx(found.per_split.mean())
    assert found.chosen.sum() == pytest.approx(1.0)


def test_standard_error_is_that_of_the_group_where_one_group_is_always_chosen():
    sums = simulated(np.random.default_rng(4), groups=5, n=2000, bad_drop=0.3)
    fit = crossfit_drop(sums)
    variance = sums.by_group(sums.squares)[0] / 2000 - sums.group_means[0] ** 2
    assert fit.chosen[0] == 1.0
    assert fit.standard_error == pytest.approx(math.sqrt(variance / 2000), rel=0.01)
    low, high = fit.interval(0.95)
    assert (high - low) / 2 == pytest.approx(1.96 * fit.standard_error, rel=1e-3)
    assert fit.lower_bound(0.975) == pytest.approx(low)


def test_three_losses_in_one_direction_are_not_yet_an_alarm():
    """Three fair coins fall alike once in eight: no basis for an alarm at one in twenty."""
    value = np.zeros(400)
    value[:3] = 1.0
    rows = np.arange(400).reshape(4, 100)
    for seed in range(20):
        assert crossfit_drop(sum_by_source(value, rows.ravel(), list(rows)), seed=seed).lower_bound() < 0.0


def test_only_eligible_groups_are_called_worst():
    value = np.concatenate([np.ones(10), np.zeros(100), np.tile([1.0, 0.0], 50)])
    groups = [np.arange(10), np.arange(10, 110), np.arange(110, 210)]
    sums = sum_by_source(value, np.arange(210), groups)
    assert crossfit_drop(sums).chosen.tolist() == [1.0, 0.0, 0.0]
    small_left_out = crossfit_drop(sums, eligible=sums.group_rows >= 20)
    assert small_left_out.chosen.tolist() == [0.0, 0.0, 1.0]
    assert small_left_out.value == pytest.approx(0.5, abs=0.02)


def test_a_group_of_one_source_is_never_chosen_because_it_is_missing_in_one_half():
    value = np.concatenate([np.ones(5), np.zeros(50)])
    source = np.concatenate([np.zeros(5, dtype=int), np.arange(1, 51)])
    fit = crossfit_drop(sum_by_source(value, source, [np.arange(5), np.arange(5, 55)]))
    assert fit.chosen.tolist() == [0.0, 1.0]
    assert fit.value == 0.0


def test_without_an_eligible_group_the_answer_is_not_a_number():
    sums = sum_by_source(np.ones(4), np.arange(4), [np.arange(4)])
    fit = crossfit_drop(sums, eligible=np.array([False]))
    assert math.isnan(fit.value) and math.isnan(fit.standard_error) and math.isnan(fit.lower_bound())
    assert fit.chosen.tolist() == [0.0]


def test_the_order_of_groups_does_not_matter_even_when_they_tie():
    value = np.random.default_rng(5).choice([0.0, 1.0], p=[0.9, 0.1], size=120)
    groups = list(np.arange(120).reshape(12, 10))
    one = crossfit_drop(sum_by_source(value, np.arange(120), groups), worst=3)
    other = crossfit_drop(sum_by_source(value, np.arange(120), groups[::-1]), worst=3)
    assert other.value == pytest.approx(one.value)
    assert other.standard_error == pytest.approx(one.standard_error)
    np.testing.assert_allclose(other.chosen[::-1], one.chosen)


def test_one_seed_gives_one_answer():
    sums = simulated(np.random.default_rng(6), 10, 30, flips=0.3)
    assert crossfit_drop(sums, seed=1).value == crossfit_drop(sums, seed=1).value
    assert crossfit_drop(sums, seed=1).value != crossfit_drop(sums, seed=2).value


def test_largest_upper_bound_over_groups_holds_the_worst_group():
    rng = np.random.default_rng(7)
    held = [drop_interval(simulated(rng, 70, 200, bad_drop=0.1), 0.9)[1].max() >= 0.1 for _ in range(60)]
    assert np.mean(held) >= 0.9


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.sampled_from([0.05, 0.1, 0.5, 1.0]))
def test_cvar_is_the_mean_of_the_largest(drops, fraction):
    count = -(-len(drops) * round(fraction * 20) // 20)
    assert cvar_drop(drops, fraction) == pytest.approx(np.mean(sorted(drops)[-count:]), abs=1e-12)


def test_a_tenth_of_seventy_groups_is_seven():
    assert [worst_count(n) for n in (1, 9, 10, 11, 70, 100, 110)] == [1, 1, 1, 2, 7, 10, 11]


def test_cvar_leaves_missing_groups_out():
    assert cvar_drop([np.nan, 0.2, 0.4], 0.5) == 0.4
    assert math.isnan(cvar_drop([np.nan]))


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5])
def test_a_fraction_of_no_groups_or_more_than_all_is_refused(fraction):
    with pytest.raises(UsageError, match="fraction"):
        cvar_drop([0.1], fraction)


def test_numbers_that_make_no_split_are_refused():
    sums = sum_by_source([1.0, 0.0], [0, 1], [[0, 1]])
    with pytest.raises(UsageError, match="splits"):
        crossfit_drop(sums, splits=0)
    with pytest.raises(UsageError, match="worst"):
        crossfit_drop(sums, worst=0)


@pytest.mark.parametrize("tolerance", [0.02, 0.1])
def test_no_fewer_sources_can_rule_out_a_drop_beyond_the_tolerance(tolerance):
    needed = sources_to_decide(tolerance)
    for n, decided in ((needed, True), (needed - 1, False)):
        _, high = drop_interval(sum_by_source(np.zeros(n), np.arange(n), [np.arange(n)]))
        assert bool(high[0] <= tolerance) is decided
    with pytest.raises(UsageError, match="tolerance"):
        sources_to_decide(0.0)
