"""Groups: which rows of predictions belong together. `label*corruption` crosses columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError, did_you_mean, inside

DEFAULT_GROUPING = "label*corruption"


@dataclass(frozen=True)
class Grouping:
    """One partition of the rows.

    Attributes:
        text: as the user wrote it, "label*corruption".
        names: of its groups, sorted, "label=cat*corruption=fog@3".
        codes: int64, (N,): index into `names` of each row.
    """

    text: str
    names: tuple[str, ...]
    codes: npt.NDArray[np.int64]


def group_rows(columns: Mapping[str, npt.NDArray[np.str_]], groupings: Sequence[str]) -> tuple[Grouping, ...]:
    """The groupings that a user asked for.

    Args:
        columns: group columns, each str, (N,).
        groupings: column names, or several joined with `*`.

    Raises:
        UsageError: a column that there is not.
    """
    return tuple(_grouping(columns, text) for text in dict.fromkeys(groupings))


def default_groupings(columns: Mapping[str, npt.NDArray[np.str_]]) -> tuple[str, ...]:
    """`label*corruption` where there are labels, else `corruption`."""
    return (DEFAULT_GROUPING,) if "label" in columns else ("corruption",)


def check_groupings(columns: Sequence[str], groupings: Sequence[str]) -> None:
    """Raises UsageError when a grouping names a column that there is not, before anything is computed."""
    for text in groupings:
        for name in text.split("*"):
            if name.strip() not in columns:
                raise UsageError(
                    f"unknown group column {name.strip()!r}{inside(name, text)}. {did_you_mean(name.strip(), columns)}"
                )


def _grouping(columns: Mapping[str, npt.NDArray[np.str_]], text: str) -> Grouping:
    check_groupings(list(columns), [text])
    names = [name.strip() for name in text.split("*")]
    parts = [np.unique(columns[name], return_inverse=True) for name in names]
    shape = [len(values) for values, _ in parts]
    crossed = np.ravel_multi_index([codes for _, codes in parts], shape)
    present, codes = np.unique(crossed, return_inverse=True)
    labels = []
    for indices in zip(*np.unravel_index(present, shape), strict=True):
        pieces = [f"{name}={values[i]}" for name, (values, _), i in zip(names, parts, indices, strict=True)]
        labels.append("*".join(pieces))
    return Grouping(text, tuple(labels), codes.astype(np.int64))


def group_members(groupings: Sequence[Grouping]) -> tuple[list[str], list[npt.NDArray[np.int64]]]:
    """Names of every group of every grouping, and the rows of each: int64, ascending."""
    names: list[str] = []
    members: list[npt.NDArray[np.int64]] = []
    for grouping in groupings:
        order = np.argsort(grouping.codes, kind="stable")
        ends = np.cumsum(np.bincount(grouping.codes, minlength=len(grouping.names)))
        names.extend(grouping.names)
        members.extend(np.split(order, ends[:-1]))
    return names, members
