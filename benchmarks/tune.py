"""What `onnxptq tune` finds, beside what each method alone does, over nets and calibration sets.

    python benchmarks/tune.py [NAME=MODEL,CALIBRATION DATA,EVALUATION DATA,GROUP ...] [--calib SET ...] [--json FILE]

Without nets it is the built-in one. For each net and set: the verdict of each method alone and the winner, on the half
that choices are made on; what the winner's worst group loses on the half that no choice has seen, with its 95 %
interval, and the policy's verdict there; the share of multiply-adds in INT8; what judging cost, in runs of one INT8
model over all samples; wall seconds of it all. Nothing is written but `--json`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

import onnxptq
from onnxptq.inputs import DataOptions

sys.path.insert(0, str(Path(__file__).resolve().parent))
from _document import machine, versions

SETS = ("clean", "shifted", "contrast@3")


def tuned(net: str, calib: str) -> tuple[str, Any, float]:
    """Name of the net, what `tune` came to, and seconds."""
    name, _, rest = net.partition("=")
    model, train, held, group = rest.split(",") if rest else ("", "", "", "label")
    options = DataOptions(calib_data=train or None, eval_data=held or None)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = onnxptq.tune(
            model or None, calib=calib, groups=[group], options=options, output=Path(folder) / "tuned.onnx"
        )
    return name, found, time.perf_counter() - started


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("nets", nargs="*", default=["digits"], metavar="NET")
    parser.add_argument("--calib", action="append", metavar="SET", help=f"a calibration set; default {', '.join(SETS)}")
    parser.add_argument("--json", type=Path, help="write all results to a file")
    options = parser.parse_args()
    print(f"{machine()}; {versions('onnxruntime', 'numpy')}; {date.today():%d %B %Y}.\n")
    print("| net | set | alone | winner | proof: worst group, points | verdict | INT8 | runs | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for net in options.nets:
        for calib in options.calib or SETS:
            name, found, seconds = tuned(net, calib)
            alone = [one for one in found.candidates if " + " not in one.name]
            passing = sum(one.verdict is not None and one.verdict.value != "FAILED" for one in alone)
            winner = found.winner
            proof = f"{100 * found.proof_drop:+.1f} [{100 * found.proof_low:+.1f} to {100 * found.proof_high:+.1f}]"
            print(
                f"| {name} | `{calib}` | {passing} of {len(alone)} not failed | {winner.name if winner else '-'} "
                f"| {proof} | {found.verdict.value} | {100 * winner.int8_share if winner else 0:.0f} % "
                f"| {found.evaluations:.1f} | {seconds:.0f} |",
                flush=True,
            )
            rows.append({"net": name, "calib": calib, "seconds": seconds, **found.to_dict()})
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
