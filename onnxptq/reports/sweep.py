"""A study in a terminal: first the report's verdict in words, then calibration set x method, and what failed."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from onnxptq.reports.study import summarize, verdict
from onnxptq.reports.study.phrases import counted, points
from onnxptq.reports.study.summary import BROKEN, FAILED, Combination
from onnxptq.reports.study.words import failures
from onnxptq.reports.tables import print_table
from onnxptq.sweeps.study import DONE, Cell, Study

if TYPE_CHECKING:
    from onnxptq.sweeps.ahead import Ahead
    from onnxptq.sweeps.plan import Plan

_SHOWN_ERRORS = 5


def print_study(study: Study, errors: int | None = _SHOWN_ERRORS) -> None:
    """The verdict in words, a table for each model, target and runtime, and cells that failed (None: all of them)."""
    failed = [cell for cell in study.cells if cell.status != DONE]
    lost = f", {len(failed)} failed" if failed else ""
    print(f"{study.name} ({study.run}): {counted(len(study.cells), 'cell')}{lost}")
    summary = summarize(study)
    words = verdict(summary)
    for line in (words.headline, *words.findings, *words.advice):
        print(line)
    told = failures(study)  # The cells that failed stand below the tables.
    for line in words.caveats:
        if line not in told:
            print(f"note: {line}")
    places: dict[tuple[str, str, str], list[Combination]] = defaultdict(list)
    for one in summary.combinations:
        places[one.place.model, one.place.target, one.place.runtime].append(one)
    for (model, target, runtime), combinations in places.items():
        print(f"{model}, target {target}, on {runtime}:")
        _print_grid(combinations)
    if places:
        print("Cross-fitted worst-group drop in points, mean over seeds; ! failed for one seed or more, - not judged.")
    for cell in failed[:errors]:
        print(f"failed: {named(cell)}: {cell.error}")
    if errors is not None and len(failed) > errors:
        print(f"... and {len(failed) - errors} more ({study.show})")


def _print_grid(combinations: list[Combination]) -> None:
    from rich.table import Table

    found = {(one.place.set_name, one.place.method): one for one in combinations}
    methods = list(dict.fromkeys(one.place.method for one in combinations))
    table = Table("calibration set")
    for method in methods:
        table.add_column(method, justify="right")
    for row in dict.fromkeys(one.place.set_name for one in combinations):
        table.add_row(row, *(_drop(found.get((row, method))) for method in methods))
    print_table(table, whole=True, blocks=True)


def _drop(one: Combination | None) -> str:
    if one is None or one.crossfit_drop is None:
        return "broken" if one is not None and one.verdict == BROKEN else "-"
    return f"{points(one.crossfit_drop, signed=True).removesuffix(' points')}{' !' if one.verdict == FAILED else '  '}"


def print_dry_run(plan: Plan, ahead: Ahead) -> None:
    """The grid, what is known, and how long the rest takes."""
    from onnxptq.sweeps.ahead import SURE

    for key in ("models", "calibrations", "strategies", "methods", "targets", "runtimes", "seeds"):
        values = getattr(plan, key)
        print(f"{key:<13}{len(values):>3}  {', '.join(repr(v) if v == '' else str(v) for v in values)}")
    print(f"judged under {', '.join(ahead.corruptions)}, on {ahead.samples} samples")
    print(f"{ahead.cells} cells, {ahead.distinct} of them different: {ahead.known} are known, {ahead.todo} are to do")
    if ahead.todo and ahead.seconds is None:
        print("how long that takes cannot be estimated")
    elif ahead.todo and ahead.seconds is not None:
        low, high = duration(ahead.seconds / SURE), duration(ahead.seconds * SURE)
        workers = "1 worker" if ahead.workers == 1 else f"{ahead.workers} workers"
        print(f"that takes about {duration(ahead.seconds)} on {workers}, {low} to {high}:")
        print(f"  parts of cells were measured for {ahead.measured_seconds:.0f} s, and no cell was made;")
        print("  where other programs take more of the machine than just now, it takes longer")
    if ahead.todo and ahead.not_estimated:
        print(f"and what {', '.join(ahead.not_estimated)} takes: minutes a cell, which were not measured")


def duration(seconds: float) -> str:
    """ "40 s", "12 min" or "3.5 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def named(cell: Cell) -> str:
    """A cell in one line."""
    key = cell.key
    row = f"{key.calibration} & {key.strategy}" if key.strategy else key.calibration
    return f"{key.model}, {row}, {key.method}, {key.target} on {key.runtime}, seed {key.seed}"
