"""One pass for all range methods against ONNX Runtime's calibrators: time, memory, and how exact a percentile is.

    python benchmarks/calibration.py [--quick] [--part pass] [--json FILE] [--write docs/performance.md]

Builds its networks itself (random weights). Every measurement runs in a process of its own, pinned to one core, ours
and theirs in turn. Times are CPU seconds per sample: what N samples cost more than one, so that loading a model counts
on no side (it is printed apart). They are given as ratios to "bare": plain FP32 `session.run` over the same samples,
fully optimised (ENABLE_ALL), and again to the same without optimisation. `--quick` takes fewer samples and about five
minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from _document import machine, replace_tables, versions
from _networks import NETWORKS

STOCK_METHODS = ("MinMax", "Entropy", "Percentile")
OUR_METHODS = ("minmax", "entropy", "percentile")
SETS = 4

PARTS = ("pass", "floor", "memory", "many", "percentile")
PASS_TARGETS = {"resnet50": ("ours", 1.3), "transformer": ("ours", 1.3), "mobilenet_v2": ("ours, fast", 2.5)}
"""What a pass for all methods may cost, times bare inference: of the depthwise net on the optimised graph."""

Result = dict[str, Any]


class Samples:
    """`count` samples that fit a network: eight seeded ones, again and again, so that drawing them costs nothing."""

    def __init__(self, network: str, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self._pool = [rng.standard_normal(NETWORKS[network][1], dtype=np.float32) for _ in range(8)]
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
        for i in range(self._count):
            yield str(i), {"x": self._pool[i % len(self._pool)]}


class Reader:
    """The samples as ONNX Runtime's calibrators want them."""

    def __init__(self, samples: Samples) -> None:
        self._samples = iter(samples)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next((feeds for _, feeds in self._samples), None)


# --- What a worker process does ---------------------------------------------------------------------------------------


def bare(path: Path, network: str, count: int, optimized: bool = True) -> None:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    for _, feeds in Samples(network, count):
        session.run(None, feeds)


def one_pass(path: Path, network: str, count: int, tensors: list[str], optimized: bool = False) -> None:
    from onnxptq.calibrators.methods import RANGE_METHODS, QuantizationType
    from onnxptq.quantization.collect import collect

    statistics = collect(path, Samples(network, count), tensors, optimized=optimized)
    for name in OUR_METHODS:
        for tensor in tensors:
            RANGE_METHODS.get(name).range(statistics.per_environment(tensor), QuantizationType())


def outputs_only(path: Path, network: str, count: int, tensors: list[str], optimized: bool = False) -> None:
    """What no pass can avoid: inference with the observed tensors as outputs, which nobody then looks at."""
    from onnxptq.quantization.collect import CalibrationPass

    opened = CalibrationPass(path, tensors, optimized=optimized)
    for _, feeds in Samples(network, count):
        opened.run(feeds)


def stock(path: Path, network: str, count: int, method: str) -> None:
    from onnxruntime.quantization import CalibrationMethod, create_calibrator
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    operators = list({*QDQRegistry, *QLinearOpsRegistry})
    with tempfile.TemporaryDirectory() as folder:
        augmented = str(Path(folder) / "augmented.onnx")
        calibrator = create_calibrator(path, operators, augmented, CalibrationMethod[method])
        calibrator.collect_data(Reader(Samples(network, count)))
        calibrator.compute_data()


def many_ours(path: Path, network: str, count: int, optimized: bool = False) -> None:
    """Three methods on each of four sets, written as quantized models."""
    from onnxptq.calibrators.methods import RANGE_METHODS
    from onnxptq.quantization.collect import CalibrationPass
    from onnxptq.quantization.settings import QuantizerSettings
    from onnxptq.quantization.writer import FastWriter

    settings = QuantizerSettings()
    writer = FastWriter(path, settings)
    opened = CalibrationPass(path, writer.plan.observed, optimized=optimized)
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SETS):
            statistics = opened.collect(Samples(network, count, seed))
            for name in OUR_METHODS:
                method = RANGE_METHODS.get(name)
                ranges = {
                    tensor: method.range(statistics.per_environment(tensor), settings.quantization)
                    for tensor in writer.plan.observed
                }
                writer.write(ranges, Path(folder) / f"{seed}-{name}.onnx")
    assert not writer.anew, writer.anew


def many_stock(path: Path, network: str, count: int) -> None:
    from onnxruntime.quantization import CalibrationMethod, quantize_static

    from onnxptq.quantization.settings import QuantizerSettings

    with tempfile.TemporaryDirectory() as folder:
        for seed in range(SETS):
            for method in STOCK_METHODS:
                quantize_static(
                    path,
                    Path(folder) / f"{seed}-{method}.onnx",
                    Reader(Samples(network, count, seed)),
                    calibrate_method=CalibrationMethod[method],
                    **QuantizerSettings().to_kwargs(),
                )


def percentile_error(path: Path, network: str, count: int) -> Result:
    """Distance from the exact 99.999 percentile, in bins of ONNX Runtime's histogram; the worst of `count` tensors."""
    from onnxruntime.quantization.calibrate import HistogramCollector

    from onnxptq.calibrators.histogram import Accumulator
    from onnxptq.calibrators.methods import RANGE_METHODS, QuantizationType
    from onnxptq.calibrators.statistics import TensorStatistics

    worst = {"ours": 0.0, "stock": 0.0}
    for seed in range(count):
        rng = np.random.default_rng(seed)
        # The positive half of a heavy-tailed distribution: nothing is cut to the extremes afterwards.
        # At a million values the percentile is an exact rank, which ONNX Runtime's floating point can miss.
        values = np.abs(rng.standard_t(3, (10**6, 999_999)[seed % 2])).astype(np.float32)
        exact = np.percentile(values, 99.999, method="inverted_cdf")
        width = values.max() / 2048
        accumulator = Accumulator()
        accumulator.add(values)
        bins, counts = accumulator.sparse()
        known = TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, bins, counts)
        ours = RANGE_METHODS.get("percentile").range([known], QuantizationType())[1]
        collector = HistogramCollector("percentile", True, 2048, 2048, 99.999, "same")
        collector.collect({"t": [values]})
        theirs = collector.compute_collection_result()["t"][1]
        worst["ours"] = max(worst["ours"], float(abs(ours - exact) / width))
        worst["stock"] = max(worst["stock"], float(abs(theirs - exact) / width))
    return worst


LANES = (bare, one_pass, outputs_only, stock, many_ours, many_stock, percentile_error)
WORKERS = {worker.__name__: worker for worker in LANES}


def work(task: Result) -> None:
    """Runs one task in this process and prints CPU seconds and peak resident memory as JSON.

    Per sample where the task is a pass over samples: what the others cost beside the first, after one pass to warm up.
    """
    from onnxptq.calibrators.histogram import compiled

    worker, path, count = WORKERS[task.pop("worker")], Path(task.pop("path")), task["count"]
    start_up = 0.0
    with contextlib.redirect_stdout(sys.stderr):
        if worker in (bare, one_pass, outputs_only, stock):
            compiled()
            worker(path=path, **{**task, "count": 1})
            start_up = _timed(worker, path, {**task, "count": 1})[0]
        seconds, result = _timed(worker, path, task)
    if start_up:
        seconds = (seconds - start_up) / (count - 1)
    print(json.dumps({"seconds": seconds, "start_up": start_up, "peak_mb": _peak_mb(), "result": result}))


def _timed(worker: Any, path: Path, arguments: Result) -> tuple[float, Any]:
    start = time.process_time()
    result = worker(path=path, **arguments)
    return time.process_time() - start, result


def _peak_mb() -> float:
    """Peak resident memory of this process; `ru_maxrss` would start at that of the process that forked it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


# --- What the script does ---------------------------------------------------------------------------------------------


def run(worker: str, path: Path, network: str, count: int, **arguments: Any) -> Result:
    task = {"worker": worker, "path": str(path), "network": network, "count": count, **arguments}
    command = [sys.executable, __file__, "--worker", json.dumps(task)]
    if hasattr(os, "sched_getaffinity"):
        # The last core: the first is the one that the rest of the system likes.
        command = ["taskset", "-c", str(max(os.sched_getaffinity(0))), *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{worker} on {network} failed:\n{done.stderr[-3000:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


def repeated(times: int, tasks: dict[str, Result]) -> dict[str, Result]:
    """Runs all tasks in turn, `times` over, and keeps each one's least times and largest memory."""
    found: dict[str, Result] = {}
    for _ in range(times):
        for name, task in tasks.items():
            one = run(**task)
            best = found.setdefault(name, one)
            best["seconds"] = min(best["seconds"], one["seconds"])
            best["start_up"] = min(best["start_up"], one["start_up"])
            best["peak_mb"] = max(best["peak_mb"], one["peak_mb"])
    return found


def measure_pass(network: str, path: Path, tensors: list[str], count: int, times: int) -> Result:
    base = {"path": path, "network": network, "count": count}
    tasks: dict[str, Result] = {
        "bare": {"worker": "bare", **base},
        "bare, no optimisation": {"worker": "bare", "optimized": False, **base},
        "ours": {"worker": "one_pass", "tensors": tensors, **base},
        "ours, fast": {"worker": "one_pass", "tensors": tensors, "optimized": True, **base},
    }
    tasks |= {f"stock {method}": {"worker": "stock", "method": method, **base} for method in STOCK_METHODS}
    found = repeated(times, tasks)
    unit = found["bare"]["seconds"]
    return {
        "samples": count,
        "bare_seconds_per_sample": unit,
        "tensors_observed": len(tensors),
        "start_up_seconds": {name: one["start_up"] for name, one in found.items()},
        "ratios": {name: one["seconds"] / unit for name, one in found.items()},
        "peak_mb": {name: one["peak_mb"] for name, one in found.items()},
    }


def measure_floor(network: str, path: Path, tensors: list[str], count: int, times: int) -> Result:
    base = {"path": path, "network": network, "count": count}
    tasks: dict[str, Result] = {
        "bare": {"worker": "bare", **base},
        "outputs only": {"worker": "outputs_only", "tensors": tensors, **base},
        "ours": {"worker": "one_pass", "tensors": tensors, **base},
        "outputs only, fast": {"worker": "outputs_only", "tensors": tensors, "optimized": True, **base},
        "ours, fast": {"worker": "one_pass", "tensors": tensors, "optimized": True, **base},
    }
    found = repeated(times, tasks)
    return {
        "bare_ms": 1000 * found["bare"]["seconds"],
        "ratios": {name: one["seconds"] / found["bare"]["seconds"] for name, one in found.items()},
    }


def measure_memory(network: str, path: Path, tensors: list[str], counts: tuple[int, int]) -> Result:
    bare_mb = run("bare", path, network, counts[0])["peak_mb"]
    peaks = [run("one_pass", path, network, count, tensors=tensors)["peak_mb"] for count in counts]
    return {"samples": counts, "bare_mb": bare_mb, "ours_mb": peaks, "over_bare_mb": max(peaks) - bare_mb}


def measure_many(path: Path, count: int) -> Result:
    found = {
        "ours": run("many_ours", path, "mobilenet_v2", count),
        "ours, fast": run("many_ours", path, "mobilenet_v2", count, optimized=True),
        "stock": run("many_stock", path, "mobilenet_v2", count),
    }
    return {
        "samples": count,
        "seconds": {name: one["seconds"] for name, one in found.items()},
        "peak_mb": {name: one["peak_mb"] for name, one in found.items()},
    }


def benchmark(quick: bool, parts: tuple[str, ...]) -> Result:
    from onnxptq.quantization.plan import observed_tensors
    from onnxptq.quantization.settings import QuantizerSettings

    report: Result = {
        "machine": machine(),
        "versions": versions("onnxruntime", "onnx", "numpy", "numba"),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "quick": quick,
    }
    with tempfile.TemporaryDirectory() as folder:
        built = {network: build(Path(folder) / f"{network}.onnx") for network, (build, _) in NETWORKS.items()}
        for network, path in built.items():
            tensors = list(observed_tensors(path, QuantizerSettings()))
            if "pass" in parts:
                print(f"{network}: one pass ...", file=sys.stderr)
                measured = measure_pass(network, path, tensors, 12 if quick else 32, 1 if quick else 3)
                report.setdefault("pass", {})[network] = measured
            if "floor" in parts:
                print(f"{network}: floor ...", file=sys.stderr)
                measured = measure_floor(network, path, tensors, 12 if quick else 32, 1 if quick else 3)
                report.setdefault("floor", {})[network] = measured
            if "memory" in parts:
                print(f"{network}: memory ...", file=sys.stderr)
                counts = (8, 64) if quick else (64, 512)
                report.setdefault("memory", {})[network] = measure_memory(network, path, tensors, counts)
        path = built["mobilenet_v2"]
        if "many" in parts:
            print(f"3 methods x {SETS} sets ...", file=sys.stderr)
            report["many"] = measure_many(path, 8 if quick else 64)
        if "percentile" in parts:
            report["percentile_bins"] = run("percentile_error", path, "mobilenet_v2", 5 if quick else 20)["result"]
    return report


def measured_against_targets(report: Result) -> list[tuple[str, str, str, bool]]:
    """(measure, ours, target, met) of each target that the report can judge."""
    rows: list[tuple[str, str, str, bool]] = []
    for network, (lane, most) in PASS_TARGETS.items():
        if "pass" in report:
            ratio = report["pass"][network]["ratios"][lane]
            rows.append((f"one pass, {network} ({lane}), times bare", f"{ratio:.2f}", f"at most {most}", ratio <= most))
    for network, one in report.get("memory", {}).items():
        over, spread = one["over_bare_mb"], max(one["ours_mb"]) / min(one["ours_mb"]) - 1
        few, many = one["samples"]
        rows.append((f"memory over bare, {network}, MB", f"{over:.0f}", "at most 400", over <= 400))
        grown = f"memory at {few} and {many} samples, {network}, apart by"
        rows.append((grown, f"{100 * spread:.1f} %", "at most 3 %", spread <= 0.03))
    if "many" in report:
        for name, seconds in report["many"]["seconds"].items():
            share = report["many"]["seconds"]["stock"] / seconds
            if name != "stock":
                what = f"3 methods x {SETS} sets x {report['many']['samples']} samples ({name}), share of stock"
                rows.append((what, f"1/{share:.1f}", "at most 1/20", share >= 20))
    if "percentile_bins" in report:
        missed = report["percentile_bins"]["ours"]
        rows.append(("exact 99.999 percentile missed by, bins", f"{missed:.2f}", "at most 1", missed <= 1))
    return rows


def markdown(report: Result) -> str:
    """All that was measured, as tables for a document."""
    lines = [f"{report['machine']}; {report['versions']}" + (" (`--quick`)." if report["quick"] else ".")]
    if report["load"] is not None and report["load"] > 1.5:
        lines += ["", f"Other processes were running (load {report['load']:.1f} at the start): times scatter."]
    if "pass" in report:
        lines += _pass_tables(report["pass"])
    if "floor" in report:
        lines += _floor_table(report["floor"])
    if "memory" in report:
        lines += _memory_table(report["memory"], report.get("pass", {}))
    if "many" in report:
        lines += _many_table(report["many"])
    if "percentile_bins" in report:
        bins = report["percentile_bins"]
        missed = f"ours {bins['ours']:.2f}, stock {bins['stock']:.1f}"
        lines += ["", f"Exact 99.999 percentile of heavy tails, missed by so many of ONNX Runtime's bins: {missed}."]
    rows = [
        [what, ours, target, "yes" if met else "no"] for what, ours, target, met in measured_against_targets(report)
    ]
    return "\n".join([*lines, "", "Against the targets:", "", *_table(["measure", "ours", "target", "met"], rows)])


def _pass_tables(passes: Result) -> list[str]:
    names = list(next(iter(passes.values()))["ratios"])
    lines: list[str] = []
    for title, base in (("fully optimised (`ENABLE_ALL`)", "bare"), ("`ORT_DISABLE_ALL`", "bare, no optimisation")):
        rows = [[net, *(f"{one['ratios'][n] / one['ratios'][base]:.2f}" for n in names)] for net, one in passes.items()]
        lines += ["", f"CPU time per sample over bare FP32 inference, {title}:", "", *_table(["network", *names], rows)]
    rows = [[network, *(f"{one['start_up_seconds'][n]:.2f}" for n in names)] for network, one in passes.items()]
    return [*lines, "", "CPU seconds before the first sample, imports aside:", "", *_table(["network", *names], rows)]


def _floor_table(floor: Result) -> list[str]:
    names = list(next(iter(floor.values()))["ratios"])
    rows = [
        [network, f"{one['bare_ms']:.1f}", *(f"{one['ratios'][n]:.2f}" for n in names[1:])]
        for network, one in floor.items()
    ]
    title = "Where the time goes: with the observed tensors as outputs that nobody looks at, and with counting:"
    return ["", title, "", *_table(["network", "bare, ms a sample", *names[1:]], rows)]


def _memory_table(memory: Result, passes: Result) -> list[str]:
    rows = []
    for network, one in memory.items():
        ours = [f"{mb:.0f}" for mb in one["ours_mb"]]
        found = passes.get(network)
        theirs = [f"{found['peak_mb'][f'stock {m}']:.0f}" if found else "" for m in STOCK_METHODS]
        rows.append([network, f"{one['bare_mb']:.0f}", *ours, f"{one['over_bare_mb']:.0f}", ", ".join(theirs)])
    few, many = next(iter(memory.values()))["samples"]
    count = next(iter(passes.values()))["samples"] if passes else "no"
    columns = ["network", "bare", f"ours, {few} samples", f"ours, {many} samples", "over bare"]
    columns.append(f"stock {', '.join(STOCK_METHODS)}, {count} samples")
    return ["", "Peak resident memory in MB:", "", *_table(columns, rows)]


def _many_table(many: Result) -> list[str]:
    rows = [
        [name, f"{seconds:.1f}", f"1/{many['seconds']['stock'] / seconds:.1f}", f"{many['peak_mb'][name]:.0f}"]
        for name, seconds in many["seconds"].items()
    ]
    title = f"Three methods on each of {SETS} sets of {many['samples']} samples, MobileNetV2, start-up included:"
    return ["", title, "", *_table(["", "CPU seconds", "share of stock", "peak MB"], rows)]


def _table(columns: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples, about five minutes on two cores")
    parser.add_argument("--part", action="append", choices=PARTS, help="measure only this; repeatable [all]")
    parser.add_argument("--json", type=Path, help="also write the measurements here; other parts of it are kept")
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="replace the tables in docs/performance.md")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    report = benchmark(arguments.quick, tuple(arguments.part or PARTS))
    if arguments.json and arguments.part and arguments.json.is_file():
        report = json.loads(arguments.json.read_text()) | report
    print(markdown(report))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    if arguments.write:
        replace_tables(arguments.write, "calibration", markdown(report))


if __name__ == "__main__":
    main()
