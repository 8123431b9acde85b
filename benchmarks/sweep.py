"""A sweep against the obvious loop over `quantize_static` and `session.run`: time by part, and memory.

    python benchmarks/sweep.py [--quick] [--part quantize] [--shared DIR] [--json FILE] [--write docs/sweep.md]

Three methods x eight calibration sets on MobileNetV2 at 224 x 224 (random weights, random pictures) and, with --shared,
on the CIFAR-10 nets in DIR/models with data in DIR/data. Every measurement runs in a process of its own, pinned to one
core with one thread, ours and theirs in turn; the least of the repeats counts. Times are CPU seconds, but for scheduler
and store, where a flush to the disk is wall time.

- quantize: folding, drawing, passes, ranges and files of 24 models, against `quant_pre_process` once and
  `quantize_static` 24 times on samples that lie in memory.
- evaluate: FP32 and the distinct INT8 models judged (decoding, corruptions, predictions kept, reports), against bare
  `session.run` for the same predictions on batches that lie in memory.
- profile: where the time of ours goes in both, under a profiler.
- schedule: a sweep whose jobs are done at once, and one that finds every cell in the store.
- memory: peak memory of a sweep of the built-in model, of few cells and of ten times as many.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _document import machine, replace_tables, versions
from _networks import mobilenet_v2
from _sweep_work import STOCK_METHODS, WORK, Figures, peak_mb

PARTS = ("quantize", "evaluate", "profile", "schedule", "memory")
SETS = ("clean", "dark@3", "bright@3", "contrast@3", "blur@5", "noisy", "imbalanced", "random")
CORRUPTIONS = ("fog@3", "motion_blur@3")
CIFAR = ("cifar10_mobilenet", "cifar10_resnet20")

CHEAPER, OVER_BARE, CELL_SECONDS, GROWTH = 15.0, 1.05, 0.010, 1.05
"""Targets: so many times less than stock; so many times bare; a cell; memory at ten times the cells."""


def plan_of(network: str, folder: Path, shared: Path | None, quick: bool) -> Any:
    """The study of a network; its data is written into `folder`, small enough to be opened at once in each process."""
    from onnxptq.sweeps.plan import Plan, Reading

    grid: dict[str, Any] = {"calibrations": SETS, "methods": tuple(STOCK_METHODS), "corruptions": CORRUPTIONS}
    if network == "mobilenet_v2":
        size = {"calib_size": 8 if quick else 32, "eval_size": 8 if quick else 32}
        reading = Reading(size=(224, 224), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        model = mobilenet_v2(folder / "mobilenet_v2.onnx")
        data = _pictures(folder / "pictures.parquet", 128 if quick else 384)
        return Plan(models=(str(model),), data=str(data), reading=reading, **grid, **size)
    assert shared is not None
    size = {"calib_size": 32 if quick else 128, "eval_size": 200 if quick else 1000}
    data = _rows(shared / "data/cifar10/test.parquet", folder / "cifar10.parquet", 600 if quick else 3000)
    return Plan(models=(str(shared / "models" / f"{network}.onnx"),), data=str(data), **grid, **size)


def _pictures(path: Path, count: int) -> Path:
    """Seeded pictures of 224 x 224 with large and small structure, as JPEG, in eight classes."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    rng = np.random.default_rng(0)
    encoded = []
    for _ in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((224, 224))
        noise = rng.normal(0.0, 12.0, (224, 224, 3))
        buffer = io.BytesIO()
        Image.fromarray(np.clip(np.asarray(coarse) + noise, 0, 255).astype(np.uint8)).save(buffer, "JPEG")
        encoded.append(buffer.getvalue())
    pq.write_table(pa.table({"image": encoded, "label": [i % 8 for i in range(count)]}), path)
    return path


def _rows(source: Path, path: Path, count: int) -> Path:
    """The first rows of a table."""
    import pyarrow.parquet as pq

    if not path.exists():
        pq.write_table(pq.read_table(source).slice(0, count), path)
    return path


def run(worker: str, **arguments: Any) -> Figures:
    """One measurement in a process of its own, on the last core; its figures and its peak memory in MB."""
    task = json.dumps({"worker": worker, **arguments})
    command = [sys.executable, __file__, "--worker", task]
    if hasattr(os, "sched_getaffinity"):
        command = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    if done.returncode:
        raise SystemExit(f"{worker} failed:\n{done.stderr[-3000:]}")
    figures: Figures = json.loads(done.stdout.splitlines()[-1])
    return figures


def work(task: Figures) -> None:
    """What `run` started: prints the figures as JSON."""
    from onnxptq.sweeps.plan import plan_from_dict

    worker = WORK[task.pop("worker")]
    if "plan" in task:
        task["plan"] = plan_from_dict(task["plan"], "plan")
    if "folder" in task:
        task["folder"] = Path(task["folder"])
    with contextlib.redirect_stdout(sys.stderr):
        figures = worker(**task)
    print(json.dumps({**figures, "peak_mb": peak_mb()}))


def in_turn(times: int, tasks: dict[str, Figures]) -> dict[str, Figures]:
    """Runs all tasks in turn, `times` over; keeps each one's run of least time."""
    found: dict[str, Figures] = {}
    for repeat in range(times):
        for name, task in tasks.items():
            if "folder" in task:
                task = {**task, "folder": f"{task['folder']}.{repeat}"}
            one = run(**task)
            if name not in found or one["seconds"] < found[name]["seconds"]:
                found[name] = one
    return found


def measure_network(network: str, plan: Any, folder: Path, parts: tuple[str, ...], times: int) -> Figures:
    """Quantization and evaluation of a network."""
    given = {"plan": plan.to_dict()}
    ours = {"worker": "quantize_ours", **given, "folder": str(folder / f"{network}.int8")}
    result: Figures = {"calibration": plan.calib_size, "evaluation": plan.eval_size}
    if "quantize" in parts:
        found = in_turn(times, {"ours": ours, "stock": {"worker": "quantize_stock", **given}})
        result["quantize"] = found
    else:
        found = in_turn(1, {"ours": ours})
    if "evaluate" in parts:
        files = {"files": found["ours"]["files"]}
        lanes = {name: {"worker": f"evaluate_{name}", **given, **files} for name in ("ours", "bare")}
        result["evaluate"] = in_turn(times, lanes)
    if "profile" in parts:
        files = {"files": found["ours"]["files"]}
        result["profile"] = {
            "quantize": run("quantize_profile", **given, folder=str(folder / f"{network}.profile")),
            "evaluate": run("evaluate_profile", **given, **files),
        }
    return result


def benchmark(quick: bool, parts: tuple[str, ...], shared: Path | None) -> Figures:
    report: Figures = {
        "machine": machine(),
        "versions": versions("onnxruntime", "onnx", "numpy", "numba"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "quick": quick,
        "networks": {},
    }
    times = 2 if quick else 3
    with tempfile.TemporaryDirectory() as name:
        networks = ("mobilenet_v2", *(CIFAR if shared else ()))
        for network in networks if {"quantize", "evaluate", "profile"} & set(parts) else ():
            print(f"{network} ...", file=sys.stderr)
            plan = plan_of(network, Path(name), shared, quick)
            report["networks"][network] = measure_network(network, plan, Path(name), parts, times)
    if "schedule" in parts:
        print("scheduler and store ...", file=sys.stderr)
        report["schedule"] = run("schedule", cells=240 if quick else 1008)
    if "memory" in parts:
        print("memory ...", file=sys.stderr)
        report["memory"] = [run("sweep_memory", cells=cells) for cells in (48, 480)]
    return report


# --- What is said -----------------------------------------------------------------------------------------------------


def against_targets(report: Figures) -> list[list[str]]:
    """[measure, ours, target, met] of each target that the report can judge."""
    rows: list[list[str]] = []

    def row(measure: str, value: str, target: str, met: bool) -> None:
        rows.append([measure, value, target, "yes" if met else "no"])

    for network, one in report["networks"].items():
        if "quantize" in one:
            ratio = one["quantize"]["stock"]["seconds"] / one["quantize"]["ours"]["seconds"]
            row(
                f"quantization, {network}: stock over ours", f"{ratio:.1f}", f"at least {CHEAPER:.0f}", ratio >= CHEAPER
            )
        if "evaluate" in one:
            ratio = one["evaluate"]["ours"]["seconds"] / one["evaluate"]["bare"]["seconds"]
            row(f"evaluation, {network}: over bare", f"{ratio:.2f}", f"at most {OVER_BARE}", ratio <= OVER_BARE)
    if "schedule" in report:
        found = report["schedule"]
        for name, what in (("new", "a new cell"), ("known", "a known cell")):
            seconds = found["grid"] + found[name]
            row(f"scheduler and store, {what}", f"{1e3 * seconds:.1f} ms", "under 10 ms", seconds < CELL_SECONDS)
    if "memory" in report:
        few, many = report["memory"]
        ratio = many["peak_mb"] / few["peak_mb"]
        what = f"memory at {many['cells']} cells over {few['cells']}"
        row(what, f"{ratio:.2f}", f"at most {GROWTH}", ratio <= GROWTH)
    return rows


def markdown(report: Figures) -> str:
    notes = [report["machine"], report["versions"], *(["`--quick`"] if report["quick"] else [])]
    if report["load"] is not None:
        notes.append(f"load {report['load']:.1f} before")
    lines = [", ".join(notes) + "."]
    networks = report["networks"]
    found = {network: one for network, one in networks.items() if "quantize" in one}
    if found:
        lines += ["", "Quantization, three methods on each of eight sets, CPU seconds and peak MB:", ""]
        columns = ["network", "samples a set", "stock", "ours", "stock over ours", "MB stock", "MB ours"]
        lines += _table(columns, [_quantize_row(network, one) for network, one in found.items()])
    found = {network: one for network, one in networks.items() if "evaluate" in one}
    if found:
        lines += ["", "Evaluation, FP32 and the distinct INT8 models, CPU seconds:", ""]
        columns = ["network", "predictions", "`session.run`", "loading", "ours, all", "over `session.run`"]
        columns.append("over both")
        lines += _table(columns, [_evaluate_row(network, one) for network, one in found.items()])
    profiled = {network: one["profile"] for network, one in networks.items() if "profile" in one}
    for part, title in (("quantize", "Quantization"), ("evaluate", "Evaluation")):
        if profiled:
            lines += ["", f"{title} of ours under a profiler, which makes Python dearer: CPU seconds and share.", ""]
            lines += _table(["part", *profiled], _profile_rows([one[part] for one in profiled.values()]))
    if "schedule" in report:
        one = report["schedule"]
        parts = {"looking at the grid": "grid", "a new cell": "new", "a known cell": "known", "reading it": "read"}
        said = ", ".join(f"{what} {1e3 * one[name]:.2f}" for what, name in parts.items())
        lines += ["", f"Scheduler and store at {one['cells']} cells, wall milliseconds a cell: {said}."]
    if "memory" in report:
        said = ", ".join(f"{one['peak_mb']:.0f} MB at {one['cells']} cells" for one in report["memory"])
        lines += ["", f"Peak memory, scheduler and worker in one process, built-in model: {said}."]
    return "\n".join([*lines, "", *_table(["measure", "ours", "target", "met"], against_targets(report))])


def _quantize_row(network: str, one: Figures) -> list[str]:
    ours, stock = one["quantize"]["ours"], one["quantize"]["stock"]
    ratio = stock["seconds"] / ours["seconds"]
    seconds = [f"{stock['seconds']:.1f}", f"{ours['seconds']:.1f}", f"{ratio:.1f}"]
    return [network, str(one["calibration"]), *seconds, f"{stock['peak_mb']:.0f}", f"{ours['peak_mb']:.0f}"]


def _evaluate_row(network: str, one: Figures) -> list[str]:
    ours, bare = one["evaluate"]["ours"], one["evaluate"]["bare"]
    running, loading = bare["seconds"], bare["loading"]
    ratios = [f"{ours['seconds'] / running:.2f}", f"{ours['seconds'] / (running + loading):.2f}"]
    seconds = [f"{running:.1f}", f"{loading:.1f}", f"{ours['seconds']:.1f}"]
    return [network, f"{ours['predictions']:,}", *seconds, *ratios]


def _profile_rows(measured: list[Figures]) -> list[list[str]]:
    """A row for each part, a column for each network."""
    return [
        [step, *(f"{one['steps'][step]:.2f} ({one['steps'][step] / one['seconds']:.0%})" for one in measured)]
        for step in measured[0]["steps"]
    ]


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="fewer samples and repeats, under ten minutes on two cores"
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="measure only this; repeatable [all]")
    parser.add_argument("--shared", type=Path, metavar="DIR", help="folder with the CIFAR-10 nets and data")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="replace the tables in docs/sweep.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    report = benchmark(arguments.quick, tuple(arguments.part or PARTS), arguments.shared)
    print(markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.write:
        replace_tables(arguments.write, "sweep", markdown(report))


if __name__ == "__main__":
    main()
