"""Statistics of a grid of experiments: which factor explains how much, and is it more than chance.

A grid has one number a cell and may have holes. What shares one draw of samples is one block: the tests permute within
blocks, and the intervals leave out one draw at a time, since cells of one draw share its luck.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.evaluation._student import student_quantile

Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Term = tuple[str, ...]
"""A main effect ("method",) or an interaction ("calibration", "method")."""

PERMUTATIONS = 9_999
"""Random permutations, where there are too many to go through: p is then known within .004 at .05."""

_EXACT = 20_000
"""Permutations that are all gone through."""


@dataclass(frozen=True)
class Shares:
    """How the variance of a grid is made up.

    Attributes:
        explained: eta squared of each term: its sum of squares (type II) over the total.
        unbiased: omega squared of each term, which chance does not push up; None without replicates.
        degrees: degrees of freedom of each term; 0 where the cells that are there cannot tell it from other terms.
        other: what the means of the combinations have beyond the terms: higher interactions.
        replicates: variance between cells that differ in nothing but their draw; None where there are none.
        total: total sum of squares.
    """

    explained: Mapping[Term, float]
    unbiased: Mapping[Term, float | None]
    degrees: Mapping[Term, int]
    other: float
    replicates: float | None
    total: float


def variance_shares(values: Floats, factors: Mapping[str, Codes], terms: Sequence[Term]) -> Shares | None:
    """Eta squared of each term by least squares with sums of squares of type II (Yates 1934; Langsrud 2003).

    In a grid without holes the shares add up to 1; with holes they need not. Cells with the same codes are replicates.

    Args:
        values: float64, (N,): one number a cell, finite.
        factors: int64, (N,) each: the level of each factor.
        terms: main effects and interactions of these factors.

    Returns:
        The shares, or None where nothing varies.

    Raises:
        UsageError: a term names a factor that there is not.
    """
    unknown = {name for term in terms for name in term} - set(factors)
    if unknown:
        raise UsageError(f"unknown factors {sorted(unknown)} in the terms. Known: {', '.join(sorted(factors))}.")
    total = float(((values - values.mean()) ** 2).sum())
    if len(values) < 2 or total <= 1e-12 * len(values) * max(1.0, float(np.abs(values).max()) ** 2):
        return None
    used = [factors[name] for name in factors if any(name in term for term in terms)]
    combination, first, counts = _combinations(used, len(values))
    means = np.bincount(combination, values) / counts
    within = float(((values - means[combination]) ** 2).sum())
    named = {name: factors[name][first] for name in factors if any(name in term for term in terms)}
    fits: _Fits | _BalancedFits = (
        _BalancedFits(named, means, counts) if _balanced(named, counts) else _Fits(named, means, counts)
    )
    explained, degrees = {}, {}
    for term in terms:
        base = tuple(other for other in terms if not set(term) <= set(other))
        (before, rank), (after, more) = fits(base), fits((*base, term))
        explained[term], degrees[term] = max(0.0, before - after) / total, more - rank
    spare = len(values) - len(counts)
    error = within / spare if spare else None
    unbiased = {
        term: None if error is None else (explained[term] * total - degrees[term] * error) / (total + error)
        for term in terms
    }
    other = max(0.0, fits(tuple(terms))[0]) / total
    return Shares(explained, unbiased, degrees, other, within / total if spare else None, total)


def _combinations(columns: Sequence[Codes], length: int) -> tuple[Codes, Codes, Floats]:
    """Code of each cell's combination of levels, the first cell of each, and how many cells it has."""
    stacked = np.stack(columns, axis=1) if columns else np.zeros((length, 1), np.int64)
    _, first, inverse, counts = np.unique(stacked, axis=0, return_index=True, return_inverse=True, return_counts=True)
    return inverse.reshape(-1).astype(np.int64), first.astype(np.int64), counts.astype(np.float64)


def _balanced(factors: Mapping[str, Codes], counts: Floats) -> bool:
    """Whether every combination of the levels is there, equally often."""
    return len(counts) == math.prod(len(np.unique(codes)) for codes in factors.values()) and bool(
        (counts == counts[0]).all()
    )


class _BalancedFits:
    """What `_Fits` gives, for a grid without holes: its effects are orthogonal, and each is a difference of means."""

    def __init__(self, factors: Mapping[str, Codes], means: Floats, counts: Floats) -> None:
        self._axes = {name: axis for axis, name in enumerate(factors)}
        levels = [np.unique(codes, return_inverse=True)[1] for codes in factors.values()]
        self._grid = np.empty([int(codes.max()) + 1 for codes in levels])
        self._grid[tuple(levels)] = means - means.mean()  # Sums of squares around 0 keep their last digits.
        self._weight = float(counts[0])
        self._effects: dict[Term, tuple[Floats, float]] = {}

    def __call__(self, terms: Sequence[Term]) -> tuple[float, int]:
        contained = {
            part for term in terms for size in range(len(term) + 1) for part in itertools.combinations(term, size)
        }
        contained = {tuple(sorted(part)) for part in contained} | {()}
        explained = sum(self._effect(part)[1] for part in contained)
        residual = self._weight * float((self._grid**2).sum()) - explained
        rank = sum(math.prod(self._grid.shape[self._axes[name]] - 1 for name in part) for part in contained)
        return max(0.0, residual), rank

    def _effect(self, term: Term) -> tuple[Floats, float]:
        """The effect as an array that broadcasts over the grid, and its sum of squares."""
        if term not in self._effects:
            others = tuple(axis for name, axis in self._axes.items() if name not in term)
            effect = self._grid.mean(axis=others, keepdims=True)
            for size in range(len(term)):
                for part in itertools.combinations(term, size):
                    effect = effect - self._effect(part)[0]
            repeats = self._grid.size / effect.size
            self._effects[term] = effect, self._weight * repeats * float((effect**2).sum())
        return self._effects[term]


_DEPENDENT = 1e-9
"""Eigenvalues of a Gram matrix below this share of the largest belong to columns that the others can express."""


class _Fits:
    """Residual sums of squares and ranks of linear models of the means of combinations, each fitted once.

    The designs hold indicators only, so their Gram matrix is a table of how many cells two levels share. It is as wide
    as there are levels, however many cells the grid has.
    """

    def __init__(self, factors: Mapping[str, Codes], means: Floats, counts: Floats) -> None:
        self._factors, self._means, self._counts = factors, means, counts
        self._known: dict[frozenset[Term], tuple[float, int]] = {}
        self._codes: dict[Term, tuple[Codes, int]] = {(): (np.zeros(len(means), np.int64), 1)}

    def __call__(self, terms: Sequence[Term]) -> tuple[float, int]:
        key = frozenset(terms)
        if key not in self._known:
            # What an interaction contains needs no columns of its own: the interaction spans them.
            widest = [term for term in terms if not any(set(term) < set(other) for other in terms)]
            self._known[key] = self._fit([self._indicators(term) for term in widest or [()]])
        return self._known[key]

    def _fit(self, blocks: Sequence[tuple[Codes, int]]) -> tuple[float, int]:
        """Weighted least squares of the means on indicator columns: residual sum of squares and rank."""
        gram = np.block([[self._shared(one, other) for other in blocks] for one in blocks])
        moments = np.concatenate(
            [np.bincount(code, self._counts * self._means, minlength=size) for code, size in blocks]
        )
        eigenvalues, vectors = np.linalg.eigh(gram)
        kept = eigenvalues > _DEPENDENT * eigenvalues[-1]
        basis = vectors[:, kept]
        solution = basis @ ((basis.T @ moments) / eigenvalues[kept])
        offsets = np.cumsum([0, *(size for _, size in blocks[:-1])])
        fitted = sum(solution[offset + code] for offset, (code, _) in zip(offsets, blocks, strict=True))
        return float((self._counts * (self._means - fitted) ** 2).sum()), int(kept.sum())

    def _shared(self, one: tuple[Codes, int], other: tuple[Codes, int]) -> Floats:
        """How many cells have each level of one block of columns and each level of another."""
        (rows, height), (columns, width) = one, other
        table = np.bincount(rows * width + columns, self._counts, minlength=height * width)
        return table.astype(np.float64).reshape(height, width)

    def _indicators(self, term: Term) -> tuple[Codes, int]:
        if term not in self._codes:
            code, _, counts = _combinations([self._factors[name] for name in term], len(self._means))
            self._codes[term] = code, len(counts)
        return self._codes[term]


def block_permutation_test(blocks: Floats, *, permutations: int = PERMUTATIONS, seed: int = 0) -> float | None:
    """p-value of "within a block the levels could be exchanged" (Pitman 1938, Biometrika 29:322).

    The statistic is the variance of the means of the levels. All permutations are gone through where there are few;
    else random ones, with the observed one counted among them (Phipson and Smyth 2010).

    Args:
        blocks: float64, (B, L): one row a block, one column a level.
        permutations: random ones, where there are too many to go through.
        seed: of the random ones.

    Returns:
        The p-value, or None with fewer than two blocks or levels: one block is the same whatever its order.
    """
    count, levels = blocks.shape
    if count < 2 or levels < 2:
        return None
    # Around 0, the sum of squares is the variance.
    blocks = blocks - blocks.mean(axis=1, keepdims=True)
    observed = float(_spread(blocks.sum(axis=0)))
    tolerance = 1e-9 * observed
    orders = list(itertools.permutations(range(levels))) if levels <= 7 else []
    if orders and len(orders) ** (count - 1) <= _EXACT:
        # The first block may stay as it is: permuting all blocks alike changes nothing.
        sums = blocks[:1]
        for row in blocks[1:]:
            sums = (sums[:, None, :] + row[np.array(orders)][None, :, :]).reshape(-1, levels)
        return float((_spread(sums) >= observed - tolerance).mean())
    rng = np.random.default_rng(seed)
    beyond = 0
    for _ in range(permutations):
        beyond += int(_spread(rng.permuted(blocks, axis=1).sum(axis=0)) >= observed - tolerance)
    return (1 + beyond) / (1 + permutations)


def smallest_p(blocks: int, levels: int) -> float:
    """The smallest p-value that `block_permutation_test` can give."""
    return max(math.exp(-(blocks - 1) * math.lgamma(levels + 1)), 1.0 / (1 + PERMUTATIONS))


def _spread(sums: Floats) -> Floats:
    squares: Floats = np.einsum("...k,...k->...", sums, sums)
    return squares


def jackknife_interval(
    draws: Sequence[int], estimate: Callable[[Sequence[int]], float | None]
) -> tuple[float, float] | None:
    """95 % interval of an estimate from independent draws, leaving out one at a time (Tukey 1958), with Student's t.

    For a mean over draws it is the usual t interval. Two draws give an interval of little use, one gives none.

    Args:
        draws: what can be left out.
        estimate: the number from some of them, or None where it is not defined.
    """
    if len(draws) < 2:
        return None
    whole = estimate(draws)
    parts = [estimate([one for one in draws if one != left_out]) for left_out in draws]
    known = [part for part in parts if part is not None]
    if whole is None or len(known) < len(parts):
        return None
    count = len(known)
    error = math.sqrt((count - 1) / count * sum((part - sum(known) / count) ** 2 for part in known))
    reach = float(student_quantile(0.975, count - 1)) * error
    return whole - reach, whole + reach
