"""Labels: from the values in a source to class indices, and from those to the order of the model's output."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.dataset import Dataset
from onnxptq.errors import DataError
from onnxptq.foreign_text import one_line

Names = tuple[str, ...]

UNLABELLED = -1
"""The label that public test splits carry in place of a secret one."""


def plain_labels(values: Iterable[Any], where: str) -> list[int | str | None]:
    """Label values as integers and strings, None for those that are missing (null, NaN, -1).

    Raises:
        DataError: a value is neither a whole number nor text.
    """
    return [_plain(value, where) for value in values]


def label_names_of(splits: Sequence[Sequence[int | str | None] | None], declared: Sequence[str] | None) -> Names:
    """The classes of a source: the declared ones, else the sorted distinct values over all its splits.

    Integers sort as numbers, everything else as text.
    """
    if declared:
        return tuple(map(one_line, declared))
    distinct = {value for split in splits for value in split or () if value is not None}
    if all(isinstance(value, int) for value in distinct):
        return tuple(str(value) for value in sorted(distinct, key=int))
    return tuple(sorted(str(value) for value in distinct))


def encode_labels(
    values: Sequence[int | str | None], names: Names, declared: bool, where: str
) -> npt.NDArray[np.int64] | None:
    """Class indices, int64, (N,), or None where no sample has a label.

    Args:
        values: one label a sample.
        names: the classes.
        declared: the values are indices into `names` already.
        where: the source, for messages.

    Raises:
        DataError: some samples have a label and others have none, or an index is not one of the classes.
    """
    missing = [position for position, value in enumerate(values) if value is None]
    if len(missing) == len(values):
        return None
    if missing:
        raise DataError(
            f"{where}: {len(missing)} of {len(values)} samples have no label (null or {UNLABELLED}), the first is row "
            f"{missing[0]}. Label all of them, or none, or name another label column."
        )
    index = {name: position for position, name in enumerate(names)}
    if not declared:
        return np.array([index[str(value)] for value in values], np.int64)
    encoded = [value if isinstance(value, int) else index.get(str(value), len(names)) for value in values]
    for value, label in zip(values, encoded, strict=True):
        if not 0 <= label < len(names):
            raise DataError(f"{where}: label {value!r} is not one of the {len(names)} classes {_shown(names)}.")
    return np.array(encoded, np.int64)


def align_labels(dataset: Dataset, classes: Sequence[str]) -> tuple[Dataset, str | None]:
    """The dataset with its labels in the order of the model's output, and a warning or None.

    By name (in any case) where every class that occurs is one of the model's. By index where the labels are plain
    integers, where the model has no class names, or, with a warning, where there are as many names as classes and
    none in common.

    Args:
        dataset: with labels or without; without, it comes back as it is.
        classes: the model's class names in the order of its output, or () when they are not known.

    Raises:
        DataError: the names fit neither way; an integer label is not an index of a class.
    """
    if dataset.labels is None:
        return dataset, None
    integers = all(name.isdecimal() for name in dataset.label_names)
    if not classes:
        return (_by_integer(dataset, ()) if integers else dataset), None
    folded = {name.casefold(): index for index, name in enumerate(classes)}
    occurring = [dataset.label_names[index] for index in np.unique(dataset.labels)]
    if all(name.casefold() in folded for name in occurring):
        mapping = [folded.get(name.casefold(), UNLABELLED) for name in dataset.label_names]
        return _mapped(dataset, mapping, classes), None
    if integers:
        return _by_integer(dataset, classes), None
    common = [name for name in dataset.label_names if name.casefold() in folded]
    if not common and len(dataset.label_names) == len(classes):
        warning = (
            f"the labels of {dataset.source} ({_shown(dataset.label_names)}) have other names than the model's classes "
            f"({_shown(classes)}): matched by their order."
        )
        return _mapped(dataset, range(len(classes)), classes), warning
    raise DataError(
        f"the labels of {dataset.source} are not the model's classes. Labels: {_shown(dataset.label_names)}. "
        f"Classes: {_shown(classes)}. Rename the labels, or give the model's class names in their order."
    )


def _by_integer(dataset: Dataset, classes: Sequence[str]) -> Dataset:
    values = [int(name) for name in dataset.label_names]
    if not classes:
        classes = [str(value) for value in range(max(values) + 1)]
    if max(values) >= len(classes):
        raise DataError(
            f"{dataset.source} has the label {max(values)}, but the model has {len(classes)} classes "
            f"({_shown(classes)}), counted from 0. Labels: {_shown(dataset.label_names)}."
        )
    return _mapped(dataset, values, classes)


def _mapped(dataset: Dataset, mapping: Sequence[int], classes: Sequence[str]) -> Dataset:
    """Labels replaced by `mapping[label]`, an index into `classes`; the "label" attribute follows."""
    labels = np.asarray(mapping, np.int64)[dataset.labels]
    return replace(
        dataset,
        labels=labels,
        label_names=tuple(classes),
        attributes={**dataset.attributes, "label": np.asarray(classes, np.str_)[labels]},
    )


def _plain(value: Any, where: str) -> int | str | None:
    if value is None or value != value or value == UNLABELLED:
        return None
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, (int, float, np.number, np.bool_)) and math.isfinite(value) and value == int(value):
        return int(value)
    raise DataError(
        f"{where}: the label {value!r} is not a class. Expected names or whole numbers in the label column."
    )


def _shown(names: Sequence[str], most: int = 12) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
