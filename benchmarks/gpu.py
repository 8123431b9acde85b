"""Proves or breaks what the documents say of CUDA and TensorRT, claim by claim, on a machine with one NVIDIA GPU.

    python benchmarks/gpu.py [--results gpu.json] [--minutes 20] [--only CLAIM] [--again CLAIM] [--hide-wheels]
                             [--write docs/providers.md]
    python benchmarks/gpu.py --dry-run [--results dry.json]

Needs the wheels alone (pip install 'onnxptq[cuda,test]' or 'onnxptq[tensorrt,test]'), no data and no network. Results
are written after each claim, and those that are there for the same machine and versions are not made again: it may be
stopped, or lose its machine, at any time. --dry-run takes the CPU provider for CUDA: it shows that the script works,
and nothing of a GPU. Exit codes: 0 every claim that ran holds; 1 one is broken; 3 some did not run.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from _document import machine, replace_tables, versions
from _gpu_claims import CLAIMS, Bench, Outcome

from onnxptq.files import replacing
from onnxptq.runtimes import probe

SCHEMA = 1


def table(results: dict[str, Any]) -> str:
    """The claims as Markdown."""
    lines = [results["machine"], "", "| claim | verdict | found |", "|---|---|---|"]
    for name, one in results["claims"].items():
        text = CLAIMS[name].text if name in CLAIMS else name
        facts = {key: value for key, value in one["facts"].items() if not isinstance(value, dict | list)}
        shown = ", ".join(
            f"{key} {value:.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in facts.items()
        )
        lines.append(f"| {text} | {one['verdict']} | {shown or one['reason']} |")
    return "\n".join(lines)


def run(
    results: dict[str, Any], file: Path, bench: Bench, seconds: float, *, only: list[str], again: list[str]
) -> None:
    """Tries every claim that has no result yet (of `only`, where some are named), and writes the file after each."""
    started = time.monotonic()
    for one in CLAIMS.values():
        if only and one.name not in only:
            continue
        known = results["claims"].get(one.name)
        if known and known["verdict"] != "not run" and one.name not in again:
            continue
        begun = time.monotonic()
        if begun - started > seconds:
            outcome = Outcome("not run", {}, "no time was left")
        elif one.needs and not bench.dry and not (status := probe(one.needs)).loads:
            outcome = Outcome("not run", {}, f"{one.needs} does not load here: {status.reason}")
        else:
            try:
                outcome = one.attempt(bench)
            except Exception as error:  # whatever it is, it is what this claim found, and others may still hold
                outcome = Outcome("broken", {}, f"{type(error).__name__}: {error}")
        if bench.dry and outcome.verdict in ("holds", "measured"):
            outcome = replace(outcome, verdict="ran")
        results["claims"][one.name] = {**asdict(outcome), "seconds": time.monotonic() - begun}
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(results, indent=2, default=str) + "\n", encoding="utf-8")
        print(f"{outcome.verdict:9} {one.name}: {one.text} {outcome.reason}", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=Path("gpu.json"), help="the JSON, read and written [gpu.json]")
    parser.add_argument("--minutes", type=float, default=20, help="no claim is begun later [20]")
    parser.add_argument("--only", action="append", default=[], choices=[*CLAIMS], help="try this claim alone")
    parser.add_argument("--again", action="append", default=[], choices=[*CLAIMS], help="try this claim anew")
    parser.add_argument("--hide-wheels", action="store_true", help="rename NVIDIA's libraries one by one, and back")
    parser.add_argument("--dry-run", action="store_true", help="the CPU stands for the GPU")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="replace the table in docs/providers.md")
    chosen = parser.parse_args()
    status = probe("cpu" if chosen.dry_run else "cuda")
    gpu = f"{status.gpu or 'no GPU'}, driver {status.driver or 'none'}"
    where = f"{gpu}; {machine()}; {versions('onnxruntime', 'onnx', 'numpy')}"
    head = {"schema": SCHEMA, "dry_run": chosen.dry_run, "machine": where, "libraries": dict(status.libraries)}
    results: dict[str, Any] = {**head, "claims": {}}
    if chosen.results.is_file():
        before = json.loads(chosen.results.read_text(encoding="utf-8"))
        if {key: before.get(key) for key in head} == head:
            results = before
        else:
            print(f"{chosen.results} is of another machine, or of other versions: it is made anew.")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("ONNXPTQ_CACHE", folder)
        bench = Bench(Path(folder), chosen.dry_run, chosen.hide_wheels)
        run(results, chosen.results, bench, 60 * chosen.minutes, only=chosen.only, again=chosen.again)
    if chosen.write:
        if chosen.dry_run:
            raise SystemExit("a dry run says nothing of a GPU: its table is not for the documents.")
        replace_tables(chosen.write, "gpu", table(results))
    verdicts = Counter(one["verdict"] for one in results["claims"].values())
    print(", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items())))
    return 1 if verdicts["broken"] else 3 if verdicts["not run"] else 0


if __name__ == "__main__":
    sys.exit(main())
