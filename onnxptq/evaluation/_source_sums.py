"""Rows summed per group and source: the one layout that every statistic of groups works on.

The copies of one original sample (an image under ten corruptions) share its luck. So nothing here counts rows as
independent: sums are kept per source, and splits and resamples take sources, never rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Booleans = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class SourceSums:
    """A value per row, summed over the rows that each group has of each source (one such pair is a cell).

    Cells without rows are left out, so memory is 40 bytes for each row of each group at most. Cells are sorted by
    group, then by source; sources are numbered in the order of their codes. Row order leaves no trace.

    Attributes:
        n_sources: how many sources there are in all rows, S.
        first: int64, (G,): the first cell of each group. Every group has at least one.
        group: int64, (cells,): the group of each cell, 0 to G - 1.
        source: int64, (cells,): the source of each cell, 0 to S - 1.
        rows: float64, (cells,): number of rows.
        total: float64, (cells,): sum of the value.
        squares: float64, (cells,): sum of the squared value.
        all_rows: float64, (S,): number of rows of each source, in groups or not, each row once.
        all_total: float64, (S,): sum of their values.
        binary: the value of each row is 0 or 1, or a difference of two such values. Intervals and tests are then those
            of proportions; any other value from -1 to 1 takes ones that hold for every distribution.
    """

    n_sources: int
    first: Integers
    group: Integers
    source: Integers
    rows: Floats
    total: Floats
    squares: Floats
    all_rows: Floats
    all_total: Floats
    binary: bool = True

    @property
    def n_groups(self) -> int:
        """Number of groups, G."""
        return len(self.first)

    @property
    def group_rows(self) -> Floats:
        """Rows of each group, float64, (G,)."""
        return self.by_group(self.rows)

    @property
    def group_sources(self) -> Integers:
        """Sources of each group, int64, (G,)."""
        return np.diff(self.first, append=len(self.source))

    @property
    def group_means(self) -> Floats:
        """The mean of the value over the rows of each group, float64, (G,)."""
        return self.by_group(self.total) / self.group_rows

    @property
    def mean(self) -> float:
        """The mean of the value over all rows."""
        return float(self.all_total.sum() / self.all_rows.sum())

    def by_group(self, cells: Floats) -> Floats:
        """Sums one number per cell to one number per group, float64, (G,)."""
        sums: Floats = np.add.reduceat(cells, self.first)
        return sums

    def weighted(self, weights: Floats) -> tuple[Floats, Floats]:
        """Rows and total of each group when source s counts `weights[s]` times: two float64 arrays, (G,)."""
        cell_weights = weights[self.source]
        return self.by_group(cell_weights * self.rows), self.by_group(cell_weights * self.total)


@dataclass(frozen=True)
class SourceCells:
    """The cells that groups of rows fall into, for any number of values over the same rows; see `SourceSums`.

    Attributes:
        row: int64: the rows of all groups, cell by cell.
        cell: int64: the cell of each of them.
        start: int64, (cells,): where each cell starts in `row`.
        group, source: int64, (cells,): of each cell.
        row_source: int64, (n,): the source of each row.
        n_sources: S.
    """

    row: Integers
    cell: Integers
    start: Integers
    group: Integers
    source: Integers
    row_source: Integers
    n_sources: int

    def sums(self, value: npt.ArrayLike, *, binary: bool = True) -> SourceSums:
        """Sums a value, (n,). Arguments and errors as of `sum_by_source`."""
        values = np.asarray(value, dtype=np.float64)
        if values.shape != self.row_source.shape:
            raise ValueError(f"value and source must be of one length, got {values.shape} and {self.row_source.shape}")
        if not np.isfinite(values).all():
            row = int(np.argmin(np.isfinite(values)))
            raise DataError(f"the value of row {row} is {values[row]}, expected a finite number. Leave that row out.")
        cell_values, sources = values[self.row], self.row_source
        # Sorting by value within a cell fixes the order of summation, so that row order cannot change the last bit.
        # Sums of 1, 0 and -1 are exact in any order.
        if not np.isin(values, (-1.0, 0.0, 1.0)).all():
            cell_values = cell_values[np.lexsort((cell_values, self.cell))]
            by_value = np.lexsort((values, sources))
            values, sources = values[by_value], sources[by_value]
        return SourceSums(
            n_sources=self.n_sources,
            first=np.flatnonzero(np.diff(self.group, prepend=-1)),
            group=self.group,
            source=self.source,
            rows=np.diff(self.start, append=len(self.row)).astype(np.float64),
            total=np.add.reduceat(cell_values, self.start),
            squares=np.add.reduceat(cell_values**2, self.start),
            all_rows=np.bincount(sources, minlength=self.n_sources).astype(np.float64),
            all_total=np.bincount(sources, values, self.n_sources).astype(np.float64),
            binary=binary,
        )


def cells_by_source(source: npt.ArrayLike, groups: Sequence[npt.ArrayLike]) -> SourceCells:
    """Sorts the rows of groups into cells. Arguments and errors as of `sum_by_source`."""
    codes = np.asarray(source)
    members = [np.asarray(rows, dtype=np.int64) for rows in groups]
    sizes = np.array([len(rows) for rows in members], dtype=np.int64)
    if codes.ndim != 1:
        raise ValueError(f"source must be 1-D, got shape {codes.shape}")
    if not len(codes) or not len(sizes):
        raise DataError("no rows or no groups to compute statistics of. Give at least one evaluated sample and group.")
    if not sizes.all():
        raise DataError(f"group number {int(np.argmin(sizes))} has no rows. Leave empty groups out.")
    distinct, row_source = np.unique(codes, return_inverse=True)
    row = np.concatenate(members)
    key = np.repeat(np.arange(len(members)), sizes) * len(distinct) + row_source[row]
    order = np.argsort(key, kind="stable")
    row, key = row[order], key[order]
    new = np.diff(key, prepend=-1) != 0
    start = np.flatnonzero(new)
    group, cell_source = np.divmod(key[start], len(distinct))
    return SourceCells(row, np.cumsum(new) - 1, start, group, cell_source, row_source, len(distinct))


def sum_by_source(
    value: npt.ArrayLike, source: npt.ArrayLike, groups: Sequence[npt.ArrayLike], *, binary: bool = True
) -> SourceSums:
    """Sums `value` per group and source.

    For drops the value is `reference_correct - correct` (1 lost, -1 gained, 0 the same); for flips it is `flipped`;
    for accuracy `correct`. A graded score, or the difference of two, gives any number from -1 to 1 and `binary=False`.

    Args:
        value: (n,), bool or number, finite.
        source: integers, (n,): a code for the original sample that each row was made from.
        groups: for each group its row numbers, 0 to n - 1, none twice. A row may belong to several groups or to none.
        binary: as of `SourceSums`.

    Raises:
        DataError: there are no rows, a group is empty, or a value is not finite.
        ValueError: lengths differ.
    """
    return cells_by_source(source, groups).sums(value, binary=binary)


def full_dependence(sums: SourceSums) -> Floats:
    """Rows of the source that a row of the group comes from, on average: float64, (G,); 1 where each occurs once.

    The design effect of a group in which all rows of a source do the same (Kish 1965, Survey Sampling, chapter 5).
    """
    return sums.by_group(sums.rows**2) / sums.group_rows


def design_effects(sums: SourceSums) -> Floats:
    """How many rows of a group tell as much as one independent row, at least 1: float64, (G,).

    The variance of the group's mean with sources as clusters over its variance with rows as independent (the linearised
    ratio estimator; Rao and Scott 1992, Biometrics 48:577). Few flips estimate this badly, so the sums get one
    pseudo-flip that all rows of a source share: without any flip the result is full dependence. Exactly 1 where each
    source occurs once; exactly k for k identical copies.
    """
    means = sums.group_means
    between = sums.by_group((sums.total - means[sums.group] * sums.rows) ** 2)
    rows = sums.group_rows
    within = np.maximum(sums.by_group(sums.squares) - rows * means**2, 0.0)
    effect = np.maximum((between + full_dependence(sums)) / (within + 1.0), 1.0)
    return np.where(sums.group_sources == rows, 1.0, effect)


def standard_errors(sums: SourceSums) -> Floats:
    """Of the mean of each group, sources as independent, without any assumption on the value: float64, (G,).

    The linearized ratio estimator (Cochran 1977, Sampling Techniques, 6.3), with S / (S - 1) for S sources; infinite
    where a group has one source.
    """
    means, sources = sums.group_means, sums.group_sources.astype(np.float64)
    between = sums.by_group((sums.total - means[sums.group] * sums.rows) ** 2)
    errors = np.sqrt(between * sources / np.maximum(sources - 1.0, 1.0)) / sums.group_rows
    return np.where(sources > 1, errors, np.inf)


def medians(sums: SourceSums) -> Floats:
    """The median over the sources of each group of what a source's rows have on average: float64, (G,)."""
    means, count = sums.total / sums.rows, sums.group_sources
    ordered = means[np.lexsort((means, sums.group))]
    middle: Floats = (ordered[sums.first + (count - 1) // 2] + ordered[sums.first + count // 2]) / 2.0
    return middle


def centered(sums: SourceSums, center: Floats, scale: Floats) -> SourceSums:
    """The sums of (value - center) / scale, both float64, (G,); `all_total` stays as it is."""
    middle, unit = center[sums.group], scale[sums.group]
    squares = sums.squares - 2.0 * middle * sums.total + middle**2 * sums.rows
    return replace(sums, total=(sums.total - middle * sums.rows) / unit, squares=np.maximum(squares, 0.0) / unit**2)


def losses_and_gains(drops: SourceSums) -> tuple[Floats, Floats]:
    """McNemar's b and c for each group, from the sums of `reference_correct - correct`: two float64 arrays, (G,).

    Of graded scores they are the counts of a three-valued drop with the same mean and mean square (moment matching);
    they need not be whole, and one is below 0 where many rows change a little in one direction.
    """
    total, changed = drops.by_group(drops.total), drops.by_group(drops.squares)
    return (changed + total) / 2.0, (changed - total) / 2.0
