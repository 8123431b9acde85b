"""One pass for all range methods against ONNX Runtime's calibrators: time, memory, and how exact a percentile is.

    python benchmarks/calibration.py [--quick] [--json FILE]

Builds its networks itself (random weights). Every measurement runs in a process of its own, pinned to one core, ours
and theirs in turn. Times are CPU seconds per sample: what N samples cost more than one, so that loading a model counts
on no side (it is printed apart). They are given as ratios to "bare": plain FP32 `session.run` over the same samples,
fully optimised (ENABLE_ALL). `--quick` takes fewer samples and about five minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
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

from _networks import NETWORKS

STOCK_METHODS = ("MinMax", "Entropy", "Percentile")
OUR_METHODS = ("minmax", "entropy", "percentile")
SETS = 4

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

    statistics = collect(path, Samples(network, count), tensors, optimized=optimized, threads=1)
    for name in OUR_METHODS:
        for tensor in tensors:
            RANGE_METHODS.get(name).range(statistics.per_environment(tensor), QuantizationType())


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
    opened = CalibrationPass(path, writer.plan.observed, optimized=optimized, threads=1)
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
    assert not writer.fallbacks, writer.fallbacks


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

    from onnxptq.calibrators._histogram import Accumulator
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


WORKERS = {worker.__name__: worker for worker in (bare, one_pass, stock, many_ours, many_stock, percentile_error)}


def work(task: Result) -> None:
    """Runs one task in this process and prints CPU seconds and peak resident memory as JSON.

    Per sample where the task is a pass over samples: what the others cost beside the first, after one pass to warm up.
    """
    from onnxptq.calibrators._histogram import compiled

    worker, path, count = WORKERS[task.pop("worker")], Path(task.pop("path")), task["count"]
    start_up = 0.0
    with contextlib.redirect_stdout(sys.stderr):
        if worker in (bare, one_pass, stock):
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


def benchmark(quick: bool) -> Result:
    from onnxptq.quantization.plan import observed_tensors
    from onnxptq.quantization.settings import QuantizerSettings

    report: Result = {"machine": platform.processor() or platform.machine(), "quick": quick, "pass": {}, "memory": {}}
    with tempfile.TemporaryDirectory() as folder:
        for network, (build, _) in NETWORKS.items():
            path = build(Path(folder) / f"{network}.onnx")
            tensors = list(observed_tensors(path, QuantizerSettings()))
            print(f"{network}: one pass ...", file=sys.stderr)
            report["pass"][network] = measure_pass(network, path, tensors, 12 if quick else 32, 1 if quick else 3)
            counts = (8, 64) if quick else (64, 512)
            report["memory"][network] = measure_memory(network, path, tensors, counts)
        print("3 methods x 4 sets ...", file=sys.stderr)
        path = Path(folder) / "mobilenet_v2.onnx"
        report["many"] = measure_many(path, 8 if quick else 64)
        report["percentile_bins"] = run("percentile_error", path, "mobilenet_v2", 5 if quick else 20)["result"]
    return report


def show(report: Result) -> None:
    names = list(next(iter(report["pass"].values()))["ratios"])
    titles = {"ratios": "CPU time per sample over bare FP32 inference", "start_up_seconds": "Start-up, CPU seconds"}
    for key, title in titles.items():
        print(f"{title}\n\n| network | " + " | ".join(names) + " |")
        print("|---" * (len(names) + 1) + "|")
        for network, one in report["pass"].items():
            print(f"| {network} | " + " | ".join(f"{one[key][name]:.2f}" for name in names) + " |")
        print()
    print("Peak resident memory, MB\n")
    print("| network | bare | ours at N samples | over bare | stock MinMax, Entropy, Percentile |")
    print("|---|---|---|---|---|")
    for network, one in report["memory"].items():
        ours = ", ".join(f"{mb:.0f} ({n})" for n, mb in zip(one["samples"], one["ours_mb"], strict=True))
        found = report["pass"][network]
        theirs = ", ".join(f"{found['peak_mb'][f'stock {method}']:.0f}" for method in STOCK_METHODS)
        row = [network, f"{one['bare_mb']:.0f}", ours, f"{one['over_bare_mb']:.0f}", f"{theirs} ({found['samples']})"]
        print("| " + " | ".join(row) + " |")
    many, bins = report["many"], report["percentile_bins"]
    print(f"\n3 methods x {SETS} sets x {many['samples']} samples, MobileNetV2, start-up included:")
    for name, seconds in many["seconds"].items():
        share = many["seconds"]["stock"] / seconds
        print(f"{name}: {seconds:.1f} CPU seconds, 1/{share:.0f} of stock, peak {many['peak_mb'][name]:.0f} MB")
    print("\nThe exact 99.999 percentile of heavy tails missed by, in bins of ONNX Runtime's histogram:")
    print(f"ours {bins['ours']:.2f}, stock {bins['stock']:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer samples, about five minutes on two cores")
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        work(json.loads(arguments.worker))
        return
    report = benchmark(arguments.quick)
    show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
