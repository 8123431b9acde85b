"""The statistics of a grid equal those of SciPy and statsmodels, with holes and without."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxptq.errors import UsageError
from onnxptq.evaluation.grid_statistics import (
    block_permutation_test,
    jackknife_interval,
    smallest_p,
    variance_shares,
)

TERMS = (("set",), ("method",), ("strategy",), ("set", "method"), ("set", "strategy"))


def grid(keep=1.0, seed=0):
    """A grid of 4 sets, 3 methods, 2 strategies and 3 replicates with an effect of the set; some cells left out."""
    rng = np.random.default_rng(seed)
    codes = np.array(list(itertools.product(range(4), range(3), range(2), range(3))))
    codes = codes[rng.random(len(codes)) < keep]
    values = 0.1 * codes[:, 0] + 0.02 * codes[:, 1] * codes[:, 0] + 0.03 * rng.standard_normal(len(codes))
    return values, {name: codes[:, k] for k, name in enumerate(("set", "method", "strategy"))}


@pytest.mark.parametrize("keep", [1.0, 0.75])
def test_shares_are_the_type_two_sums_of_squares_of_statsmodels(keep):
    pandas = pytest.importorskip("pandas")
    formula = pytest.importorskip("statsmodels.formula.api")
    from statsmodels.stats.anova import anova_lm

    values, factors = grid(keep)
    fitted = formula.ols(
        "y ~ C(set) + C(method) + C(strategy) + C(set):C(method) + C(set):C(strategy)",
        pandas.DataFrame({"y": values, **factors}),
    ).fit()
    table = anova_lm(fitted, typ=2)
    shares = variance_shares(values, factors, TERMS)
    for term in TERMS:
        row = table.loc[":".join(f"C({name})" for name in term)]
        assert shares.explained[term] * shares.total == pytest.approx(row["sum_sq"], rel=1e-8)
        assert shares.degrees[term] == row["df"]
    residual = (shares.other + shares.replicates) * shares.total
    assert residual == pytest.approx(table.loc["Residual", "sum_sq"], rel=1e-8)


def test_shares_of_a_grid_without_holes_add_up_to_one():
    shares = variance_shares(*grid(), TERMS)
    assert sum(shares.explained.values()) + shares.other + shares.replicates == pytest.approx(1.0)
    assert all(shares.unbiased[term] < shares.explained[term] for term in TERMS)


def test_without_replicates_nothing_is_said_about_them():
    values, factors = grid()
    once = slice(0, None, 3)
    shares = variance_shares(values[once], {name: codes[once] for name, codes in factors.items()}, TERMS)
    assert shares.replicates is None
    assert set(shares.unbiased.values()) == {None}


def test_a_grid_in_which_nothing_varies_has_no_shares():
    _, factors = grid()
    assert variance_shares(np.full(72, 0.25), factors, TERMS) is None


def test_an_effect_that_the_holes_hide_has_no_degrees_of_freedom():
    factors = {"set": np.array([0, 0, 1, 1]), "method": np.array([0, 0, 1, 1])}
    shares = variance_shares(np.array([0.0, 0.1, 0.4, 0.5]), factors, (("set",), ("method",)))
    assert shares.degrees == {("set",): 0, ("method",): 0}


def test_an_unknown_factor_is_named():
    with pytest.raises(UsageError, match="colour"):
        variance_shares(*grid(), (("colour",),))


@pytest.mark.parametrize("shape", [(4, 3), (9, 2), (3, 4)])
def test_the_permutation_test_equals_scipy_s_exact_one(shape):
    stats = pytest.importorskip("scipy.stats")
    blocks = np.random.default_rng(1).standard_normal(shape) + 0.8 * np.arange(shape[1])

    def spread(*columns, axis):
        return np.var(np.stack([np.sum(column, axis=axis) for column in columns]), axis=0)

    found = stats.permutation_test(
        list(blocks.T), spread, permutation_type="samples", n_resamples=np.inf, alternative="greater", vectorized=True
    )
    assert block_permutation_test(blocks) == pytest.approx(found.pvalue)


def test_random_permutations_agree_with_friedman_s_test_on_ranks():
    stats = pytest.importorskip("scipy.stats")
    blocks = np.random.default_rng(2).standard_normal((12, 8)) + 0.1 * np.arange(8)
    ranks = stats.rankdata(blocks, axis=1)
    assert block_permutation_test(ranks) == pytest.approx(stats.friedmanchisquare(*blocks.T).pvalue, abs=0.02)


def test_one_block_cannot_be_tested_and_few_blocks_have_a_smallest_p():
    assert block_permutation_test(np.array([[0.0, 1.0]])) is None
    clear = np.tile([0.0, 1.0], (4, 1)) + 0.01 * np.arange(4)[:, None]
    assert block_permutation_test(clear) == pytest.approx(smallest_p(4, 2)) == pytest.approx(0.125)


def test_the_test_does_not_find_more_than_it_may_where_there_is_nothing():
    rng = np.random.default_rng(3)
    found = [block_permutation_test(rng.standard_normal((5, 3))) <= 0.05 for _ in range(200)]
    assert np.mean(found) <= 0.09


def test_the_jackknife_of_a_mean_is_student_s_interval():
    stats = pytest.importorskip("scipy.stats")
    values = {0: 0.1, 1: 0.4, 2: 0.2, 3: 0.35}
    found = jackknife_interval(list(values), lambda draws: float(np.mean([values[one] for one in draws])))
    numbers = list(values.values())
    expected = stats.t.interval(0.95, 3, np.mean(numbers), stats.sem(numbers))
    assert found == pytest.approx(expected, rel=1e-4)


def test_one_draw_has_no_interval():
    assert jackknife_interval([0], lambda draws: 1.0) is None
    assert jackknife_interval([0, 1], lambda draws: 1.0 if len(draws) == 2 else None) is None
