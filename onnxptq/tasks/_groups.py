"""Group columns that a task reads off the samples themselves, beside those that the data brings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from onnxptq.data import Dataset
from onnxptq.errors import DataError
from onnxptq.tasks._base import Row
from onnxptq.tasks._task import Task

CHUNK_ROWS = 1024
"""Rows held in memory at a time."""


def add_groups(dataset: Dataset, task: Task) -> Dataset:
    """The dataset with the task's group columns; a column that the data has of that name stays.

    Tasks without such columns get it back as it is, and no sample is read.

    Raises:
        DataError: a sample cannot be read.
    """
    missing = [name for name in task.group_columns if name not in dataset.attributes]
    if not missing:
        return dataset
    found: dict[str, list[str]] = {name: [] for name in missing}
    for start in range(0, len(dataset), CHUNK_ROWS):
        values = _values(task, dataset, dataset.read(np.arange(start, min(start + CHUNK_ROWS, len(dataset)))))
        for name in missing:
            found[name].extend(values[name])
    added = {name: np.array(values, np.str_) for name, values in found.items()}
    return replace(dataset, attributes={**dataset.attributes, **added})


def _values(task: Task, dataset: Dataset, rows: Sequence[Row]) -> dict[str, list[str]]:
    """The group values of rows. Raises DataError naming the row that is at fault."""
    try:
        return task.group_values(rows)
    except DataError:
        for row in rows:
            try:
                task.group_values([row])
            except DataError as error:
                if str(row["_name"]) in str(error):
                    raise
                raise DataError(f"{dataset.place(row)}: {error}") from error
        raise
