"""Intervals: against statsmodels, and against the values that others published."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxptq.errors import UsageError
from onnxptq.evaluation.statistics import (
    drop_interval,
    mean_interval,
    paired_drop_interval,
    sum_by_source,
    wilson_interval,
)


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
def test_wilson_equals_statsmodels(confidence):
    proportion = pytest.importorskip("statsmodels.stats.proportion")
    successes, n = np.array([0, 1, 7, 50, 99, 100, 3]), np.array([100, 100, 100, 100, 100, 100, 3])
    expected = proportion.proportion_confint(successes, n, alpha=1 - confidence, method="wilson")
    np.testing.assert_allclose(wilson_interval(successes, n, confidence), expected, atol=1e-12)


def test_wilson_without_a_trial_knows_nothing():
    low, high = wilson_interval([0, 1], [0, 2])
    assert (low[0], high[0]) == (0.0, 1.0)
    assert 0.0 < low[1] < 0.5 < high[1] < 1.0


@pytest.mark.parametrize(
    ("losses", "gains", "n", "confidence", "low", "high"),
    [
        # Fagerland, Lydersen and Laake 2014, Stat. Med. 33:2850: airway hyper-responsiveness
        (1, 7, 21, 0.95, -0.517, -0.026),
        # R's PropCIs: scoreci.mp(25, 28, 618, 0.90), which is about the second count minus the first
        (28, 25, 618, 0.90, -0.0148, 0.0247),
    ],
)
def test_tango_interval_has_the_published_values(losses, gains, n, confidence, low, high):
    found = paired_drop_interval(losses, gains, n, confidence)
    digits = len(str(low).split(".")[1])
    assert [round(float(bound), digits) for bound in found] == [low, high]


def test_a_group_without_flips_still_has_a_width():
    z = 1.959963984540054
    low, high = paired_drop_interval(0, 0, 100)
    assert (low, high) == pytest.approx((-(z**2) / (100 + z**2), z**2 / (100 + z**2)))


def test_all_lost_and_all_gained_end_at_one():
    low, high = paired_drop_interval([50, 0], [0, 50], 50)
    assert (high[0], low[1]) == (1.0, -1.0)
    assert low[0] == pytest.approx(-high[1])


@settings(max_examples=30, deadline=None)
@given(b=st.integers(0, 40), c=st.integers(0, 40), same=st.integers(0, 200))
def test_tango_interval_holds_the_drop_and_mirrors_when_the_models_change_places(b, c, same):
    n = max(1, b + c + same)
    low, high = paired_drop_interval(b, c, n)
    other_low, other_high = paired_drop_interval(c, b, n)
    assert -1.0 <= low <= (b - c) / n <= high <= 1.0
    assert (other_low, other_high) == pytest.approx((-high, -low), abs=1e-9)


def test_intervals_of_groups_are_the_plain_ones_where_each_source_occurs_once():
    value = np.array([1, 1, 0, -1, 0, 0, 0, 1, 0, 0], dtype=float)
    drops = sum_by_source(value, np.arange(10), [np.arange(6), np.arange(10)])
    np.testing.assert_allclose(drop_interval(drops), paired_drop_interval([2, 3], [1, 1], [6, 10]))
    correct = sum_by_source(value > 0, np.arange(10), [np.arange(6), np.arange(10)])
    np.testing.assert_allclose(mean_interval(correct), wilson_interval([2, 3], [6, 10]))


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0, -0.5])
def test_a_confidence_outside_0_and_1_is_refused(confidence):
    with pytest.raises(UsageError, match="confidence"):
        wilson_interval(1, 2, confidence)
    with pytest.raises(UsageError, match="confidence"):
        paired_drop_interval(1, 1, 4, confidence)


def test_one_trial_is_a_trial_like_any_other():
    proportions = pytest.importorskip("statsmodels.stats.proportion")
    for successes in (0, 1):
        expected = proportions.proportion_confint(successes, 1, method="wilson")
        np.testing.assert_allclose(wilson_interval(successes, 1), expected, atol=1e-12)
