"""The paper's three research questions, answered from a study: calibration set, method, augmentation or sampling.

Each answer has an effect size (share of the variance of the cross-fitted worst-group drop), an interval (leaving out
one draw at a time), a test (labels exchanged within what shares a draw), and each level's difference to a reference.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from onnxptq.evaluation.grid_statistics import (
    Shares,
    Term,
    block_permutation_test,
    jackknife_interval,
    smallest_p,
    variance_shares,
)
from onnxptq.reports.study.summary import number
from onnxptq.sweeps.study import Cell, Study

CROSSED = ("model", "calibration", "strategy", "method", "target", "runtime")
"""Factors of the grid; the seed makes the replicates."""

_PAIRS: tuple[Term, ...] = (("calibration", "strategy"), ("calibration", "method"), ("strategy", "method"))
"""Interactions that have a share of their own; the others are summed up."""

_SHARED_DRAW = {
    "calibration": ("seed",),
    "strategy": ("calibration", "seed"),
    "method": ("calibration", "strategy", "seed"),
}
"""What a block is for each question: cells that share these drew the same samples, and share their luck."""

_QUESTIONS = {
    "calibration": "Does the calibration set matter?",
    "method": "Does the calibration method matter?",
    "strategy": "Does augmentation or sampling matter?",
}


@dataclass(frozen=True)
class Level:
    """One level of a factor, over all cells that have every level.

    Attributes:
        name: of the level; "none" for no strategy.
        mean: mean cross-fitted drop, a fraction.
        difference: to the reference level, paired.
        low, high: 95 % interval of the difference over draws; None with one draw, and for the reference.
    """

    name: str
    mean: float
    difference: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Answer:
    """The answer to one research question.

    Attributes:
        factor: "calibration", "method" or "strategy".
        question: in words.
        share: eta squared of the factor alone; None where it cannot be told.
        low, high: its 95 % interval over draws; None with one draw.
        joint: eta squared of its interactions with the two other factors.
        p: of the permutation test; None where there is none.
        blocks: blocks that it was tested over.
        smallest: the smallest p that they could give.
        levels: the reference first.
        dropped: levels without a single result, which are left out.
        missing: why there is no answer, or "".
    """

    factor: str
    question: str
    share: float | None = None
    low: float | None = None
    high: float | None = None
    joint: float | None = None
    p: float | None = None
    blocks: int = 0
    smallest: float | None = None
    levels: tuple[Level, ...] = ()
    dropped: tuple[str, ...] = ()
    missing: str = ""


@dataclass(frozen=True)
class VarianceRow:
    """One line of the table of variance: share (eta squared), its interval, omega squared, degrees of freedom."""

    term: str
    share: float
    low: float | None = None
    high: float | None = None
    unbiased: float | None = None
    degrees: int | None = None


@dataclass(frozen=True)
class Answers:
    """The three answers, the table of variance, and what limits them.

    Attributes:
        answers: calibration set, method, strategy.
        variance: one row a term.
        seeds: how many draws there are.
        judged, cells: cells with a cross-fitted drop, and all.
        notes: what limits the answers.
    """

    answers: tuple[Answer, ...]
    variance: tuple[VarianceRow, ...]
    seeds: int
    judged: int
    cells: int
    notes: tuple[str, ...] = field(default=())


def answer_questions(study: Study) -> Answers:
    """Answers the three research questions from the cells that have a cross-fitted drop."""
    cells = [cell for cell in study.cells if number(cell, "crossfit_drop") is not None]
    seeds = sorted({cell.key.seed for cell in cells})
    shares = _shares(cells)
    variance = _variance_rows(cells, shares, seeds)
    found = {row.term: row for row in variance}
    answers = tuple(_answer(study, cells, factor, shares, found, seeds) for factor in _QUESTIONS)
    return Answers(answers, variance, len(seeds), len(cells), len(study.cells), _notes(study, cells, seeds))


def term_name(term: Term) -> str:
    """How a term is written: "calibration × method"."""
    return " × ".join(term)


def _terms(cells: Sequence[Cell]) -> tuple[Term, ...]:
    """Main effects of what varies, and the interactions of the three questions."""
    varies = [name for name in CROSSED if len({getattr(cell.key, name) for cell in cells}) > 1]
    return (*((name,) for name in varies), *(pair for pair in _PAIRS if set(pair) <= set(varies)))


def _shares(cells: Sequence[Cell], terms: tuple[Term, ...] | None = None) -> Shares | None:
    terms = _terms(cells) if terms is None else terms
    if not terms or len(cells) < 2:
        return None
    factors = {name: _codes([getattr(cell.key, name) for cell in cells]) for name in CROSSED}
    return variance_shares(np.array([cell.figures.crossfit_drop for cell in cells], np.float64), factors, terms)


def _codes(values: Sequence[Any]) -> Any:
    return np.unique(np.array([str(value) for value in values]), return_inverse=True)[1].astype(np.int64)


def _variance_rows(cells: Sequence[Cell], shares: Shares | None, seeds: Sequence[int]) -> tuple[VarianceRow, ...]:
    if shares is None:
        return ()
    terms = tuple(shares.explained)
    known: dict[frozenset[int], Shares | None] = {frozenset(seeds): shares}

    def of(draws: Sequence[int]) -> Shares | None:
        key = frozenset(draws)
        if key not in known:
            known[key] = _shares([cell for cell in cells if cell.key.seed in key], terms)
        return known[key]

    def interval(read: Callable[[Shares], float | None]) -> tuple[float | None, float | None]:
        found = jackknife_interval(seeds, lambda draws: None if (part := of(draws)) is None else read(part))
        return (None, None) if found is None else (max(0.0, found[0]), min(1.0, found[1]))

    rows = []
    for term in terms:
        low, high = interval(partial(_share_of, term))
        degrees = shares.degrees[term]
        rows.append(VarianceRow(term_name(term), shares.explained[term], low, high, shares.unbiased[term], degrees))
    rows.append(VarianceRow("all other interactions", shares.other, *interval(lambda part: part.other)))
    if shares.replicates is not None:
        rows.append(VarianceRow("seed (draw of the samples)", shares.replicates))
    return tuple(rows)


def _share_of(term: Term, shares: Shares) -> float:
    return shares.explained[term]


def _answer(
    study: Study,
    cells: Sequence[Cell],
    factor: str,
    shares: Shares | None,
    rows: Mapping[str, VarianceRow],
    seeds: Sequence[int],
) -> Answer:
    question = _QUESTIONS[factor]
    planned = list(dict.fromkeys(getattr(cell.key, factor) for cell in study.cells))
    there = {getattr(cell.key, factor) for cell in cells}
    levels = [level for level in planned if level in there]
    dropped = tuple(level_name(level) for level in planned if level not in there)
    if len(levels) < 2:
        why = (
            f"the study has one level of it ({level_name(planned[0])})"
            if len(planned) == 1
            else "too few cells were judged"
        )
        return Answer(factor, question, dropped=dropped, missing=f"Cannot be answered: {why}.")
    if shares is None:
        return Answer(factor, question, p=1.0, dropped=dropped, missing="Every cell has the same drop.")
    row = rows[factor]
    blocks = _blocks(cells, factor, levels)
    matrix = np.array([[statistics.fmean(values) for values in block] for block in blocks.values()], np.float64)
    matrix = matrix.reshape(len(blocks), len(levels))
    joint = sum(share for term, share in shares.explained.items() if len(term) > 1 and factor in term)
    return Answer(
        factor,
        question,
        share=row.share if row.degrees else None,
        low=row.low,
        high=row.high,
        joint=joint,
        p=block_permutation_test(matrix),
        blocks=len(blocks),
        smallest=smallest_p(len(blocks), len(levels)) if len(blocks) > 1 else None,
        levels=_levels(blocks, levels, seeds),
        dropped=dropped,
        missing="" if len(blocks) else "Cannot be tested: no cells differ in this alone, since too many failed.",
    )


Blocks = dict[tuple[Hashable, ...], list[list[float]]]


def _blocks(cells: Sequence[Cell], factor: str, levels: Sequence[Any]) -> Blocks:
    """Values by block and level. Within a block only places that every level has count, so levels stay comparable."""
    shared = _SHARED_DRAW[factor]
    inner = [name for name in (*CROSSED, "seed") if name != factor and name not in shared]
    found: dict[tuple[Hashable, ...], dict[tuple[Hashable, ...], dict[Any, float]]] = {}
    for cell in cells:
        block = tuple(getattr(cell.key, name) for name in shared)
        place = tuple(getattr(cell.key, name) for name in inner)
        found.setdefault(block, {}).setdefault(place, {})[getattr(cell.key, factor)] = cell.figures.crossfit_drop
    blocks: Blocks = {}
    for block, places in found.items():
        complete = [values for values in places.values() if len(values) == len(levels)]
        if complete:
            blocks[block] = [[values[level] for values in complete] for level in levels]
    return blocks


def _levels(blocks: Blocks, levels: Sequence[Any], seeds: Sequence[int]) -> tuple[Level, ...]:
    """Means and differences to the first level; the seed is the last entry of each block's key."""

    def level_mean(number_: int, draws: Sequence[int]) -> float | None:
        values = [value for key, block in blocks.items() if key[-1] in draws for value in block[number_]]
        return statistics.fmean(values) if values else None

    def difference(number_: int, draws: Sequence[int]) -> float | None:
        mean, base = level_mean(number_, draws), level_mean(0, draws)
        return None if mean is None or base is None else mean - base

    made = []
    used = [seed for seed in seeds if any(key[-1] == seed for key in blocks)]
    for position, level in enumerate(levels):
        mean, shift = level_mean(position, used), difference(position, used)
        if mean is None or shift is None:
            continue
        low, high = (jackknife_interval(used, partial(difference, position)) if position else None) or (None, None)
        made.append(Level(level_name(level), mean, shift, low, high))
    return tuple(made)


def level_name(level: Any) -> str:
    """How a level is written; no strategy is "none"."""
    return str(level) if level != "" else "none"


def _notes(study: Study, cells: Sequence[Cell], seeds: Sequence[int]) -> tuple[str, ...]:
    notes = []
    missing = len(study.cells) - len(cells)
    if missing:
        notes.append(
            f"{missing} of {len(study.cells)} cells have no cross-fitted drop (failed, or no group with enough "
            "samples). Tests and differences use only what every level has; with holes the shares of variance need not "
            "add up to 1."
        )
    if len(seeds) < 2:
        notes.append(
            "One seed: no interval, no test of the calibration set, and nothing about how much a draw matters. The "
            "tests of method and strategy say whether they differ across the sets of this one draw."
        )
    elif len(seeds) < 3:
        notes.append("Two seeds: intervals over draws are so wide that they say little. Three or more are needed.")
    notes.append(
        "All cells are judged on the same samples: nothing here covers another evaluation set, or another training run."
    )
    return tuple(notes)
