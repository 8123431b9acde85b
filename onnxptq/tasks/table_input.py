"""Rows of a table: numeric and categorical columns, as the numbers that a model takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxptq.data.shifts import Batch, Facts, InputFacts
from onnxptq.errors import DataError, ModelError, UsageError, did_you_mean
from onnxptq.signature import Feeds, Signature, TensorSpec, shown
from onnxptq.tasks._base import INPUTS, InputKind, Row
from onnxptq.tasks._rows import row_name
from onnxptq.tasks._table_columns import TableColumn, table_columns
from onnxptq.tasks._tensor_facts import FLOATS
from onnxptq.tasks.tensor_input import TensorInput
from onnxptq.tasks.tensor_input import build as build_tensor

EVALUATION_SHIFTS = ("tensor_noise@3", "missing_values@3")
"""The default evaluation."""


@dataclass(frozen=True)
class TableInput(TensorInput):
    """Batches are {input: float64 (N, F)} in the units of the columns; feeds are standardized by the specification.

    Attributes:
        cells: of each input the columns that it is made of; text inputs take one column as it is.
    """

    cells: Mapping[str, tuple[TableColumn, ...]] = field(default_factory=dict, hash=False)

    name = "table"
    tabular = True

    @property
    def specification(self) -> dict[str, Any]:
        """The columns of each input."""
        return {"columns": {name: [column.to_json() for column in columns] for name, columns in self.cells.items()}}

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of the data that it reads."""
        return tuple(dict.fromkeys(column.name for columns in self.cells.values() for column in columns))

    def load(self, rows: Sequence[Row]) -> Batch:
        """The cells as numbers: {input: array (N, F)}, before mean and std.

        Raises:
            DataError: a column is missing, or a cell is missing, of an unknown category or no number; the message names
                the row.
        """
        return {spec.name: np.stack([self._row(row, spec) for row in rows]) for spec in self.inputs}

    def loadable_together(self, rows: Sequence[Row]) -> list[list[int]]:
        """All: rows have equal shapes."""
        return [list(range(len(rows)))]

    def defect(self, row: Row) -> str | None:
        """Why a row cannot be used, or None."""
        try:
            self.load([row])
        except DataError as error:
            return str(error).removeprefix(f"{row_name(row)}: ")
        return None

    def feeds(self, batch: Batch) -> Feeds:
        """(x - mean) / std by column, in the types and shapes of the model."""
        fed: Feeds = {}
        for spec in self.inputs:
            values = batch[spec.name]
            if spec.dtype == "object":
                fed[spec.name] = values.reshape(len(values), *_inner(spec, 1))
                continue
            mean, std = self._standard(spec.name)
            numbers = (values - mean) / std
            if spec.dtype not in FLOATS:
                numbers = np.rint(numbers)
            shape = (len(values), *_inner(spec, values.shape[1]))
            fed[spec.name] = np.ascontiguousarray(numbers.reshape(shape), spec.dtype)
        return fed

    def evaluation_shifts(self) -> tuple[str, ...]:
        """Those of `EVALUATION_SHIFTS` that make sense here."""
        return tuple(shift for shift in EVALUATION_SHIFTS if self.fits(shift) is None)

    def noise(self, count: int, seed: int) -> Batch:
        """As of tensors, in the units of the columns; a category of each column of categories, equally often."""
        generator = np.random.default_rng(seed)
        batch: dict[str, Any] = {}
        for spec in self.inputs:
            columns = self.cells[spec.name]
            if spec.dtype == "object":
                batch[spec.name] = np.where(generator.random((count, 1)) < 0.5, "a", "b").astype(object)
                continue
            parts = [self._noise_of(column, count, generator) for column in columns]
            batch[spec.name] = np.concatenate(parts, axis=1)
        return batch

    def _noise_of(self, column: TableColumn, count: int, generator: np.random.Generator) -> Any:
        if column.one_hot:
            return np.eye(column.width)[generator.integers(0, column.width, count)]
        if column.values:
            return generator.choice([value for _, value in column.values], (count, 1))
        return generator.standard_normal((count, 1)) * column.std + column.mean

    def input_facts(self) -> Facts:
        """By column, in its own units: what the specification standardizes by, else what the graph does."""
        return {name: self._facts_of(name, known) for name, known in self.facts.items()}

    def _facts_of(self, name: str, known: InputFacts) -> InputFacts:
        columns = self.cells[name]
        if all(column.std == 1 and column.mean == 0 for column in columns):
            return known
        means = [column.mean for column in columns for _ in range(column.width)]
        deviations = [column.std for column in columns for _ in range(column.width)]
        return replace(known, bounds=None, means=tuple(means), deviations=tuple(deviations), axis=-1)

    def _standard(self, name: str) -> tuple[Any, Any]:
        columns = self.cells[name]
        pairs = [(column.mean, column.std) for column in columns for _ in range(column.width)]
        return np.array([mean for mean, _ in pairs]), np.array([std for _, std in pairs])

    def _row(self, row: Row, spec: TensorSpec) -> Any:
        numbers: list[Any] = []
        for column in self.cells[spec.name]:
            if column.name not in row:
                raise DataError(
                    f"{row_name(row)} has no column {column.name!r}. {did_you_mean(column.name, list(row))} The "
                    "specification names the columns of the model (docs/tables.md)."
                )
            cell = row[column.name]
            if spec.dtype == "object":
                numbers.append("" if cell is None else str(cell))
            else:
                numbers.extend(column.numbers(cell.item() if isinstance(cell, np.ndarray) else cell, row_name(row)))
        return np.array(numbers, object if spec.dtype == "object" else np.float64)


def _inner(spec: TensorSpec, width: int) -> tuple[int, ...]:
    """The shape of one row as the model takes it: (F,), or () of a model that takes a number a row."""
    return () if len(spec.shape) < 2 else (width,)


def build(specification: Mapping[str, Any], signature: Signature) -> TableInput:
    """The input of one model.

    Args:
        specification: "columns", a list for the one input, or a list for each input by name; without it each input is
            one column of its own name.
        signature: inputs of shape (N, F), (N, 1) or (N,).

    Raises:
        UsageError: a column is specified wrongly.
        ModelError: an input has another shape or width.
    """
    given = specification.get("columns") or {spec.name: [spec.name] for spec in signature.inputs}
    if not isinstance(given, Mapping):
        if len(signature.inputs) != 1:
            listed = ", ".join(spec.name for spec in signature.inputs)
            raise UsageError(
                f'preprocessing: the model has the inputs {listed}; "columns" needs a list for each by name.'
            )
        given = {signature.inputs[0].name: given}
    names = [spec.name for spec in signature.inputs]
    for name in given:
        if name not in names:
            raise UsageError(f"the model has no input {name!r}. {did_you_mean(str(name), names)}")
    if missing := [name for name in names if name not in given]:
        raise UsageError(f'preprocessing: "columns" says nothing of the input {missing[0]!r}.')
    cells = {name: table_columns(given[name], f"columns of {name!r}") for name in names}
    for spec in signature.inputs:
        _check_width(spec, sum(column.width for column in cells[spec.name]))
    rest = {key: value for key, value in specification.items() if key in ("input_range", "normalizer")}
    kinds = {spec.name: "table" for spec in signature.inputs if spec.dtype in FLOATS}
    tensors = build_tensor({**rest, "kind": kinds}, signature)
    return TableInput(tensors.inputs, tensors.axes, tensors.facts, cells)


def _check_width(spec: TensorSpec, width: int) -> None:
    own = spec.shape[1] if len(spec.shape) == 2 else 1 if len(spec.shape) == 1 else None
    if len(spec.shape) not in (1, 2) or own not in (None, width):
        raise ModelError(
            f"input {spec.name!r} has shape {shown(spec.shape)}, and the specification makes {width} numbers a row of "
            "its columns. Name all columns that the model was trained on, in its order."
        )


INPUTS.register(
    InputKind(
        "table",
        "rows of numeric and categorical columns",
        build,
        formats=("CSV, TSV, JSON lines, Parquet, Arrow", "a saved datasets folder"),
        keys=("columns", "shape", "input_range", "normalizer"),
    )
)
