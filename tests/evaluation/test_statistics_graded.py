"""Graded scores: Student's t against scipy, and intervals and tests where one of the two parts alone would be wrong."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from onnxptq.evaluation._source_sums import medians
from onnxptq.evaluation._student import student_quantile, student_tail
from onnxptq.evaluation.statistics import (
    drop_interval,
    equality_p_values,
    exceedance_p_values,
    mean_interval,
    sign_flip_test,
    student_interval,
    sum_by_source,
    wilson_interval,
)

DEGREES = np.array([1, 2, 3, 10, 19, 199, 5000, 100_000])


def graded(*groups, copies=1):
    """Sums of groups of values, each value a source of `copies` equal rows."""
    value = np.repeat(np.concatenate([np.asarray(group, dtype=np.float64) for group in groups]), copies)
    rows = np.split(np.arange(len(value)), np.cumsum([len(group) * copies for group in groups])[:-1])
    return sum_by_source(value, np.arange(len(value)) // copies, rows, binary=False)


def only(interval):
    low, high = interval
    return float(low[0]), float(high[0])


@pytest.mark.parametrize("t", [-4.0, -0.3, 0.0, 1e-7, 0.5, 2.0, 8.0, 1e5, np.inf, -np.inf])
def test_the_tail_of_student_equals_scipys(t):
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_allclose(student_tail(t, DEGREES), stats.t.sf(t, DEGREES), rtol=1e-7)


@pytest.mark.parametrize("probability", [0.5, 0.75, 0.95, 0.975, 0.9999])
def test_the_quantile_of_student_equals_scipys(probability):
    stats = pytest.importorskip("scipy.stats")
    np.testing.assert_allclose(student_quantile(probability, DEGREES), stats.t.ppf(probability, DEGREES), rtol=1e-6)


def test_students_interval_is_the_usual_one_where_each_source_has_one_row():
    stats = pytest.importorskip("scipy.stats")
    value = np.random.default_rng(0).uniform(-1, 1, 30)
    expected = stats.t.interval(0.9, 29, value.mean(), stats.sem(value))
    assert only(student_interval(graded(value), 0.9)) == pytest.approx(expected)


def test_twenty_sources_without_any_change_are_as_uncertain_as_without_flips():
    z2 = 1.959964**2
    assert only(drop_interval(graded([0.0] * 20))) == pytest.approx((-z2 / (20 + z2), z2 / (20 + z2)), rel=1e-5)
    assert equality_p_values(graded([0.0] * 20))[0] == 1.0
    assert exceedance_p_values(graded([0.0] * 20), 0.02)[0] == pytest.approx(1.0)


def test_one_catastrophe_of_twenty_is_neither_certain_nor_ignored():
    sums = graded([1.0] + [0.0] * 19)
    low, high = only(drop_interval(sums))
    assert low < 0 < 0.05 < 0.2 < high
    assert high == pytest.approx(only(drop_interval(replace(sums, binary=True)))[1])  # t alone ends at .15.
    assert exceedance_p_values(sums, 0.0)[0] > 0.1


def test_many_small_equal_losses_leave_room_for_a_rare_large_one():
    low, high = only(drop_interval(graded([0.03] * 200)))
    assert (low, high) == (pytest.approx(0.03 - 1.03 * 0.0188, abs=2e-4), pytest.approx(0.03 + 1.03 * 0.0188, abs=2e-4))


def test_a_rare_large_loss_among_small_gains_is_not_ruled_out_by_samples_that_show_none():
    """Mean 0: 1 % lose all, the others gain about .01. 13 of 100 samples of 200 have not one that loses."""
    rng = np.random.default_rng(0)
    value = np.where(rng.random((300, 200)) < 0.01, 1.0, rng.uniform(-2 / 99, 0.0, (300, 200)))
    low, high = drop_interval(graded(*value))
    assert np.mean(high < 0) <= 0.03 and np.mean(low > 0) <= 0.03
    student_high = student_interval(graded(*value))[1]
    assert np.mean(student_high < 0) > 0.08  # What one part alone would do.


def test_rare_large_gains_do_not_make_a_drop_certain():
    rng = np.random.default_rng(1)
    value = np.where(rng.random((300, 20)) < 0.01, -1.0, 0.01)
    low, _ = drop_interval(graded(*value))
    assert np.mean(low > -0.0001) == 0.0
    assert np.mean(exceedance_p_values(graded(*value), 0.0) <= 0.05) == 0.0


def test_bounds_stay_within_what_is_possible():
    assert only(drop_interval(graded([1.0, -1.0]))) == (-1.0, 1.0)
    assert only(mean_interval(graded([1.0, 0.0]))) == (0.0, 1.0)
    assert only(drop_interval(graded([0.4]))) == (-1.0, 1.0)  # One source says nothing of others.


def test_the_interval_of_a_mean_score_is_narrower_than_wilsons_where_scores_agree():
    sums = graded(np.random.default_rng(2).uniform(0.88, 0.92, 200))
    low, high = only(mean_interval(sums))
    wilson_low, wilson_high = only(mean_interval(replace(sums, binary=True)))
    assert wilson_low < low < 0.9 < high < wilson_high


def test_graded_numbers_that_are_right_or_wrong_hold_what_binary_ones_do():
    value = [1.0] * 9 + [-1.0] * 2 + [0.0] * 89
    sums = graded(value)
    low, high = only(drop_interval(sums))
    binary_low, binary_high = only(drop_interval(replace(sums, binary=True)))
    assert low <= binary_low and high >= binary_high
    assert equality_p_values(sums)[0] == equality_p_values(replace(sums, binary=True))[0]
    assert exceedance_p_values(sums, 0.02)[0] >= exceedance_p_values(replace(sums, binary=True), 0.02)[0]


def test_copies_of_sources_make_nothing_more_certain():
    value = np.random.default_rng(3).uniform(-0.5, 1.0, 40)
    once, tenfold = graded(value), graded(value, copies=10)
    np.testing.assert_allclose(drop_interval(tenfold), drop_interval(once))
    np.testing.assert_allclose(mean_interval(graded(abs(value), copies=10)), mean_interval(graded(abs(value))))
    np.testing.assert_allclose(exceedance_p_values(tenfold, 0.1), exceedance_p_values(once, 0.1))


def test_a_larger_limit_is_less_easily_exceeded():
    sums = graded(np.random.default_rng(4).uniform(0.0, 0.4, 100))
    p_values = [exceedance_p_values(sums, limit)[0] for limit in (0.0, 0.1, 0.2, 0.3)]
    assert p_values == sorted(p_values)
    assert p_values[0] < 1e-4 and p_values[-1] > 0.9


def test_few_sources_go_through_all_swaps():
    net = np.random.default_rng(5).normal(0.1, 0.3, 9)
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    expected = np.mean(np.abs(signs @ net) >= abs(net.sum()) - 1e-12)
    assert sign_flip_test(net) == pytest.approx(expected)
    assert sign_flip_test(np.concatenate([net, np.zeros(500)])) == pytest.approx(expected)


def test_more_sources_take_random_swaps_near_the_exact_share():
    net = np.random.default_rng(6).normal(0.15, 0.3, 15)
    patterns = 1 - 2 * (np.arange(2**15)[:, None] >> np.arange(15) & 1)
    exact = np.mean(np.abs(patterns @ net) >= abs(net.sum()) - 1e-12)
    assert 0.005 < exact < 0.5
    assert sign_flip_test(net) == pytest.approx(exact, abs=0.02)
    assert sign_flip_test(net) == sign_flip_test(net)
    assert sign_flip_test(np.full(60, 0.3)) == pytest.approx(1e-4)  # Never 0: the observed swap counts too.


def test_many_groups_leave_room_for_the_correction():
    sums = graded(*[np.full(20, 0.3)] * 100)
    assert equality_p_values(sums).max() * 100 < 0.01


@pytest.mark.parametrize(
    ("value", "limit"),
    [([1.0] * 10 + [0.0] * 190, 0.02), ([1.0] * 10 + [0.0] * 190, 0.1), ([0.8] * 12 + [0.0] * 88, 0.02)],
)
def test_exceedance_is_that_of_student_where_few_rows_lose_much(value, limit):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.ttest_1samp(value, limit, alternative="greater").pvalue
    assert exceedance_p_values(graded(value), limit)[0] == pytest.approx(expected, rel=1e-6)


def test_exceedance_of_equal_losses_and_of_one_source_needs_no_error():
    assert exceedance_p_values(graded([0.25] * 50), 0.25)[0] == pytest.approx(1.0)
    assert exceedance_p_values(graded([0.25] * 400), 0.0)[0] < 1e-3
    assert exceedance_p_values(graded([1.0]), 0.0)[0] >= 0.5  # One source says nothing of others.


def test_the_median_is_that_of_the_sources_of_each_group():
    sums = graded([0.1, 0.7, 0.2, 0.9, 0.3], [0.4, 0.2, 0.8, 0.9], [0.5], [0.6, 0.1])
    np.testing.assert_allclose(medians(sums), [0.3, 0.6, 0.5, 0.35])
    of_sources = sum_by_source([0.0, 1.0, 0.3, 0.9], [7, 7, 8, 9], [[0, 1, 2, 3]], binary=False)
    assert medians(of_sources)[0] == pytest.approx(0.5)  # Of .5, .3 and .9: a source counts once.


def test_each_part_of_an_interval_has_the_confidence_that_was_asked_for():
    wide, narrow = (drop_interval(graded([0.03] * 200), confidence) for confidence in (0.99, 0.8))
    z2 = 1.281552**2
    assert only(narrow)[1] == pytest.approx(0.03 + 1.03 * z2 / (200 + z2), abs=1e-5)
    assert wide[1][0] > narrow[1][0]
    value = np.random.default_rng(7).uniform(-1, 1, 40)
    student = student_interval(graded(value), 0.8)
    assert drop_interval(graded(value), 0.8)[0][0] <= student[0][0]
    # t decides where few rows lose much: its low end at .8 is nearer than at .95.
    few = graded([1.0] * 4 + [0.0] * 196)
    assert only(drop_interval(few, 0.8))[0] == pytest.approx(only(student_interval(few, 0.8))[0])
    scores = graded([0.9] * 100)
    assert only(mean_interval(scores, 0.8))[1] - 0.9 == pytest.approx(z2 / (100 + z2), rel=1e-3)
    right = replace(graded([1.0] * 50 + [0.0] * 50), binary=True)
    assert only(mean_interval(right, 0.8))[1] == pytest.approx(wilson_interval(50, 100, 0.8)[1])
