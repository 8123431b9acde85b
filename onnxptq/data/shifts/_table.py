"""Shifts of tables: what goes wrong with columns between the training data and what is served.

A batch is as of tensors. Only inputs that are tables change; a column's deviation is the training data's where it is
known, else the size of each number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from onnxptq.data.shifts._apply import generators
from onnxptq.data.shifts._base import SHIFTS, Facts, InputFacts, Seeds, Shift
from onnxptq.data.shifts.tensor import Array, Tensors, is_float, kind_of, spread

MISSING = (0.1, 0.2, 0.3, 0.5, 0.8)
FACTORS = (2.5, 4.0, 10.0, 100.0, 1000.0)
MOVED = (0.25, 0.5, 1.0, 2.0, 3.0)


def _each_row(
    name: str, change: Callable[[Array, int, np.random.Generator, InputFacts], Array]
) -> Callable[..., Tensors]:
    """A change of one row, `change(row, level, generator, known)`, for all rows of all inputs that are tables."""

    def apply(batch: Tensors, severity: int, seeds: Seeds, facts: Facts) -> Tensors:
        changed = {key: array.copy() for key, array in batch.items()}
        # By name, so that what happens does not depend on the order in which the inputs were listed.
        for index, generator in enumerate(generators(name, seeds)):
            for key in sorted(changed):
                row = np.asarray(changed[key][index])
                known = facts.get(key) or InputFacts(kind_of(row.shape))
                if is_float(row) and row.size and known.kind == "table":
                    changed[key][index] = change(row.astype(np.float64), severity - 1, generator, known)
        return changed

    return apply


def _missing_values(row: Array, level: int, generator: np.random.Generator, known: InputFacts) -> Array:
    filled = np.broadcast_to(known.mean, row.shape) if known.standard else np.zeros_like(row)
    return np.where(generator.random(row.shape) < MISSING[level], filled, row)


def _wrong_unit(row: Array, level: int, generator: np.random.Generator, known: InputFacts) -> Array:
    changed, at = np.array(row), int(generator.integers(row.size))
    factor = FACTORS[level] if generator.random() < 0.5 else 1 / FACTORS[level]
    changed.flat[at] *= factor
    return changed


def _column_shift(row: Array, level: int, generator: np.random.Generator, known: InputFacts) -> Array:
    return row + MOVED[level] * spread(row, known)


_DEFINITIONS: tuple[tuple[str, str, Callable[..., Array], str], ...] = (
    ("missing_values", "missing", _missing_values, "0.1 to 0.8 of the cells missing: the training data's mean, else 0"),
    ("wrong_unit", "unit", _wrong_unit, "one cell of each row times or through 2.5, 4, 10, 100, 1000"),
    ("column_shift", "drift", _column_shift, "every column 0.25, 0.5, 1, 2, 3 deviations up"),
)
for _name, _family, _change, _summary in _DEFINITIONS:
    SHIFTS.register(
        Shift(
            name=_name,
            family=_family,
            modality="tensor",
            apply=_each_row(_name, _change),
            summary=_summary,
            source="ours",
            seeded=_name != "column_shift",
            informed=True,
        )
    )
