"""Two runs over the same samples as sums per group and source, from which the rules are computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, UsageError, did_you_mean
from onnxptq.evaluation.groups import default_groupings, group_members, group_rows
from onnxptq.evaluation.predictions import Predictions
from onnxptq.evaluation.statistics import SourceSums, sum_by_source

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Pairing:
    """A model and what it is compared with, row by row.

    Attributes:
        labelled: rows have labels; without them only flips can be judged.
        names: of the groups of all groupings.
        members: for each group its row numbers.
        sources: int64, (n,): a code for the original sample of each row.
        lost: float64, (n,): 1 where the reference is right and the model wrong, -1 the other way round, else 0.
        right: float64, (n,): 1 where the model is right.
        flipped: float64, (n,): 1 where the predictions differ.
        columns: the group columns, each str, (n,).
    """

    labelled: bool
    names: tuple[str, ...]
    members: tuple[Rows, ...]
    sources: Rows
    lost: Floats
    right: Floats
    flipped: Floats
    columns: dict[str, npt.NDArray[np.str_]]

    def __len__(self) -> int:
        return len(self.lost)

    def by_group(self, value: Floats) -> SourceSums:
        """Sums of `value` (n,) for each group."""
        return sum_by_source(value, self.sources, self.members)

    def over(self, rows: Rows, value: Floats) -> SourceSums:
        """Sums of `value` (n,) for one group of these rows; one group in the result."""
        return sum_by_source(value, self.sources, [rows])

    @property
    def all_rows(self) -> Rows:
        """All row numbers."""
        return np.arange(len(self))

    def rows_of(self, group: str) -> Rows:
        """The rows of a group that a policy names, "label=cat*corruption=fog@3".

        Raises:
            UsageError: no such column or value in the data, with the closest ones.
        """
        chosen = np.ones(len(self), dtype=np.bool_)
        for part in group.split("*"):
            column, equals, value = (text.strip() for text in part.partition("="))
            if not equals:
                raise UsageError(f'the policy names the group {group!r}; expected column=value, as in "label=cat".')
            if column not in self.columns:
                raise UsageError(
                    f"the policy names the group {group!r}, but the data has no column {column!r}. "
                    f"{did_you_mean(column, self.columns)}"
                )
            if not (matching := self.columns[column] == value).any():
                values = np.unique(self.columns[column]).tolist()
                raise UsageError(
                    f"the policy names the group {group!r}, but no sample has {column}={value}. "
                    f"{did_you_mean(value, values)}"
                )
            chosen &= matching
        if not chosen.any():
            raise UsageError(f"the policy names the group {group!r}, but no sample is in it. Leave the rule out.")
        return np.flatnonzero(chosen)


def pair(reference: Predictions, model: Predictions, group_by: Sequence[str] = ()) -> Pairing:
    """Two runs, row by row.

    Args:
        reference: what the model is compared with.
        model: the run that is judged.
        group_by: groupings; () is label x corruption, or corruption without labels.

    Raises:
        DataError: the runs are over other samples.
        UsageError: an unknown group column.
    """
    if not np.array_equal(reference.sample_id, model.sample_id):
        raise DataError(
            "the predictions of the model and of the reference are not over the same samples. Make both with one "
            "`onnxptq evaluate --predictions FILE`."
        )
    if not len(model):
        raise DataError("the predictions have no rows, so there is nothing to judge. Evaluate on at least one sample.")
    names, members = group_members(group_rows(model.groups, group_by or default_groupings(model.groups)))
    right = model.correct.astype(np.float64)
    return Pairing(
        labelled=model.labelled,
        names=tuple(names),
        members=tuple(members),
        sources=np.unique(model.source_id, return_inverse=True)[1].astype(np.int64),
        lost=reference.correct.astype(np.float64) - right,
        right=right,
        flipped=(model.prediction != reference.prediction).astype(np.float64),
        columns=dict(model.groups),
    )


def against_outcomes(pairing: Pairing, before: npt.NDArray[np.bool_]) -> Pairing:
    """The same rows against other outcomes of the reference: bool, (n,), right or (without labels) agreeing."""
    now = pairing.right if pairing.labelled else 1.0 - pairing.flipped
    return replace(pairing, lost=before.astype(np.float64) - now)
