"""An audit in a terminal: the verdict, its causes and remedies, then the tensors, worst first."""

from __future__ import annotations

from typing import Any

from onnxptq.audit.clipping import Clipping, Interval
from onnxptq.audit.verdict import (
    COVERED,
    COVERED_AUDIO,
    FAILED,
    LOST_LIMIT,
    UNDECIDED,
    UNDECIDED_LIMIT,
    WIDE_LIMIT,
    Audit,
    TensorEvidence,
)
from onnxptq.audit.yardsticks import MovedInput
from onnxptq.reports.tables import print_table
from onnxptq.sarif import SarifResult, SarifRule, sarif_log, sarif_run

_SHOWN = 12
_HEADINGS = (
    *("tensor", "range of the set", "copies", "bounds", "BatchNorm"),
    *("worst part", "values cut", "lost", "ties"),
)
_NAMED = 3
"""Causes and missing groups that are named before the rest is counted."""


def verdict_line(audit: Audit) -> str:
    """The verdict in one line."""
    subject = f"{audit.verdict}: the calibration set {audit.calibration} for {audit.model}"
    if audit.verdict == UNDECIDED:
        if audit.without_yardstick:
            return f"{subject}: nothing tells whether {', '.join(audit.without_yardstick)} is shifted as a whole"
        return f"{subject}: there is nothing to hold it against"
    if audit.verdict != FAILED:
        return f"{subject}: no range is too narrow, none too wide"
    causes = [*map(_moved, audit.moved), *map(_cause, audit.causes)]
    more = len(causes) - _NAMED
    return f"{subject} is dangerous: {', '.join(causes[:_NAMED])}" + (f" and {more} more" if more > 0 else "")


def print_audit(audit: Audit, command: str) -> None:
    """The verdict, the command that repeats it, remedies, missing groups and the table."""
    from rich.table import Table

    print(verdict_line(audit))
    print(f"again: {command}")
    for remedy in audit.remedies:
        print(f"remedy: {remedy}")
    for missing in audit.missing:
        named = ", ".join(missing.values[:10]) + (" ..." if len(missing.values) > 10 else "")
        print(f"missing: {len(missing.values)} of {missing.of} values of {missing.attribute}: {named}")
    table = Table(
        title=f"{audit.samples} samples against {audit.probe['undrawn']} that were not drawn and "
        f"{audit.probe['augmented']} augmented copies",
        title_justify="left",
    )
    for heading in _HEADINGS:
        table.add_column(heading, justify="left" if heading in ("tensor", "worst part") else "right")
    for tensor in audit.tensors[:_SHOWN]:
        table.add_row(*_row(tensor))
    print_table(table, whole=True, blocks=True, keep=("tensor", "bounds", "worst part", "values cut", "lost", "ties"))
    if len(audit.tensors) > _SHOWN:
        print(f"{len(audit.tensors) - _SHOWN} more tensors, less affected, are in --json.")
    print(_LEGEND)


_LEGEND = (
    "copies, bounds, BatchNorm: how much of the range of augmented copies, of what preprocessing and operators allow, "
    "and of three deviations of BatchNormalization the set's range covers.\n"
    "lost: energy that the range cuts off of the worst part, as a share of its variance. ties: predictions of a group "
    f"whose best classes are both cut off. Dangerous: an image below {100 * COVERED:.0f} % of its bounds, a "
    f"recording below {100 * COVERED_AUDIO:.0f} %; another input of which {100 * LOST_LIMIT:.0f} % of real values lie "
    f"outside or that is {WIDE_LIMIT:.0f} times wider than they are; an output with"
    f" more than {100 * UNDECIDED_LIMIT:.0f} % ties."
)


_RULES = (
    SarifRule(
        "unfit-range",
        "range too narrow or too wide",
        "The calibration set gives a range that INT8 cuts values off by, or in which it has too few steps for them.",
        "Calibrate with data like that which is deployed, or with --method robust.",
        "error",
        "docs/audit.md",
    ),
    SarifRule(
        "input-not-as-in-training",
        "input is not distributed as in training",
        "The whole set lies elsewhere than the data that the model was trained on: other units, other preprocessing.",
        "Check units and preprocessing of the calibration data.",
        "error",
        "docs/audit.md",
    ),
    SarifRule(
        "missing-group",
        "group missing from the calibration set",
        "No drawn sample is of this group. By itself this does no harm to ranges.",
        "Draw more samples, or equal shares of each group (--calib stratified).",
        "note",
        "docs/audit.md",
    ),
    SarifRule(
        "nothing-to-compare",
        "nothing to hold the set against",
        "Nothing shows what the set lacks: no sample is left, no copy can be made, or nothing says what is usual.",
        "Give more data than is drawn, and a specification of the inputs.",
        "warning",
        "docs/audit.md",
    ),
)


def audit_sarif(audit: Audit, model: str) -> dict[str, Any]:
    """An audit as a SARIF log: each tensor whose range is too narrow or too wide is an error, in the file `model`."""
    remedy = f" {audit.remedies[0]}" if audit.remedies else ""
    results = [SarifResult("unfit-range", "error", f"{_cause(one)}.{remedy}", model, one.name) for one in audit.causes]
    results += [
        SarifResult("input-not-as-in-training", "error", f"{_moved(one)}.{remedy}", model, one.input)
        for one in audit.moved
    ]
    for one in audit.missing:
        text = f"{len(one.values)} of {one.of} values of {one.attribute} are missing: {', '.join(one.values[:10])}"
        results.append(SarifResult("missing-group", "note", text, model, one.attribute))
    if audit.verdict == UNDECIDED:
        results.append(SarifResult("nothing-to-compare", "warning", verdict_line(audit), model))
    properties = {"verdict": audit.verdict, "calibration": audit.calibration}
    return sarif_log([sarif_run("audit", _RULES, results, properties=properties)])


def _cause(tensor: TensorEvidence) -> str:
    if tensor.role == "output":
        worst = tensor.undecided[0]
        lost = f"{_percent(worst.share)} of the predictions of {worst.part} become ties"
        return f"too narrow for {tensor.name} (output, {lost})"
    reach = tensor.coverage()["bounds"]
    decided_by_bounds = tensor.exact and reach is not None
    if not decided_by_bounds and tensor.width > WIDE_LIMIT:
        levels = 256 / tensor.width
        return f"too wide for {tensor.name} (input, {levels:.0f} of 256 levels are left to samples in use)"
    if reach is None or (not tensor.exact and tensor.cut > LOST_LIMIT):
        return f"too narrow for {tensor.name} (input, {_percent(tensor.cut)} of the values in use lie outside)"
    return f"too narrow for {tensor.name} (input, covers {_percent(reach)} of what preprocessing allows)"


def _moved(one: MovedInput) -> str:
    column = "" if one.column is None else f", column {one.column}"
    return (
        f"{one.input} is not as in training (mean {one.mean:+.1f} deviations away{column}; deviation x "
        f"{one.deviation:.2g})"
    )


def _row(tensor: TensorEvidence) -> tuple[str, ...]:
    coverage = tensor.coverage()
    worst = tensor.worst or Clipping("-", "-", 0.0, 0.0)
    return (
        tensor.name,
        _interval(tensor.observed),
        *("-" if share is None else _percent(share) for share in coverage.values()),
        worst.part,
        _percent(worst.share),
        _percent(worst.distortion),
        _percent(tensor.lost_decisions) if tensor.undecided else "-",
    )


def _interval(interval: Interval) -> str:
    return f"{interval[0]:.3g} to {interval[1]:.3g}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f} %"
