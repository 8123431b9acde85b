"""The report in a terminal: one line, then a table from the worst group to the best."""

from __future__ import annotations

import math

from onnxptq.evaluation.report import GroupResult, Report
from onnxptq.evaluation.totals import TotalDrop
from onnxptq.reports.measured import CLASSIFIERS, reference_note, test_name
from onnxptq.reports.tables import print_table, terminal_width

WORST = 10
"""Groups in the table where not all were asked for: it and what is said of it fit on one screen."""


def summary_line(report: Report, fp32_bytes: int | None = None, int8_bytes: int | None = None) -> str:
    """Average, worst group, largest drop, and size before and after where known."""
    parts = [
        f"{report.model} on {report.provider}: average {report.measure} {_percent(report.fp32_average)} -> "
        f"{_percent(report.int8_average)}"
    ]
    if report.worst_group is None:
        parts.append(f"no group has the {report.minimum_samples} samples that it takes to be judged")
    else:
        parts.append(f"worst group {report.worst_group} at {_percent(report.worst_accuracy)}")
        parts.append(f"largest drop {_points(report.largest_drop)} in {report.largest_drop_group}")
        parts.append(f"cross-fitted worst-group drop {_points(report.crossfit_drop)}")
    if fp32_bytes is not None and int8_bytes is not None:
        parts.append(f"{_size(fp32_bytes)} -> {_size(int8_bytes)}")
    return "; ".join(parts)


def print_report(report: Report, *, every: bool = False) -> None:
    """The table of the worst groups, or of all, from the worst under INT8, and what the numbers are."""
    from rich.table import Table

    what = "" if report.measure in CLASSIFIERS else f"{report.measure} of "
    table = Table(title=f"{what}{report.model} against {report.reference}, worst group first", title_justify="left")
    # On a narrow terminal the columns that all groups are of stand above them once, not in every row.
    columns = _shared_columns(report) if terminal_width() < _WIDE else ""
    for heading in (columns or "group", "n", "FP32", "INT8", "drop", "95 % interval", "flips", ""):
        table.add_column(heading, justify="left" if heading in (columns or "group", "") else "right")
    rows: list[tuple[str, ...]] = [
        (
            _shown(group, short=bool(columns)),
            str(group.n),
            _percent(group.fp32),
            _percent(group.int8),
            _points(group.drop),
            f"{_points(group.drop_low)} to {_points(group.drop_high)}",
            _percent(group.flips),
            _mark(group),
        )
        for group in report.groups
    ]
    shown = rows if every else rows[:WORST]
    for row in shown:
        table.add_row(*row)
    print_table(table, whole=True, keep=(columns or "group", "n", "FP32", "INT8", "drop", "95 % interval", ""))
    if len(shown) < len(rows):
        print(f"The {WORST} worst of {len(rows)} groups: --all-groups prints all, --json has them, too.")
    print(_legend(report))


_WIDE = 110
"""Columns from which a table of groups with their full names usually fits."""


def _shared_columns(report: Report) -> str:
    """The columns that every group is of, "label · corruption"; "" where they differ."""
    found = {tuple(part.partition("=")[0] for part in group.name.split("*")) for group in report.groups}
    return " · ".join(found.pop()) if len(found) == 1 else ""


def _shown(group: GroupResult, *, short: bool) -> str:
    parts = group.name.split("*")
    name = " · ".join(part.partition("=")[2] if short else part for part in parts)
    return name if group.judged else f"({name})"


def _legend(report: Report) -> str:
    lines = []
    if report.judged:
        lines.append(f"Judged: {', '.join(report.judged)} ({report.task}).")
    if report.measure == "fidelity":
        lines.append(
            "Fidelity: 1 - sqrt(error / signal energy) of the output that is farthest from FP32's (docs/tasks.md)."
        )
    if note := reference_note(report.measure, report.against):
        lines.append(note)
    tested = sum(group.p_value is not None for group in report.groups)
    test = f"{test_name(report.binary)}, corrected for {tested} groups, p < 0.05"
    lines.append("Drops in points." + (f" * differs from FP32 ({test})." if tested else ""))
    if not all(group.judged for group in report.groups):
        few = f"fewer than {report.minimum_samples} original samples (copies under corruptions do not count)"
        lines.append(f"Groups in brackets have {few} and are never called worst.")
    quality = [] if math.isnan(report.flip_rate) else [f"flips {_percent(report.flip_rate)}"]
    quality.append(f"worst tenth of groups {_points(report.cvar10_drop)}")
    if report.sqnr_db is not None:
        quality.append(f"output SQNR {report.sqnr_db:.1f} dB")
    if len(report.sqnr_db_by_output) > 1:
        each = (f"{name} {'exact' if db is None else f'{db:.1f}'}" for name, db in report.sqnr_db_by_output.items())
        quality.append(f"by output {', '.join(each)}")
    lines += [_total(total) for total in report.totals]
    lines.append("Overall: " + ", ".join(quality) + ".")
    return "\n".join(lines)


def _total(total: TotalDrop) -> str:
    if math.isnan(total.drop):
        return f"{total.name}: not defined on these samples."
    low, high = total.bounds(0.975)
    if not total.share:
        interval = "" if math.isnan(total.standard_error) else f" (95 % interval {low:+.4g} to {high:+.4g})"
        return f"{total.name}: {total.before:.4g} -> {total.after:.4g}, drop {total.drop:+.4g}{interval}."
    interval = "" if math.isnan(total.standard_error) else f" (95 % interval {_points(low)} to {_points(high)})"
    return f"{total.name}: {100 * total.before:.1f} -> {100 * total.after:.1f}, drop {_points(total.drop)}{interval}."


def _mark(group: GroupResult) -> str:
    if not group.judged:
        return "few"
    return "*" if group.p_value is not None and group.p_value < 0.05 else ""


def _percent(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:.1f} %"


def _points(value: float) -> str:
    return "-" if math.isnan(value) else f"{100 * value:+.1f}"


def _size(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.0f} KB"
