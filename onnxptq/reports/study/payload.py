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

import numpy as np

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
    """Ranges by model, set and method over seeds; for the first target that has them, once for all runtimes."""
    tensors = _Once()
    found: dict[tuple[int, ...], dict[int, Cell]] = {}
    for cell in summary.study.cells:
        if cell.ranges:
            place = tuple(levels[name].index(getattr(cell.key, name)) for name in FACTORS[:4])
            seeds = found.setdefault(place, {})
            first = next(iter(seeds.values()), cell)
            if (cell.key.target, cell.ranges.keys()) == (first.key.target, first.ranges.keys()):
                seeds.setdefault(cell.key.seed, cell)
    entries = [[*place, _over_seeds(seeds, tensors)] for place, seeds in found.items()]
    return {"tensorLists": tensors.values, "entries": entries}


def _over_seeds(cells: Mapping[int, Cell], tensors: _Once) -> dict[str, Any]:
    """Mean ends of each range, and, of several seeds, the least and the largest width in thousandths of the mean."""
    names = sorted(next(iter(cells.values())).ranges)
    ends = np.asarray([[cell.ranges[name] for name in names] for cell in cells.values()], np.float64)  # (S, T, 2)
    low, high = ends.mean(axis=0).T
    entry = {
        "seeds": list(cells),
        "tensors": tensors.index(tuple(names)),
        "low": _significant(low),
        "high": _significant(high),
    }
    if len(cells) > 1:
        widths = ends[..., 1] - ends[..., 0]
        shares = np.divide(widths, widths.mean(axis=0), out=np.ones_like(widths), where=widths.mean(axis=0) > 0)
        entry["least"] = _thousandths(shares.min(axis=0))
        entry["most"] = _thousandths(shares.max(axis=0))
    return entry


def _whole(value: float | None) -> int | None:
    return None if value is None or not math.isfinite(value) else round(float(value) * SCALE)


def _thousandths(values: Iterable[float]) -> list[int | None]:
    return [round(1000 * float(value)) if math.isfinite(value) else None for value in values]


def _significant(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
