"""Two models on the same samples, row by row: the one place where it is decided what a row lost."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, UsageError, did_you_mean
from onnxptq.evaluation.groups import default_groupings, group_members, group_rows
from onnxptq.evaluation.measures import Measure, kind_of, measure_of
from onnxptq.evaluation.predictions import Predictions
from onnxptq.evaluation.statistics import SourceCells, SourceSums, cells_by_source, sum_by_source

Rows = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class GroupLayout:
    """The groups of rows: the same for all models on the same samples.

    Attributes:
        names: of every group of every grouping.
        members: for each group its row numbers, int64, ascending.
        sources: int64, (N,): a code for the original sample of each row.
        columns: the group columns that groups are made of, each str, (N,).
    """

    names: tuple[str, ...]
    members: tuple[Rows, ...]
    sources: Rows
    columns: Mapping[str, npt.NDArray[np.str_]]

    @cached_property
    def cells(self) -> SourceCells:
        """Rows by group and source."""
        return cells_by_source(self.sources, self.members)


@dataclass(frozen=True)
class Paired:
    """A model and what it is compared with, row by row.

    Attributes:
        before: float64, (N,): scores of the reference, from 0 to 1.
        after: float64, (N,): scores of the model.
        changed: float64, (N,): 1 where the model's answer differs from the reference's, else 0; None where answers
            cannot be compared exactly (numbers, vectors, images).
        measure: what the scores are.
        groups: which rows belong together, and the original sample of each.
    """

    before: Floats
    after: Floats
    changed: Floats | None
    measure: Measure
    groups: GroupLayout

    def __len__(self) -> int:
        return len(self.after)

    @property
    def labelled(self) -> bool:
        """Whether answers are judged by the truth; else by the reference's answers."""
        return self.measure.against == "truth"

    @property
    def lost(self) -> Floats:
        """float64, (N,): what each row lost, from -1 to 1; negative where the model is better."""
        return self.before - self.after

    @property
    def sources(self) -> Rows:
        """int64, (N,): a code for the original sample of each row."""
        return self.groups.sources

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the groups."""
        return self.groups.names

    @property
    def members(self) -> tuple[Rows, ...]:
        """The row numbers of each group."""
        return self.groups.members

    @property
    def all_rows(self) -> Rows:
        """All row numbers."""
        return np.arange(len(self))

    def by_group(self, value: Floats, *, binary: bool | None = None) -> SourceSums:
        """Sums of `value` (N,) for each group; it is `binary` as the measure is, unless told."""
        return self.groups.cells.sums(value, binary=self._binary(binary))

    def over(self, rows: Rows, value: Floats, *, binary: bool | None = None) -> SourceSums:
        """Sums of `value` (N,) for one group of these rows; one group in the result."""
        return sum_by_source(value, self.sources, [rows], binary=self._binary(binary))

    def _binary(self, told: bool | None) -> bool:
        return self.measure.binary if told is None else told


def lay_out(run: Predictions, groupings: Sequence[str] = ()) -> GroupLayout:
    """Groups the rows of a run; arguments and errors as of `paired`."""
    names, members = group_members(group_rows(run.groups, groupings or default_groupings(run.groups)))
    sources = np.unique(run.source_id, return_inverse=True)[1].astype(np.int64)
    return GroupLayout(tuple(names), tuple(members), sources, dict(run.groups))


def fidelity_measure(run: Predictions) -> Measure:
    """How near answers are to those of the reference, as the head that made them measures it."""
    return kind_of(run).agreement


def measure_named(run: Predictions, name: str) -> Measure:
    """The measure of a run that a user names; "" is `measure_of(run)`.

    Raises:
        UsageError: its task has no measure of that name.
    """
    if not name:
        return measure_of(run)
    kind = kind_of(run)
    measures = {measure.name: measure for measure in (*kind.measures, kind.agreement)}
    if name not in measures:
        raise UsageError(
            f"the task of {run.identity['model']['name']} has no score {name!r}. {did_you_mean(name, measures)}"
        )
    return measures[name]


def scores_of(run: Predictions, reference: Predictions, measure: Measure | None = None) -> Floats:
    """The score of each row of a run: float64, (N,), from 0 to 1.

    Args:
        run: what is judged.
        reference: over the same samples; its answers stand for the truth where the measure is against them.
        measure: None is `measure_of(run)`.
    """
    measure = measure or measure_of(run)
    if measure.against == "truth" and measure.name in run.scores:
        return run.scores[measure.name].astype(np.float64)
    if run is reference and measure.against == "reference":
        return np.ones(len(run))
    if run.code is None or reference.code is None or not measure.binary:
        return fidelity_of(run, reference)
    truth = reference.code if measure.against == "reference" else run.label
    scores: Floats = (run.code == truth).astype(np.float64)
    return scores


def fidelity_of(run: Predictions, reference: Predictions) -> Floats:
    """How near answers without a code are to those of another run: float64, (N,), from 0 to 1.

    Raises:
        DataError: it was not measured against that run, and the outputs were too large to keep.
    """
    head = run.head or reference.head
    if head is not None and run.shapes and run.shapes == reference.shapes:
        answers = [head.answers(one.unflattened()) for one in (run, reference)]
        return head.fidelity(*answers).astype(np.float64)
    if run.identity.get("against") not in (None, reference.identity["model"].get("digest")):
        raise DataError(
            f"{run.identity['model']['name']} was not run beside {reference.identity['model']['name']}, and its "
            "outputs are too large to keep, so the two cannot be compared. Evaluate both with one command."
        )
    if run.fidelity is None:
        raise DataError(f"{run.identity['model']['name']}: its fidelity is not known. Evaluate it again.")
    return run.fidelity.astype(np.float64)


def paired(
    reference: Predictions,
    model: Predictions,
    measure: Measure | None = None,
    groupings: Sequence[str] = (),
    *,
    layout: GroupLayout | None = None,
) -> Paired:
    """Two runs, row by row.

    Args:
        reference: what the model is compared with.
        model: the run that is judged.
        measure: what scores are compared; None is `measure_of(model)`.
        groupings: as a user writes them; none is `label*corruption`, or `corruption` without labels.
        layout: what `lay_out` gives for these groupings and another run on the same samples, where that was done.

    Raises:
        DataError: the runs are not over the same samples, or over none.
        UsageError: an unknown group column.
    """
    if not np.array_equal(reference.sample_id, model.sample_id):
        raise DataError(
            "the predictions of the model and of the reference are not over the same samples, so they cannot be "
            "compared. Make both with one `onnxptq evaluate --predictions FILE`."
        )
    if not len(model):
        raise DataError("the predictions have no rows, so there is nothing to judge. Evaluate on at least one sample.")
    measure = measure or measure_of(model)
    return Paired(
        before=scores_of(reference, reference, measure),
        after=scores_of(model, reference, measure),
        changed=changed(reference, model),
        measure=measure,
        groups=layout or lay_out(model, groupings),
    )


def changed(reference: Predictions, model: Predictions) -> Floats | None:
    """float64, (N,): 1 where the answer differs from the reference's, else 0; None where answers have no code."""
    if model.code is None or reference.code is None:
        return None
    return np.asarray(model.code != reference.code, np.float64)


def share_changed(reference: Predictions, model: Predictions) -> float:
    """The share of samples whose answer differs from the reference's; NaN where answers have no code."""
    differs = changed(reference, model)
    return math.nan if differs is None else float(differs.mean())
