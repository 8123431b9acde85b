"""The tables of docs/audit.md: what an audit says of calibration sets, against the harm that MinMax on them does.

    python benchmarks/audit.py > digits.md
    python benchmarks/audit.py MODEL.onnx ... --calib-data TRAIN --eval-data TEST > table.md

A set is ruinous when MinMax on it costs more than 3 points of cross-fitted worst-group drop, over clean and five
corruptions. Predictions are found in the cache where they were made before. "Without undrawn samples" is what an
audit says to a user whose whole data is shifted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _audit_harm import measured
from _audit_sets import FRESH, HELD_OUT, TUNED

from onnxptq.audit import FAILED, UNDECIDED_LIMIT, Audit, audit_calibration
from onnxptq.cache import user_cache
from onnxptq.evaluation import Report
from onnxptq.inputs import DataOptions

RUINOUS = 0.03


@dataclass(frozen=True)
class Row:
    """One set on one model."""

    name: str
    tuned: bool
    report: Report
    audit: Audit

    @property
    def ruinous(self) -> bool:
        return self.report.crossfit_drop > RUINOUS

    @property
    def warned(self) -> bool:
        return self.audit.verdict == FAILED

    @property
    def warned_blind(self) -> bool:
        """Whether it would be warned of without the samples that were not drawn."""
        copies = [one for tensor in self.audit.tensors for one in tensor.undecided if one.kind == "augmented"]
        return self.noted or any(one.share > UNDECIDED_LIMIT for one in copies)

    @property
    def noted(self) -> bool:
        """Whether the line in `quantize` warns as well: it looks at inputs alone."""
        return any(tensor.role == "input" for tensor in self.audit.causes)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="FP32 models; without any the built-in one")
    parser.add_argument("--calib-data")
    parser.add_argument("--eval-data")
    parser.add_argument("--tuned-on", metavar="NAME", help="file name of the model that the rule was tuned on")
    parser.add_argument("--fresh", action="store_true", help="the sets that were chosen when the rule was finished")
    arguments = parser.parse_args()
    options = DataOptions(calib_data=arguments.calib_data, eval_data=arguments.eval_data)
    print(f"    {shlex.join(['python', 'benchmarks/audit.py', *sys.argv[1:]])}\n")
    rows: list[Row] = []
    for model in arguments.models or [None]:
        tuned_on = model is not None and Path(model).name == arguments.tuned_on
        rows_of = _rows(model, options, FRESH if arguments.fresh else (*TUNED, *HELD_OUT), tuned_on)
        _print(Path(model).name if model else "the built-in digit classifier", rows_of)
        rows += rows_of
    _summary("tuned on", [row for row in rows if row.tuned])
    _summary("held out", [row for row in rows if not row.tuned])


def _rows(model: str | None, options: DataOptions, sets: Sequence[str], tuned_on: bool) -> list[Row]:
    reports = measured(model, options, sets, user_cache())
    rows = []
    for name, report in reports.items():
        audit = audit_calibration(model, calib=name, options=options)
        rows.append(Row(name, tuned_on and name in TUNED, report, audit))
        print(f"{name}: {report.crossfit_drop:.3f} {audit.verdict}", file=sys.stderr)
    return sorted(rows, key=lambda row: -row.report.crossfit_drop)


def _print(title: str, rows: Sequence[Row]) -> None:
    first = rows[0].report
    print(f"**{title}**, FP32 {first.fp32_average:.3f} on {first.n} samples of {first.sources} sources\n")
    print("| calibration set | cross-fitted drop | input covers | ties | verdict | |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        input_, output = (next((t for t in row.audit.tensors if t.role == role), None) for role in ("input", "output"))
        reach = input_.coverage()["bounds"] if input_ else None
        wrong = "" if row.warned == row.ruinous else "missed" if row.ruinous else "false alarm"
        print(
            f"| `{row.name}`{' (tuned on)' if row.tuned else ''} | {row.report.crossfit_drop:.3f} "
            f"| {'-' if reach is None else f'{reach:.2f}'} | {output.lost_decisions if output else 0:.2f} "
            f"| {row.audit.verdict} | {wrong} |"
        )
    print()


def _summary(title: str, rows: Sequence[Row]) -> None:
    if not rows:
        return
    ruinous = sum(row.ruinous for row in rows)
    columns = {
        "audit": [row for row in rows if row.warned],
        "audit without undrawn samples": [row for row in rows if row.warned_blind],
        "the line in quantize": [row for row in rows if row.noted],
    }
    for what, warned in columns.items():
        right = sum(row.ruinous for row in warned)
        precision = f"{right / len(warned):.2f}" if warned else "-"
        recall = f"{right / ruinous:.2f}" if ruinous else "-"
        print(
            f"{title}, {what}: {len(rows)} sets, {ruinous} ruinous; {len(warned)} warned of, {right} rightly: "
            f"precision {precision}, recall {recall}\n"
        )


if __name__ == "__main__":
    main()
