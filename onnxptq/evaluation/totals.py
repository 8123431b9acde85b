"""Totals: numbers of a whole data set that are no means of samples (mAP, WER, macro-F1), of two models on its rows.

A total has no score per sample, so it is never cross-fitted and has no groups: it stands beside the table of groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.evaluation._intervals import one_sided_quantile
from onnxptq.evaluation._student import student_quantile
from onnxptq.evaluation.measures import kind_of
from onnxptq.evaluation.predictions import Predictions
from onnxptq.heads import Total

BLOCKS = 20
"""Blocks of sources that are left out in turn: the interval is then 7 % wider than with any number of them, and a total
is computed 21 times for each model."""

Floats = npt.NDArray[np.float64]
Records = Mapping[str, Any]
"""What a total is computed from, by name: N values each, an array (N, ...) or a list."""


@dataclass(frozen=True)
class TotalDrop:
    """A total of two models on the same samples.

    Attributes:
        name: of the total.
        before: of the reference; NaN where it is not defined (no object of that size).
        after: of the model; the same.
        drop: before - after, or after - before where smaller is better; in the unit of the total.
        standard_error: of the drop, sources as independent; NaN with fewer than two sources, or where the drop is not
            defined without one of the blocks.
        blocks: how many blocks of sources were left out in turn.
        n: samples.
        sources: original samples behind them.
        share: False where the total has a unit of its own (an RMSE, decibels).
    """

    name: str
    before: float
    after: float
    drop: float
    standard_error: float
    blocks: int
    n: int
    sources: int
    share: bool = True

    def bounds(self, confidence: float) -> tuple[float, float]:
        """One-sided lower and upper bounds of the drop, each of which holds alone with this confidence.

        Student's t with as many degrees of freedom as blocks less one. Never nearer to the drop than z² / (S + z²) for
        S sources: that is Tango's interval of a group without any change, and a rare change that no source shows may
        be behind a total as well. One source leaves 1 on either side.

        A total with a unit of its own has no largest value: the least distance is that share of the reference's
        total, which stands for its scale and is no bound of what one source may do; one source leaves no bound.
        """
        whole = 1.0 if self.share else abs(self.before)
        z2 = one_sided_quantile(confidence) ** 2
        least = whole * z2 / (self.sources + z2)
        if not math.isfinite(self.standard_error):
            unknown = 1.0 if self.share else math.inf
            return self.drop - unknown, self.drop + unknown
        quantile = float(student_quantile(confidence, np.array([self.blocks - 1.0]))[0])
        half = max(quantile * self.standard_error, least)
        return self.drop - half, self.drop + half

    def to_dict(self) -> dict[str, Any]:
        """The total as JSON types, with its 95 % interval; NaN becomes None."""
        low, high = self.bounds(0.975)
        values = {**vars(self), "drop_low": low, "drop_high": high}
        if self.share:
            del values["share"]
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


def total_drops(
    totals: Sequence[Total],
    before: Records,
    after: Records,
    source: npt.ArrayLike,
    *,
    blocks: int = BLOCKS,
    seed: int = 0,
) -> tuple[TotalDrop, ...]:
    """Totals under both models, with the standard errors of their drops by leaving out blocks of sources.

    The delete-a-group jackknife (Kott 2001, J. Off. Stat. 17:521): sources are dealt at random to blocks of equal size,
    and the drop is computed without each block in turn, both models without the same.

    Args:
        totals: what is computed. All of them are computed from the same rows before the next ones, so that totals that
            come out of one computation may keep it.
        before: records of the reference, N rows.
        after: records of the model on the same rows.
        source: integers, (N,): a code for the original sample of each row; copies of one stay together.
        blocks: at most as many as there are sources are used.
        seed: deals the sources.

    Returns:
        One for each total. What is not defined, on all rows or without a block, is NaN.

    Raises:
        DataError: there are no rows.
    """
    codes = np.unique(np.asarray(source), return_inverse=True)[1]
    if not len(codes):
        raise DataError("there are no rows to compute totals of. Evaluate on at least one sample.")
    sources = int(codes.max()) + 1
    used = min(blocks, sources)
    block = (np.random.default_rng(seed).permutation(sources) % used)[codes]
    sign = np.array([1.0 if total.larger_is_better else -1.0 for total in totals])

    was_over, now_over = _over(totals, before), _over(totals, after)

    def both(rows: npt.NDArray[np.int64]) -> tuple[Floats, Floats]:
        return was_over(rows), now_over(rows)

    was, now = both(np.arange(len(codes)))
    errors = np.full(len(totals), math.nan)
    if used > 1:
        without = [both(np.flatnonzero(block != number)) for number in range(used)]
        parts = np.array([sign * (one - other) for one, other in without])
        errors = np.sqrt((used - 1) / used * ((parts - parts.mean(axis=0)) ** 2).sum(axis=0))
    columns = zip(totals, was.tolist(), now.tolist(), (sign * (was - now)).tolist(), errors.tolist(), strict=True)
    return tuple(
        TotalDrop(total.name, one, other, drop, error, used, len(codes), sources, total.share)
        for total, one, other, drop, error in columns
    )


def totals_of(reference: Predictions, model: Predictions) -> tuple[TotalDrop, ...]:
    """The totals of the head that made two runs over the same samples; () where it has none.

    Totals read the head's records, and the label and the code (the class) of each row.
    """
    before, after = ({**_columns(run), **run.records} for run in (reference, model))
    known = before.keys() & after.keys()
    totals = [total for total in kind_of(model).totals if known.issuperset(total.needs)]
    return total_drops(totals, before, after, np.unique(model.source_id, return_inverse=True)[1]) if totals else ()


def totals_by_name(reference: Predictions, model: Predictions) -> dict[str, TotalDrop]:
    """`totals_of` two runs, by the name of the total."""
    return {total.name: total for total in totals_of(reference, model)}


def _columns(run: Predictions) -> Records:
    found = {"label": run.label if run.labelled else None, "code": run.code}
    return {name: values for name, values in found.items() if values is not None}


def _over(totals: Sequence[Total], records: Records) -> Callable[[npt.NDArray[np.int64]], Floats]:
    """What gives all totals over some rows."""
    dear = [None if total.over is None else total.over(records) for total in totals]

    def over(rows: npt.NDArray[np.int64]) -> Floats:
        some = _rows(records, rows) if None in dear else {}
        pairs = zip(totals, dear, strict=True)
        return np.array([total.compute(some) if one is None else one(rows) for total, one in pairs], np.float64)

    return over


def _rows(records: Records, rows: npt.NDArray[np.int64]) -> Records:
    return {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows.tolist()]
        for name, values in records.items()
    }
