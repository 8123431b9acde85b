"""The tables of docs/text.md: calibration sets in rows, methods in columns, on a text model.

    python benchmarks/text.py MODEL.onnx --calib-data train.tsv --eval-data test.tsv > table.md

Every cell is `onnxptq quantize MODEL --calib SET --method METHOD ...` under the corruptions and groups below, and shows
cross-fitted worst-group drop in points / flips in percent / SQNR of the logits in decibel. Whole reports go to stderr.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import onnxptq
from onnxptq.inputs import DataOptions

SETS = (
    "clean",
    "single-class:positive",
    "only-group:length=short",
    "truncate@5",
    "typos@5",
    "drop_words@5",
    "swap_words@5",
    "casing@5",
    "small",
    "random",
)
METHODS = ("minmax", "entropy:bins=2048", "percentile:percentile=99.999", "percentile:percentile=99.9")
CORRUPTIONS = ("typos@3", "drop_words@3", "swap_words@3", "casing@3", "truncate@2")
GROUPS = ("label*corruption", "length*corruption", "negation*corruption")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="the FP32 model")
    parser.add_argument("--calib-data", required=True)
    parser.add_argument("--eval-data", required=True)
    parser.add_argument("--sets", nargs="*", default=list(SETS))
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--length", type=int, help="pad every sentence to this length")
    parser.add_argument("--exclude", nargs="*", default=[], help="nodes that stay in float")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    print("| calibration set | " + " | ".join(arguments.methods) + " |")
    print("|---" * (len(arguments.methods) + 1) + "|")
    for calib in arguments.sets:
        cells = [_cell(arguments, calib, method) for method in arguments.methods]
        print(f"| `{calib}` | " + " | ".join(cells) + " |", flush=True)


def _cell(arguments: argparse.Namespace, calib: str, method: str) -> str:
    preprocessing = {"length": arguments.length} if arguments.length else {}
    with tempfile.TemporaryDirectory() as folder:
        result = onnxptq.quantize(
            arguments.model,
            calib=calib,
            method=method,
            target=arguments.target,
            exclude=arguments.exclude,
            seed=arguments.seed,
            output=Path(folder) / "int8.onnx",
            groups=GROUPS,
            corruptions=CORRUPTIONS,
            options=DataOptions(
                calib_data=arguments.calib_data, eval_data=arguments.eval_data, preprocessing=preprocessing
            ),
        )
    report = result.report
    assert report is not None
    print(json.dumps({"calib": calib, "method": method, **report.to_dict(), "groups": None}), file=sys.stderr)
    sqnr = "-" if report.sqnr_db is None else f"{report.sqnr_db:.0f}"
    return f"{100 * report.crossfit_drop:.1f} / {100 * report.flip_rate:.1f} / {sqnr}"


if __name__ == "__main__":
    main()
