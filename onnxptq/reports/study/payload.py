"""What the page's script draws from: the cells of a study as compact JSON, deflated.

Numbers are whole ten-thousandths; names are said once and then by index; cells with the same groups share them. That
keeps 1,000 cells under 2 MB.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from onnxptq.reports.study.summary import AVERAGE_LIMIT, Summary
from onnxptq.sweeps.study import DONE, Cell

SCALE = 10_000
"""A hundredth of a point."""

FACTORS = ("model", "calibration", "strategy", "method", "target", "runtime", "seed")

_METRICS = (
    "average_drop",
    "average_drop_low",
    "average_drop_high",
    "crossfit_drop",
    "crossfit_drop_low",
    "crossfit_drop_high",
    "cvar10_drop",
    "flip_rate",
    "fp32_average",
    "int8_average",
    "largest_drop",
    "worst_accuracy",
)
_GROUP_METRICS = ("drop", "drop_low", "drop_high", "flips")


def payload(summary: Summary) -> dict[str, Any]:
    """The cells of a study as JSON types, as the scripts in `template/` read them."""
    levels = {name: summary.levels(name) for name in FACTORS}
    groups, names, shapes, tables = [], _Once(), _Once(), _Once()
    columns: dict[str, list[Any]] = {name: [] for name in (*FACTORS, *_METRICS, "error", "hurt", "groups")}
    for cell in summary.study.cells:
        for name in FACTORS:
            columns[name].append(levels[name].index(getattr(cell.key, name)))
        for name in _METRICS:
            columns[name].append(_whole(cell.report.get(name)))
        columns["error"].append("" if cell.status == DONE else cell.error or "failed")
        hurt = cell.report.get("largest_drop_group")
        columns["hurt"].append(None if hurt is None else names.index(hurt))
        table = _group_table(cell, names, shapes)
        columns["groups"].append(None if table is None else tables.index(_frozen(table), table))
    groups = names.values
    return {
        "limit": _whole(summary.limit),
        "averageLimit": _whole(AVERAGE_LIMIT),
        "scale": SCALE,
        "levels": levels,
        "groupNames": groups,
        "shapes": shapes.values,
        "groupTables": tables.values,
        "cells": columns,
        "ranges": _ranges(summary, levels),
    }


def packed(values: Mapping[str, Any]) -> str:
    """JSON, deflated (zlib), in Base64: safe in HTML whatever the names are."""
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8"), 9)).decode("ascii")


@dataclass
class _Once:
    """Values that are kept once, by key."""

    places: dict[Hashable, int] = field(default_factory=dict)
    values: list[Any] = field(default_factory=list)

    def index(self, key: Hashable, value: Any = None) -> int:
        if key not in self.places:
            self.places[key] = len(self.values)
            self.values.append(key if value is None else value)
        return self.places[key]


def _group_table(cell: Cell, names: _Once, shapes: _Once) -> dict[str, Any] | None:
    """Columns of a cell's groups, sorted by name so that cells over the same samples share names and counts."""
    rows: Sequence[Mapping[str, Any]] = sorted(cell.report.get("groups", ()), key=lambda row: str(row["name"]))
    if not rows:
        return None
    shape = {
        "names": [names.index(row["name"]) for row in rows],
        "sources": [row["sources"] for row in rows],
        "judged": [int(row["judged"]) for row in rows],
        "fp32": [_whole(row["fp32"]) for row in rows],
    }
    values: dict[str, Any] = {name: [_whole(row[name]) for row in rows] for name in _GROUP_METRICS}
    return {"shape": shapes.index(_frozen(shape), shape), **values}


def _frozen(values: Mapping[str, Any]) -> Hashable:
    return tuple(tuple(value) if isinstance(value, list) else value for value in values.values())


def _ranges(summary: Summary, levels: Mapping[str, list[Any]]) -> dict[str, Any]:
    """Ranges by model, set and method; once for all targets and runtimes, for the first seed that has them."""
    tensors, entries = _Once(), {}
    for cell in summary.study.cells:
        place = tuple(levels[name].index(getattr(cell.key, name)) for name in FACTORS[:4])
        if place in entries or not cell.ranges:
            continue
        names = sorted(cell.ranges)
        entries[place] = {
            "seed": cell.key.seed,
            "tensors": tensors.index(tuple(names)),
            "low": _significant(cell.ranges[name][0] for name in names),
            "high": _significant(cell.ranges[name][1] for name in names),
        }
    return {"tensorLists": tensors.values, "entries": [[*place, entry] for place, entry in entries.items()]}


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(float(value) * SCALE)


def _significant(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
