"""The bootstrap by source, against one that is written with loops over rows."""

from __future__ import annotations

import numpy as np
import pytest

from onnxptq.errors import UsageError
from onnxptq.evaluation import _bootstrap
from onnxptq.evaluation.statistics import (
    bootstrap_mean,
    bootstrap_means,
    percentile_interval,
    resampling_weights,
    sum_by_source,
)


def test_replicates_equal_a_resample_of_rows_taken_source_by_source():
    rng = np.random.default_rng(0)
    value, source = rng.normal(size=40), rng.integers(0, 12, size=40)
    source[:12] = np.arange(12)
    groups = [np.arange(0, 40, 2), np.arange(25)]
    found = bootstrap_means(sum_by_source(value, source, groups), replicates=7, seed=5)
    draws = np.random.default_rng(5)
    for replicate in range(7):
        drawn = draws.integers(12, size=12)
        rows = np.concatenate([np.flatnonzero(source == s) for s in drawn])
        assert found.overall[replicate] == pytest.approx(value[rows].mean())
        for g, members in enumerate(groups):
            assert found.groups[replicate, g] == pytest.approx(value[rows[np.isin(rows, members)]].mean())


@pytest.mark.parametrize("kept", [0, 50_000])
def test_the_mean_alone_is_that_of_all_groups_resampled_bit_for_bit(kept, monkeypatch):
    monkeypatch.setattr(_bootstrap, "_KEPT_SOURCES", kept)
    rng = np.random.default_rng(2)
    source = np.arange(90) % 30
    for _ in range(2):  # The second finds the resamples of the first.
        drops = sum_by_source(rng.integers(-1, 2, 90), source, [np.arange(0, 90, 2), np.arange(90)])
        np.testing.assert_array_equal(bootstrap_mean(drops, seed=3), bootstrap_means(drops, seed=3).overall)


def test_spread_of_replicates_is_the_standard_error_of_the_mean():
    value = np.random.default_rng(1).normal(size=500)
    found = bootstrap_means(sum_by_source(value, np.arange(500), [np.arange(500)]))
    assert found.overall.std() == pytest.approx(value.std() / np.sqrt(500), rel=0.1)
    low, high = percentile_interval(found.overall)
    assert high - low == pytest.approx(2 * 1.96 * value.std() / np.sqrt(500), rel=0.1)


def test_a_group_that_a_resample_misses_is_left_out_of_its_interval():
    value = np.array([1.0, 0.0, 0.0])
    found = bootstrap_means(sum_by_source(value, np.arange(3), [[0], [1, 2]]), replicates=50)
    missed = np.isnan(found.groups[:, 0])
    assert 0 < missed.sum() < 50
    assert (found.groups[~missed, 0] == 1.0).all()
    low, high = percentile_interval(found.groups)
    assert (low[0], high[0]) == (1.0, 1.0)


def test_one_seed_pairs_two_values_over_the_same_rows():
    rng = np.random.default_rng(4)
    source, value = np.arange(30), rng.normal(size=30)
    one, twice = (bootstrap_means(sum_by_source(v, source, [source]), 10, seed=9) for v in (value, 2 * value))
    other = bootstrap_means(sum_by_source(value, source, [source]), 10, seed=10)
    np.testing.assert_allclose(twice.groups, 2 * one.groups)
    assert (other.overall != one.overall).any()


def test_every_replicate_draws_as_many_sources_as_there_are():
    weights = np.stack(list(resampling_weights(20, 100, seed=0)))
    assert (weights.sum(axis=1) == 20).all()
    np.testing.assert_allclose(weights.mean(axis=0), 1.0, atol=0.4)
    np.testing.assert_allclose(weights.var(), 1 - 1 / 20, atol=0.1)


def test_numbers_that_make_no_bootstrap_are_refused():
    sums = sum_by_source([1.0], [0], [[0]])
    with pytest.raises(UsageError, match="replicates"):
        bootstrap_means(sums, replicates=0)
    with pytest.raises(UsageError, match="confidence"):
        percentile_interval(np.zeros(3), 95)
