"""What our runner costs over a bare `session.run` loop, and the latency of FP32 and INT8 on every provider that loads.

    python benchmarks/providers.py [--ep cuda --ep tensorrt ...] [--runs 400]

Prints ratios of one run, alternating in small turns, and the machine that they were taken on. Three paths are compared
with a plain loop over `InferenceSession.run` on the same model, threads and batch:

- in process: `onnxptq.runtimes.Session.run`, which `quantize` and `evaluate` use;
- timed: the loop inside the isolated worker, whose times `compare` reports (its target is at most 1.03);
- isolated: a run in the worker with arrays sent there and back through files, which `compare` uses for predictions.
"""

from __future__ import annotations

import argparse
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from _networks import NETWORKS

import onnxptq
from onnxptq.cache import cache_room
from onnxptq.graphs import load_model
from onnxptq.models import builtin
from onnxptq.runtimes import cpu_features, open_session, probe
from onnxptq.runtimes.isolated import Worker
from onnxptq.runtimes.latency import Burst, Latency, measure
from onnxptq.runtimes.selection import Runtime, ready, resolve_runtime

TARGET = 1.03


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ep", action="append", default=[], help="runtimes for the latency table [cpu and what loads]")
    parser.add_argument("--runs", type=int, default=400, help="calls of each path")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8)
    chosen = parser.parse_args()
    print(f"{platform.platform()}, {platform.machine()}: {', '.join(cpu_features()) or 'CPU features not known'}")
    print(f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}, numpy {np.__version__}")
    with tempfile.TemporaryDirectory() as folder:
        print_overhead(Path(folder), chosen.runs, chosen.threads, chosen.batch)
        runtimes = chosen.ep or ["cpu", *(name for name in ("cuda", "tensorrt", "openvino") if probe(name).loads)]
        print_latency(Path(folder), runtimes, chosen.runs, chosen.threads, chosen.batch)


def print_overhead(folder: Path, runs: int, threads: int, batch: int) -> None:
    """Ratios to the bare loop on a small model, where overhead shows most, and on a large one."""
    print(f"\noverhead, {threads} thread(s): median of each path over the median of a bare session.run loop")
    print(f"{'model':<14}{'bare ms':>10}{'in process':>12}{'timed':>8}{'isolated':>10}")
    build, shape = NETWORKS["mobilenet_v2"]
    for name, model, size in (
        ("digits", builtin().model, (batch, 1, 8, 8)),
        ("mobilenet_v2", build(folder / "mobilenet_v2.onnx"), shape),
    ):
        bare, *others = overhead(model, size, runs, threads)
        ratios = [other / bare for other in others]
        print(f"{name:<14}{1e3 * bare:>10.3f}{ratios[0]:>12.3f}{ratios[1]:>8.3f}{ratios[2]:>10.3f}")
        print(f"    timed: {'within' if ratios[1] <= TARGET else 'ABOVE'} the target of {TARGET}")


def overhead(model: Path, shape: tuple[int, ...], runs: int, threads: int) -> list[float]:
    """Median seconds of the bare loop, the session in process, the timed loop and the isolated run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    bare = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    ours = open_session(model, threads=threads)
    feeds = {bare.get_inputs()[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    with Worker() as worker:
        opened = worker.open(model, threads=threads)
        lanes: list[Burst] = [
            looped(lambda: bare.run(None, feeds)),
            looped(lambda: ours.run(feeds)),
            lambda count, warmup: worker.time(opened, feeds, runs=count, warmup=warmup),
            looped(lambda: worker.run(opened, feeds)),
        ]
        found = measure(lanes, runs)
    return [one.p50 for one in found if isinstance(one, Latency)]


def looped(once: Callable[[], object]) -> Burst:
    def time_it(runs: int, warmup: int) -> list[float]:
        for _ in range(warmup):
            once()
        seconds = []
        for _ in range(runs):
            start = time.perf_counter()
            once()
            seconds.append(time.perf_counter() - start)
        return seconds

    return time_it


def print_latency(folder: Path, names: list[str], runs: int, threads: int, batch: int) -> None:
    """FP32 beside INT8 of the built-in model on every runtime, all in turns."""
    int8 = folder / "digits.int8.onnx"
    onnxptq.quantize(evaluate=False, output=int8)
    runtimes = [ready(resolve_runtime(name, cache_room())) for name in names]
    for runtime in runtimes:
        print(f"\n{runtime.name}: {runtime.identity()}")
    images = np.random.default_rng(0).standard_normal((batch, 1, 8, 8)).astype(np.float32)
    models = {"FP32": builtin().model, "INT8": int8}
    lanes, labels, workers = [], [], []
    try:
        for runtime in runtimes:
            for label, model in models.items():
                workers.append(Worker(runtime.python))
                lanes.append(lane(workers[-1], runtime, model, images, threads))
                labels.append((runtime.name, label))
        print(f"\n{'runtime':<14}{'model':<6}{'p50 ms':>10}{'p90':>10}{'p99':>10}{'per second':>12}")
        for (name, label), found in zip(labels, measure(lanes, runs), strict=True):
            if isinstance(found, Latency):
                cells = "".join(f"{1e3 * value:>10.3f}" for value in (found.p50, found.p90, found.p99))
                print(f"{name:<14}{label:<6}{cells}{batch / found.mean:>12.0f}")
            else:
                print(f"{name:<14}{label:<6}{found.failure}: {found.reason}")
    finally:
        for worker in workers:
            worker.close()


def lane(worker: Worker, runtime: Runtime, model: Path, images: np.ndarray, threads: int) -> Burst:
    providers = runtime.session_providers(cache_room(), load_model(model).digest, threads)
    session = worker.open(model, providers, optimization=runtime.optimization, threads=threads)
    feeds = {session.signature.inputs[0].name: images}
    device = "cuda" if runtime.on_gpu else None
    return lambda count, warmup: worker.time(session, feeds, runs=count, warmup=warmup, device=device)


if __name__ == "__main__":
    main()
