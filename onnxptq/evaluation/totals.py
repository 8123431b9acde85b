"""Totals: numbers of a whole data set that are no means of samples (mAP, WER, macro-F1), of two models on its rows.

A total has no score per sample, so it is never cross-fitted and has no groups: it stands beside the table of groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.evaluation._intervals import one_sided_quantile
from onnxptq.evaluation._student import student_quantile

BLOCKS = 20
"""Blocks of sources that are left out in turn: the interval is then 7 % wider than with any number of them, and a total
is computed 21 times for each model."""

Records = Mapping[str, Any]
"""What a total is computed from, by name: N values each, an array (N, ...) or a list."""


class Total(Protocol):
    """A number of a whole data set. Heads have them (docs/extending.md)."""

    @property
    def name(self) -> str:
        """As in reports and policies: "mAP"."""
        ...

    @property
    def larger_is_better(self) -> bool:
        """False for error rates."""
        ...

    @property
    def compute(self) -> Callable[[Records], float]:
        """From the records of some samples to the number."""
        ...


@dataclass(frozen=True)
class TotalDrop:
    """A total of two models on the same samples.

    Attributes:
        name: of the total.
        before: of the reference.
        after: of the model.
        drop: before - after, or after - before where smaller is better; in the unit of the total.
        standard_error: of the drop, sources as independent; NaN with fewer than two sources.
        blocks: how many blocks of sources were left out in turn.
        n: samples.
        sources: original samples behind them.
    """

    name: str
    before: float
    after: float
    drop: float
    standard_error: float
    blocks: int
    n: int
    sources: int

    def bounds(self, confidence: float) -> tuple[float, float]:
        """One-sided lower and upper bounds of the drop, each of which holds alone with this confidence.

        Student's t with as many degrees of freedom as blocks less one. Never nearer to the drop than z² / (S + z²) for
        S sources: that is Tango's interval of a group without any change, and a rare change that no source shows may
        be behind a total as well. One source leaves 1 on either side.
        """
        z2 = one_sided_quantile(confidence) ** 2
        least = z2 / (self.sources + z2)
        if not math.isfinite(self.standard_error):
            return self.drop - 1.0, self.drop + 1.0
        quantile = float(student_quantile(confidence, np.array([self.blocks - 1.0]))[0])
        half = max(quantile * self.standard_error, least)
        return self.drop - half, self.drop + half


def total_drop(
    total: Total,
    before: Records,
    after: Records,
    source: npt.ArrayLike,
    *,
    blocks: int = BLOCKS,
    seed: int = 0,
) -> TotalDrop:
    """A total under both models, with the standard error of its drop by leaving out blocks of sources.

    The delete-a-group jackknife (Kott 2001, J. Off. Stat. 17:521): sources are dealt at random to blocks of equal size,
    and the drop is computed without each block in turn, both models without the same.

    Args:
        total: what is computed.
        before: records of the reference, N rows.
        after: records of the model on the same rows.
        source: integers, (N,): a code for the original sample of each row; copies of one stay together.
        blocks: at most as many as there are sources are used.
        seed: deals the sources.

    Raises:
        DataError: there are no rows, or the total of all of them is no number.
    """
    codes = np.unique(np.asarray(source), return_inverse=True)[1]
    if not len(codes):
        raise DataError(f"there are no rows to compute {total.name} of. Evaluate on at least one sample.")
    sources = int(codes.max()) + 1
    used = min(blocks, sources)
    block = (np.random.default_rng(seed).permutation(sources) % used)[codes]
    sign = 1.0 if total.larger_is_better else -1.0
    whole = total.compute(before), total.compute(after)
    if not all(math.isfinite(value) for value in whole):
        raise DataError(f"{total.name} is {whole[0]:g} for the reference and {whole[1]:g} for the model: no number.")
    error = math.nan
    if used > 1:
        kept = [np.flatnonzero(block != number) for number in range(used)]
        parts = [sign * (total.compute(_rows(before, rows)) - total.compute(_rows(after, rows))) for rows in kept]
        # A block without which the total is not defined (a class is gone) leaves the error unknown.
        error = math.sqrt((used - 1) / used * float(((np.array(parts) - np.mean(parts)) ** 2).sum()))
    drop = sign * (whole[0] - whole[1])
    return TotalDrop(total.name, *whole, drop, error, used, len(codes), sources)


def _rows(records: Records, rows: npt.NDArray[np.int64]) -> Records:
    return {
        name: values[rows] if isinstance(values, np.ndarray) else [values[row] for row in rows.tolist()]
        for name, values in records.items()
    }
