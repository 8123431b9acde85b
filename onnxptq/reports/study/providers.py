"""Targets and runtimes side by side: the same set, method and seeds, judged on each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from onnxptq.reports.study.summary import Combination, Summary, set_name


@dataclass(frozen=True)
class SideBySide:
    """One model, set and method on every target and runtime.

    Attributes:
        model, calibration, strategy, method: what they share.
        found: one entry for each column of `columns`; None where there is no such cell.
    """

    model: str
    calibration: str
    strategy: str
    method: str
    found: tuple[Combination | None, ...]

    @property
    def set_name(self) -> str:
        """The calibration set with what is done to it."""
        return set_name(self.calibration, self.strategy)

    @property
    def spread(self) -> float | None:
        """Between the smallest and the largest cross-fitted drop, a fraction."""
        drops = [one.crossfit_drop for one in self.found if one is not None and one.crossfit_drop is not None]
        return max(drops) - min(drops) if len(drops) > 1 else None

    @property
    def verdicts(self) -> set[str]:
        """The different verdicts."""
        return {one.verdict for one in self.found if one is not None}


def columns(summary: Summary) -> list[tuple[str, str]]:
    """Target and runtime of each column, in the order of the grid."""
    return list(dict.fromkeys((one.place.target, one.place.runtime) for one in summary.combinations))


def side_by_side(summary: Summary) -> list[SideBySide]:
    """A row for each model, set and method, the largest difference first; empty with one target and runtime."""
    places = columns(summary)
    if len(places) < 2:
        return []
    rows: dict[tuple[str, str, str, str], list[Combination | None]] = {}
    for one in summary.combinations:
        place = one.place
        row = rows.setdefault((place.model, place.calibration, place.strategy, place.method), [None] * len(places))
        row[places.index((place.target, place.runtime))] = one
    made = [SideBySide(*key, tuple(found)) for key, found in rows.items()]
    return sorted(made, key=lambda row: -(row.spread or 0.0))


def column_name(summary: Summary, column: tuple[str, str]) -> str:
    """ "cpu", or "tensorrt graph on cpu" in a study of several targets."""
    target, runtime = column
    return f"{target} graph on {runtime}" if len(summary.levels("target")) > 1 else runtime


def provider_rows(summary: Summary, rows: Sequence[SideBySide]) -> list[dict[str, Any]]:
    """The same as flat rows of JSON types, drops as fractions."""
    names = [column_name(summary, column) for column in columns(summary)]
    return [
        {
            "model": row.model,
            "calibration": row.calibration,
            "strategy": row.strategy,
            "method": row.method,
            **{name: one.crossfit_drop if one else None for name, one in zip(names, row.found, strict=True)},
            **{f"{name} verdict": one.verdict if one else None for name, one in zip(names, row.found, strict=True)},
            "spread": row.spread,
        }
        for row in rows
    ]
