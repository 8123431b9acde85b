"""Group columns that a task reads off the samples themselves, beside those that the data brings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxptq.data import Dataset
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
        values = task.group_values(dataset.read(np.arange(start, min(start + CHUNK_ROWS, len(dataset)))))
        for name in missing:
            found[name].extend(values[name])
    added = {name: np.array(values, np.str_) for name, values in found.items()}
    return replace(dataset, attributes={**dataset.attributes, **added})
