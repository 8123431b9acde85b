"""A study in a terminal: first what it says in words, then calibration set x method, and what failed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from onnxptq.reports.tables import print_table
from onnxptq.sweeps.study import DONE, Cell, Study

if TYPE_CHECKING:
    from onnxptq.sweeps.plan import Plan
    from onnxptq.sweeps.run import Ahead

SAFE_DROP = 0.02
"""Cross-fitted worst-group drop up to which a method is called safe: the limit of `onnxptq check`."""

_SHOWN_ERRORS = 5


def print_study(study: Study, errors: int | None = _SHOWN_ERRORS) -> None:
    """The verdict in words, a table for each model, target and runtime, and cells that failed (None: all of them)."""
    done = [cell for cell in study.cells if cell.status == DONE]
    failed = [cell for cell in study.cells if cell.status != DONE]
    print(f"{study.name} ({study.run}): {len(done)} cells" + (f", {len(failed)} failed" if failed else ""))
    places: dict[tuple[str, str, str], list[Cell]] = defaultdict(list)
    for cell in done:
        places[cell.key.model, cell.key.target, cell.key.runtime].append(cell)
    for (model, target, runtime), cells in places.items():
        print(f"{model}, target {target}, on {runtime}: {verdict(cells)}")
        _print_grid(model, target, runtime, cells)
    if places:
        print("Cross-fitted worst-group drop in points, mean over seeds; - where no group could be judged.")
    for cell in failed[:errors]:
        print(f"failed: {named(cell)}: {cell.error}")
    if errors is not None and len(failed) > errors:
        print(f"... and {len(failed) - errors} more (onnxptq runs show {study.run})")


def verdict(cells: Sequence[Cell]) -> str:
    """Which methods are safe for every calibration set, which sets are safe with every method, and the worst cell."""
    drops = [(cell, drop) for cell in cells if (drop := cell.report["crossfit_drop"]) is not None]
    if not drops:
        return "no group has the samples that it takes to be judged."
    methods, sets = _largest(drops, "method"), _largest(drops, "row")
    worst, most = max(drops, key=lambda pair: pair[1])
    parts = [
        f"safe with every set (at most {100 * SAFE_DROP:g} points): {_names(methods)}",
        f"sets safe with every method: {_names(sets)}",
        f"worst: {_row(worst)} with {worst.key.method}, {_points(most)} points",
    ]
    return "; ".join(parts) + "."


def _largest(drops: Sequence[tuple[Cell, float]], what: str) -> dict[str, float]:
    """The largest mean over seeds, by method or by calibration set with strategy."""
    cells: dict[tuple[str, str], list[float]] = defaultdict(list)
    for cell, drop in drops:
        cells[_row(cell), cell.key.method].append(drop)
    largest: dict[str, float] = {}
    for (row, method), values in cells.items():
        name = method if what == "method" else row
        largest[name] = max(largest.get(name, -1.0), fmean(values))
    return largest


def _names(largest: dict[str, float]) -> str:
    return ", ".join(name for name, drop in largest.items() if drop <= SAFE_DROP) or "none"


def _print_grid(model: str, target: str, runtime: str, cells: Sequence[Cell]) -> None:
    from rich.table import Table

    found: dict[tuple[str, str], list[float | None]] = defaultdict(list)
    for cell in cells:
        found[_row(cell), cell.key.method].append(cell.report["crossfit_drop"])
    methods = list(dict.fromkeys(cell.key.method for cell in cells))
    table = Table("calibration set")
    for method in methods:
        table.add_column(method, justify="right")
    for row in dict.fromkeys(_row(cell) for cell in cells):
        table.add_row(row, *(_mean(found.get((row, method), [])) for method in methods))
    print_table(table, whole=True)


def print_dry_run(plan: Plan, ahead: Ahead) -> None:
    """The grid, what is known, and how long the rest takes."""
    for key in ("models", "calibrations", "strategies", "methods", "targets", "runtimes", "seeds"):
        values = getattr(plan, key)
        print(f"{key:<13}{len(values):>3}  {', '.join(repr(v) if v == '' else str(v) for v in values)}")
    print(f"judged under {', '.join(ahead.corruptions)}, on {ahead.samples} samples")
    print(f"{ahead.cells} cells, {ahead.distinct} of them different; {ahead.known} are known")
    if ahead.todo and ahead.seconds is not None:
        print(f"about {duration(ahead.seconds)} for the other {ahead.todo} on {ahead.workers} workers, as measured")


def duration(seconds: float) -> str:
    """ "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def named(cell: Cell) -> str:
    """A cell in one line."""
    key = cell.key
    return f"{key.model}, {_row(cell)}, {key.method}, {key.target} on {key.runtime}, seed {key.seed}"


def _row(cell: Cell) -> str:
    return f"{cell.key.calibration} & {cell.key.strategy}" if cell.key.strategy else cell.key.calibration


def _mean(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return _points(fmean(known)) if known else "-"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"
