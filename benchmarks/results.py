"""The tables of docs/results.md: calibration sets in rows, methods in columns, by the project's own command.

    python benchmarks/results.py MODEL.onnx --calib-data TRAIN --eval-data TEST > table.md

Every cell is one run of `onnxptq quantize ... --json -`; the first command of a table is printed above it. All models
are judged under the same corruptions. A cell is average accuracy / largest drop / cross-fitted worst-group drop.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SETS = (
    "clean",
    "small",
    "imbalanced",
    "single-class",
    "hard",
    "noisy",
    "random",
    "bright@3",
    "invert",
    "blur@5",
    "contrast@3",
    "contrast@5",
    "dark@1",
    "dark@3",
    "dark@3+autocontrast",
    "dark@3+mixup",
)
METHODS = {
    "MinMax": ("--method", "minmax"),
    "Entropy, 2048 bins": ("--method", "entropy", "--entropy-bins", "2048"),
    "Percentile 99.999": ("--method", "percentile"),
}
CORRUPTIONS = ("fog@3", "impulse@3", "gamma@3", "motion_blur@3", "shot@3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", help="the FP32 model; without it the built-in one")
    parser.add_argument("--calib-data")
    parser.add_argument("--eval-data")
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    arguments = parser.parse_args()
    common = [arguments.model] if arguments.model else []
    if arguments.calib_data:
        common += ["--calib-data", arguments.calib_data, "--eval-data", arguments.eval_data]
    for corruption in CORRUPTIONS:
        common += ["--corruption", corruption]
    rows = {name: {method: _run(common, name, METHODS[method]) for method in METHODS} for name in arguments.sets}
    _print(common, rows)


def _run(common: list[str], calib: str, method: tuple[str, ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "int8.onnx"
        command = ["onnxptq", "quantize", *common, "--calib", calib, *method, "-o", str(output), "--json", "-"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(command)}\n{done.stderr}")
    print(f"{calib} {' '.join(method)}", file=sys.stderr)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def _print(common: list[str], rows: dict[str, dict[str, dict[str, Any]]]) -> None:
    first = next(iter(next(iter(rows.values())).values()))
    example = ["onnxptq", "quantize", *common, "--calib", next(iter(rows)), "--method", "minmax"]
    print(f"    {shlex.join(example)}\n")
    print(f"FP32: {first['fp32_average']:.3f} on {first['n']} samples of {first['sources']} sources.\n")
    print("| calibration set | " + " | ".join(METHODS) + " |")
    print("|---" * (len(METHODS) + 1) + "|")
    for name, cells in rows.items():
        print(f"| `{name}` | " + " | ".join(_cell(report) for report in cells.values()) + " |")


def _cell(report: dict[str, Any]) -> str:
    return f"{report['int8_average']:.3f} / {report['largest_drop']:.3f} / {report['crossfit_drop']:.3f}"


if __name__ == "__main__":
    main()
