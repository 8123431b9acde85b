"""Sums by source: what the copies of one sample count for, and that the order of rows leaves no trace."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxptq.errors import DataError
from onnxptq.evaluation.statistics import (
    SourceSums,
    bootstrap_means,
    crossfit_drop,
    design_effects,
    drop_interval,
    equality_p_values,
    exceedance_p_values,
    mean_interval,
    sum_by_source,
)


def clustered(seed: int = 0, sources: int = 60, copies: int = 1) -> SourceSums:
    """Three disjoint groups and one that overlaps them; each row is repeated `copies` times under its source."""
    rng = np.random.default_rng(seed)
    value = rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.6, 0.3], size=sources)
    group = np.arange(sources) % 3
    rows = np.repeat(np.arange(sources), copies)
    members = [np.flatnonzero(group[rows] == g) for g in range(3)] + [np.flatnonzero(rows % 2 == 0)]
    return sum_by_source(value[rows], rows, members)


def test_sums_equal_a_dictionary_of_loops():
    rng = np.random.default_rng(1)
    value, source = rng.normal(size=50), rng.integers(100, 112, size=50)
    groups = [rng.choice(50, size=size, replace=False) for size in (20, 7, 1)]
    sums = sum_by_source(value, source, groups)
    codes = sorted(set(source.tolist()))
    expected = {}
    for g, rows in enumerate(groups):
        for row in rows:
            cell = expected.setdefault((g, codes.index(source[row])), [0, 0.0, 0.0])
            cell[0] += 1
            cell[1] += value[row]
            cell[2] += value[row] ** 2
    cells = list(zip(sums.group.tolist(), sums.source.tolist(), strict=True))
    assert cells == sorted(expected)
    found = np.stack([sums.rows, sums.total, sums.squares], axis=1)
    np.testing.assert_allclose(found, [expected[cell] for cell in cells])
    np.testing.assert_allclose(sums.group_means, [value[rows].mean() for rows in groups])
    assert sums.mean == pytest.approx(value.mean())
    assert sums.group_rows.tolist() == [20, 7, 1]
    assert sums.group_sources.tolist() == [len(set(source[rows].tolist())) for rows in groups]


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_no_statistic_depends_on_the_order_of_rows(data):
    n = data.draw(st.integers(4, 30))
    value = np.array(data.draw(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=n, max_size=n)))
    source = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    inside = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
    inside[0] = True
    order = np.array(data.draw(st.permutations(range(n))))

    def everything(value, source, inside):
        sums = sum_by_source(value, source, [np.flatnonzero(inside), np.arange(len(value))])
        fitted, replicates = crossfit_drop(sums, splits=3), bootstrap_means(sums, 5)
        return [
            *vars(sums).values(), *drop_interval(sums), equality_p_values(sums), exceedance_p_values(sums, 0.02),
            replicates.groups, replicates.overall, fitted.value, fitted.standard_error, fitted.per_split, fitted.chosen,
        ]  # fmt: skip

    before, after = everything(value, source, inside), everything(value[order], source[order], inside[order])
    for one, other in zip(before, after, strict=True):
        np.testing.assert_array_equal(one, other)


def test_row_order_does_not_change_the_last_bit_of_values_that_are_not_whole():
    rng = np.random.default_rng(2)
    value, source, order = rng.normal(size=200), np.arange(200) % 3, rng.permutation(200)
    before = sum_by_source(value, source, [np.arange(200)])
    after = sum_by_source(value[order], source[order], [np.arange(200)])
    np.testing.assert_array_equal(before.total, after.total)
    np.testing.assert_array_equal(before.all_total, after.all_total)


def test_ten_identical_copies_of_each_sample_say_as_much_as_one():
    once, tenfold = clustered(copies=1), clustered(copies=10)
    np.testing.assert_allclose(design_effects(tenfold), 10.0)
    assert (design_effects(once) == 1.0).all()
    np.testing.assert_allclose(drop_interval(tenfold), drop_interval(once))
    np.testing.assert_allclose(equality_p_values(tenfold), equality_p_values(once), rtol=1e-9)
    np.testing.assert_allclose(exceedance_p_values(tenfold, 0.05), exceedance_p_values(once, 0.05), rtol=1e-9)
    np.testing.assert_allclose(bootstrap_means(tenfold, 20).groups, bootstrap_means(once, 20).groups)
    one, ten = crossfit_drop(once), crossfit_drop(tenfold)
    assert (ten.value, ten.standard_error) == pytest.approx((one.value, one.standard_error))


def test_ten_identical_copies_without_any_flip_do_not_narrow_an_interval():
    once = sum_by_source(np.zeros(30), np.arange(30), [np.arange(30)])
    tenfold = sum_by_source(np.zeros(300), np.arange(300) % 30, [np.arange(300)])
    np.testing.assert_allclose(drop_interval(tenfold), drop_interval(once))
    np.testing.assert_allclose(mean_interval(tenfold), mean_interval(once))
    assert crossfit_drop(tenfold).standard_error == pytest.approx(crossfit_drop(once).standard_error)


def test_design_effect_is_the_cluster_robust_variance_over_the_plain_one():
    api = pytest.importorskip("statsmodels.api")
    rng = np.random.default_rng(3)
    source = rng.integers(0, 400, size=3000)
    value = ((rng.random(400)[source] < 0.3) | (rng.random(3000) < 0.2)).astype(float)
    fit = api.OLS(value, np.ones(3000)).fit(
        cov_type="cluster", cov_kwds={"groups": source, "use_correction": False}, use_t=False
    )
    expected = fit.bse[0] ** 2 / (value.var() / 3000)
    # One pseudo-flip among hundreds of rows that vary moves it by less than two percent.
    assert design_effects(sum_by_source(value, source, [np.arange(3000)]))[0] == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize(
    ("value", "groups", "message"),
    [
        ([], [[0]], "no rows"),
        ([1.0], [], "no groups"),
        ([1.0, 0.0], [[0], []], "group number 1 has no rows"),
        ([1.0, np.nan], [[0]], "row 1 is nan"),
    ],
)
def test_data_without_an_answer_is_refused(value, groups, message):
    with pytest.raises(DataError, match=message):
        sum_by_source(value, np.arange(len(value)), [np.array(rows, dtype=int) for rows in groups])


def test_value_and_source_of_different_lengths_are_a_bug_of_the_caller():
    with pytest.raises(ValueError, match="one length"):
        sum_by_source([1.0, 0.0], [0], [[0]])
