"""What the page's script draws from: the cells of a study and their combinations as compact JSON, deflated.

Verdicts and means are made here, from the numbers themselves; the script shows them and judges nothing. Numbers are
whole ten-thousandths; names are said once and then by index; cells with the same groups share them. That keeps 1,000
cells under 2 MB.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from onnxptq.evaluation import GroupResult
from onnxptq.gates.policy import FlipRate
from onnxptq.reports.measured import score_name
from onnxptq.reports.study.phrases import group_words, standing
from onnxptq.reports.study.summary import (
    AVERAGE_LIMIT,
    Combination,
    CombinationKey,
    Summary,
    defined,
    mean,
    number,
    place_of,
    summarize,
)
from onnxptq.sweeps.study import DONE, Cell

SCALE = 10_000
"""A hundredth of a point."""

FACTORS = ("model", "calibration", "strategy", "method", "target", "runtime", "seed")

_MEANS = ("average_drop", "crossfit_drop", "cvar10_drop", "flip_rate")
_GROUP_MEANS = ("fp32", "drop", "flips")


def payload(summary: Summary) -> dict[str, Any]:
    """The cells of a study as JSON types, as the scripts in `template/` read them."""
    levels = {name: summary.levels(name) for name in FACTORS}
    groups = _Groups()
    by_place: dict[CombinationKey, list[Cell]] = {}
    for cell in summary.study.cells:
        by_place.setdefault(place_of(cell.key), []).append(cell)
    combinations = [_entry(one, by_place[one.place], summary.limit, levels, groups) for one in summary.combinations]
    cells = [_entry(_alone(summary, cell), [cell], summary.limit, levels, groups) for cell in summary.study.cells]
    limits = {"crossfit_drop": summary.limit, "average_drop": AVERAGE_LIMIT, "cvar10_drop": summary.limit}
    measure = next((cell.figures.measure for cell in summary.study.cells if cell.figures.measure), "accuracy")
    return {
        "measure": score_name(measure),
        "limits": {name: _whole(limit) for name, limit in {**limits, "flip_rate": FlipRate().limit}.items()},
        "scale": SCALE,
        "levels": levels,
        "groupNames": [group_words(name) for name in groups.names.values],
        "shapes": groups.shapes.values,
        "groupTables": groups.tables.values,
        "cells": cells,
        "combinations": combinations,
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


@dataclass
class _Groups:
    """Tables of groups, and what they share."""

    names: _Once = field(default_factory=_Once)
    shapes: _Once = field(default_factory=_Once)
    tables: _Once = field(default_factory=_Once)


def _alone(summary: Summary, cell: Cell) -> Combination:
    """A cell as the combination of a study of its one seed, so that one rule judges both."""
    plan = {**summary.study.plan, "seeds": [cell.key.seed]}
    (alone,) = summarize(replace(summary.study, cells=(cell,), plan=plan), summary.limit).combinations
    return alone


def _entry(
    one: Combination, cells: Sequence[Cell], limit: float, levels: Mapping[str, list[Any]], groups: _Groups
) -> dict[str, Any]:
    """A combination, or a cell as a combination of one seed: where it stands, verdict, means, ends, groups."""
    done = [cell for cell in cells if cell.status == DONE]
    rows = _group_rows(done)
    return {
        **{name: levels[name].index(getattr(one.place, name)) for name in FACTORS[:-1]},
        "seeds": [levels["seed"].index(cell.key.seed) for cell in done or cells],
        "verdict": one.verdict,
        "standing": standing(one),
        "averageFine": one.average_drop is not None and one.average_drop <= AVERAGE_LIMIT,
        "possible": _whole(one.possible),
        **{name: _whole(getattr(one, name)) for name in _MEANS},
        "crossfit_drop_low": _whole(one.low),
        "crossfit_drop_high": _whole(one.high),
        "average_drop_low": _whole(_end(min, (number(cell, "average_drop_low") for cell in done))),
        "average_drop_high": _whole(_end(max, (number(cell, "average_drop_high") for cell in done))),
        "failed": one.failed,
        "error": next((cell.error or "failed" for cell in cells if cell.status != DONE), ""),
        "hurt": [groups.names.index(name) for name in one.hurt_groups],
        "hurtDrop": _whole(one.hurt_drop),
        "groups": _group_table(rows, groups, len(done)) if rows else None,
    }


def _group_rows(cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The groups of one cell or of several seeds, by name: means, and the ends over the seeds."""
    found: dict[str, list[GroupResult]] = {}
    for cell in cells:
        for row in cell.figures.groups:
            found.setdefault(row.name, []).append(row)
    return [
        {
            "name": name,
            "sources": rows[0].sources,
            "judged": int(all(row.judged for row in rows)),
            **{key: mean(defined(getattr(row, key)) for row in rows) for key in _GROUP_MEANS},
            "drop_low": _end(min, (defined(row.drop_low) for row in rows)),
            "drop_high": _end(max, (defined(row.drop_high) for row in rows)),
            "least": min(row.drop for row in rows),
            "most": max(row.drop for row in rows),
        }
        for name, rows in sorted(found.items())
    ]


def _group_table(rows: Sequence[Mapping[str, Any]], groups: _Groups, seeds: int) -> int:
    """Columns of the groups; entries over the same samples share names and counts. Returns the table's index."""
    shape = {
        "names": [groups.names.index(row["name"]) for row in rows],
        "sources": [row["sources"] for row in rows],
        "judged": [row["judged"] for row in rows],
        "fp32": [_whole(row["fp32"]) for row in rows],
    }
    columns = ("drop", "drop_low", "drop_high", "flips", *(("least", "most") if seeds > 1 else ()))
    values: dict[str, Any] = {name: [_whole(row[name]) for row in rows] for name in columns}
    table = {"shape": groups.shapes.index(_frozen(shape), shape), **values}
    return groups.tables.index(_frozen(table), table)


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


def _end(which: Callable[[list[float]], float], values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return which(known) if known else None


def _whole(value: float | None) -> int | None:
    """Hundredths of a point. The page shows tenths: a last digit of five, which would be rounded a second time, moves
    to the side to which the number itself rounds, so that page and Markdown agree to the digit."""
    if value is None or not math.isfinite(value):
        return None
    hundredths = round(float(value) * SCALE)
    if hundredths % 10 == 5:
        hundredths += 1 if 100 * float(f"{100 * value:.1f}") > hundredths else -1
    return hundredths


def _thousandths(values: Iterable[float]) -> list[int | None]:
    return [round(1000 * float(value)) if math.isfinite(value) else None for value in values]


def _significant(values: Iterable[float]) -> list[float | None]:
    return [float(f"{value:.4g}") if math.isfinite(value) else None for value in values]
