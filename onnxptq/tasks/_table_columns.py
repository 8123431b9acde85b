"""Columns of a table as numbers: what each cell becomes, and what a cell that is missing or strange means.

{"columns": ["age", {"name": "sex", "values": {"Male": 1, "Female": 0}},
             {"name": "charge", "one_hot": ["F", "M"], "unknown": "zero"},
             {"name": "income", "missing": 0, "mean": 41.5, "std": 20}]}
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnxptq.errors import DataError, UsageError, did_you_mean

KEYS = ("name", "values", "one_hot", "unknown", "missing", "mean", "std")

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?", "-"})
"""Texts that stand for nothing, in any case: pandas' usual ones."""


@dataclass(frozen=True)
class TableColumn:
    """One column of the data, and the numbers that it becomes.

    Attributes:
        name: in the data.
        values: a number for each category; () where the cells are numbers already.
        one_hot: a number for each of these categories, 1 for the cell's own and 0 for the others.
        unknown: a category that is in neither: "error", or "zero" for zeros.
        missing: what a missing cell counts as, before `mean` and `std`; None: an error.
        mean, std: (x - mean) / std is what the model gets, of a column of numbers.
    """

    name: str
    values: tuple[tuple[str, float], ...] = ()
    one_hot: tuple[str, ...] = ()
    unknown: str = "error"
    missing: float | None = None
    mean: float = 0.0
    std: float = 1.0

    @property
    def width(self) -> int:
        """How many numbers it becomes."""
        return len(self.one_hot) or 1

    def to_json(self) -> Any:
        """As it is written; a column of plain numbers is its name alone."""
        found = {
            "name": self.name,
            "values": dict(self.values),
            "one_hot": list(self.one_hot),
            "unknown": self.unknown if self.unknown != "error" else None,
            "missing": self.missing,
            "mean": self.mean or None,
            "std": self.std if self.std != 1 else None,
        }
        said = {key: value for key, value in found.items() if value not in (None, [], {})}
        return said if len(said) > 1 else self.name

    def numbers(self, cell: Any, where: str) -> list[float]:
        """What a cell becomes, before `mean` and `std`.

        Raises:
            DataError: it is missing and nothing says what that means, of an unknown category, or no finite number.
        """
        text = cell.strip() if isinstance(cell, str) else cell
        absent = text is None or (isinstance(text, str) and text.lower() in MISSING)
        if absent or (isinstance(text, float) and math.isnan(text)):
            return self._of_nothing(where)
        if self.one_hot or self.values:
            return self._of_category(text, where)
        try:
            number = float(text)
        except (TypeError, ValueError):
            raise DataError(
                f"{where}: column {self.name!r} has {text!r}, which is no number. Say what its words mean with "
                '"values" or "one_hot" (docs/tables.md), or leave such rows out with --skip-bad.'
            ) from None
        if not math.isfinite(number):
            raise DataError(
                f"{where}: column {self.name!r} has {text!r}, which is not finite. Repair it, or leave such rows out "
                "with --skip-bad."
            )
        return [number]

    def _of_nothing(self, where: str) -> list[float]:
        if self.missing is not None:
            return [self.missing] * self.width
        if self.one_hot and self.unknown == "zero":
            return [0.0] * self.width
        raise DataError(
            f'{where}: column {self.name!r} has nothing. Say what that counts as ("missing" of this column, '
            "docs/tables.md), fill it, or leave such rows out with --skip-bad."
        )

    def _of_category(self, cell: Any, where: str) -> list[float]:
        name = _category(cell)
        if name in self.one_hot:
            return [float(name == one) for one in self.one_hot]
        known = dict(self.values)
        if name in known:
            return [known[name]]
        if self.unknown == "zero":
            return [0.0] * self.width
        raise DataError(
            f"{where}: column {self.name!r} has {name!r}, which the specification does not know. "
            f"{did_you_mean(name, known or self.one_hot)} Add it, or let strangers count as zeros "
            '("unknown": "zero").'
        )


def table_columns(given: Any, where: str) -> tuple[TableColumn, ...]:
    """Reads the columns of one input.

    Args:
        given: a list of names and of tables with the keys `KEYS`.
        where: what messages call it.

    Raises:
        UsageError: it is no such list, or a key or a value of it is wrong.
    """
    if not isinstance(given, Sequence) or isinstance(given, str) or not given:
        raise UsageError(f"preprocessing: {where} must be a list of columns, got {given!r}.")
    found = tuple(_column(one, where) for one in given)
    names = [column.name for column in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"preprocessing: {where} names the column {twice[0]!r} twice.")
    return found


def _column(given: Any, where: str) -> TableColumn:
    if isinstance(given, str):
        return TableColumn(given)
    if not isinstance(given, Mapping) or not isinstance(given.get("name"), str):
        raise UsageError(f'preprocessing: a column of {where} is its name or {{"name": ...}}, got {given!r}.')
    for key in given:
        if key not in KEYS:
            raise UsageError(
                f"preprocessing: the column {given['name']!r} has no key {key!r}. {did_you_mean(key, KEYS)}"
            )
    name, values, one_hot = given["name"], given.get("values") or {}, given.get("one_hot") or ()
    if values and one_hot:
        raise UsageError(f'preprocessing: the column {name!r} has either "values" or "one_hot", not both.')
    if not isinstance(values, Mapping) or not all(map(_is_number, values.values())):
        raise UsageError(f'preprocessing: "values" of {name!r} is a number for each category, got {values!r}.')
    if isinstance(one_hot, str) or not isinstance(one_hot, Sequence):
        raise UsageError(f'preprocessing: "one_hot" of {name!r} is a list of categories, got {one_hot!r}.')
    if given.get("unknown", "error") not in ("error", "zero"):
        raise UsageError(f'preprocessing: "unknown" of {name!r} is "error" or "zero", got {given["unknown"]!r}.')
    numbers = {key: given[key] for key in ("missing", "mean", "std") if given.get(key) is not None}
    for key, value in numbers.items():
        if not _is_number(value) or (key == "std" and value <= 0):
            raise UsageError(f'preprocessing: "{key}" of {name!r} must be a number, std above 0, got {value!r}.')
    if one_hot and {"mean", "std"} & numbers.keys():
        raise UsageError(f"preprocessing: the column {name!r} is one_hot, and has no mean and std.")
    return TableColumn(
        name,
        tuple((_category(key), float(value)) for key, value in values.items()),
        tuple(map(_category, one_hot)),
        given.get("unknown", "error"),
        **{key: float(value) for key, value in numbers.items()},
    )


def _category(cell: Any) -> str:
    """A category as text: 1 and 1.0 are one, as CSV and Parquet may store the same column."""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
