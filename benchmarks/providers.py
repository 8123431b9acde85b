"""What our runner costs over a bare `session.run` loop, and the latency of FP32 and INT8 on every runtime that loads.

    python benchmarks/providers.py [--add cpu@1.20 --add openvino] [--shared FOLDER] [--write docs/providers.md]

Prints ratios and times of one run, alternating in small turns, as Markdown, with the machine that they were taken on.
Three paths are compared with a plain loop over `InferenceSession.run` on the same model, threads and batch:

- in process: `onnxptq.runtimes.Session.run`, which `quantize` and `evaluate` use;
- timed: the loop inside the isolated worker, whose times `compare` reports (its target is at most 1.03);
- isolated: a run in the worker with arrays sent there and back through files, which `compare` uses for predictions.

Latency is that of the built-in model, of a MobileNetV2 of random weights (224 x 224), and of the CIFAR-10 models where
`--shared` names a folder with `models/` and `data/`. `--add` builds runtimes in environments of their own, once.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from _document import machine, replace_tables, versions
from _networks import NETWORKS

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.graphs import load_model
from onnxptq.inputs import DataOptions
from onnxptq.models import builtin
from onnxptq.runtimes import cpu_features, open_session, probe
from onnxptq.runtimes.environments import add_packages, default_packages, environments
from onnxptq.runtimes.isolated import Worker
from onnxptq.runtimes.latency import Burst, Latency, measure
from onnxptq.runtimes.selection import Runtime, ready, resolve_runtime

TARGET = 1.03


@dataclass(frozen=True)
class Pair:
    """A model as FP32 and INT8, and the shape of one sample."""

    name: str
    fp32: Path
    int8: Path
    shape: tuple[int, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ep", action="append", help="runtimes for latency [cpu, what loads here, what was added]")
    parser.add_argument("--add", action="append", default=[], help="a runtime to add first, for example cpu@1.20")
    parser.add_argument("--shared", type=Path, help="folder with models/cifar10_*.onnx and data/cifar10/train.parquet")
    parser.add_argument("--runs", type=int, default=400, help="calls of each path [400]")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--write", type=Path, metavar="DOCUMENT", help="replace the tables in docs/providers.md")
    chosen = parser.parse_args()
    cache = user_cache()
    for name in chosen.add:
        add_packages(cache, name, default_packages(name), say=print)
    here = ["cpu", *(name for name in ("cuda", "tensorrt", "openvino") if probe(name).loads)]
    names = chosen.ep or list(dict.fromkeys([*here, *(added.name for added in environments(cache))]))
    features = ", ".join(cpu_features()) or "CPU features not known"
    lines = [f"{machine()} ({features}); {versions('onnxruntime', 'onnx', 'numpy')}; {chosen.threads} thread(s)."]
    if hasattr(os, "getloadavg") and (load := os.getloadavg()[0]) > 1.5:
        lines += ["", f"Other processes were running (load {load:.1f} at the start): times scatter."]
    with tempfile.TemporaryDirectory() as folder:
        lines += overhead_table(Path(folder), chosen.runs, chosen.threads)
        for pair in pairs(Path(folder), chosen.shared):
            lines += latency_table(pair, names, chosen.runs, chosen.threads, chosen.batch)
    text = "\n".join(lines)
    print(text)
    if chosen.write:
        replace_tables(chosen.write, "latency", text)


def pairs(folder: Path, shared: Path | None) -> list[Pair]:
    """The models, each quantized by `onnxptq.quantize` at its defaults."""
    digits = folder / "digits.int8.onnx"
    onnxptq.quantize(evaluate=False, output=digits)
    found = [Pair("digits (8 x 8, built in)", builtin().model, digits, (1, 8, 8))]
    build, shape = NETWORKS["mobilenet_v2"]
    large, large8 = build(folder / "mobilenet_v2.onnx"), folder / "mobilenet_v2.int8.onnx"
    onnxptq.quantize(large, calib="random", calib_size=8, evaluate=False, output=large8)
    found.append(Pair("MobileNetV2 (224 x 224, random weights)", large, large8, shape[1:]))
    for name in ("resnet20", "mobilenet") if shared else ():
        model, made = shared / "models" / f"cifar10_{name}.onnx", folder / f"{name}.int8.onnx"
        data = DataOptions(calib_data=str(shared / "data" / "cifar10" / "train.parquet"))
        onnxptq.quantize(model, options=data, evaluate=False, output=made)
        found.append(Pair(f"CIFAR-10 {name} (32 x 32)", model, made, (3, 32, 32)))
    return found


def overhead_table(folder: Path, runs: int, threads: int) -> list[str]:
    """Ratios to the bare loop on a small model, where overhead shows most, and on a large one."""
    lines = ["", "Median of each path over the median of a bare `session.run` loop:", ""]
    lines += ["| model | bare ms | in process | timed | isolated | timed at most 1.03 |", "|---|---|---|---|---|---|"]
    build, shape = NETWORKS["mobilenet_v2"]
    for name, model, size in (
        ("digits, batch 8", builtin().model, (8, 1, 8, 8)),
        ("MobileNetV2", build(folder / "overhead.onnx"), shape),
    ):
        bare, *others = overhead(model, size, runs, threads)
        ratios = [other / bare for other in others]
        cells = [f"{1e3 * bare:.3f}", *(f"{ratio:.3f}" for ratio in ratios), "yes" if ratios[1] <= TARGET else "no"]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def overhead(model: Path, shape: tuple[int, ...], runs: int, threads: int) -> list[float]:
    """Median seconds of the bare loop, the session in process, the timed loop and the isolated run."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    bare = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    ours = open_session(model, threads=threads)
    feeds = {bare.get_inputs()[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    with Worker() as worker:
        opened = worker.open(model, threads=threads)
        bursts: list[Burst] = [
            looped(lambda: bare.run(None, feeds)),
            looped(lambda: ours.run(feeds)),
            lambda count, warmup: worker.time(opened, feeds, runs=count, warmup=warmup),
            looped(lambda: worker.run(opened, feeds)),
        ]
        found = measure(bursts, runs)
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


def latency_table(pair: Pair, names: list[str], runs: int, threads: int, batch: int) -> list[str]:
    """FP32 beside INT8 on every runtime, all in turns."""
    runtimes = [ready(resolve_runtime(name, user_cache())) for name in names]
    samples = np.random.default_rng(0).standard_normal((batch, *pair.shape)).astype(np.float32)
    bursts, labels, workers = [], [], []
    try:
        for runtime in runtimes:
            for label, model in (("FP32", pair.fp32), ("INT8", pair.int8)):
                workers.append(Worker(runtime.python))
                bursts.append(burst_of(workers[-1], runtime, model, samples, threads))
                labels.append((runtime.name, label))
        found = dict(zip(labels, measure(bursts, runs), strict=True))
    finally:
        for worker in workers:
            worker.close()
    lines = ["", f"**{pair.name}**, batch {batch}, milliseconds a call:", ""]
    lines += ["| runtime | | p50 | p90 | p99 | samples a second | FP32 / INT8 |", "|---|---|---|---|---|---|---|"]
    for (name, label), one in found.items():
        if not isinstance(one, Latency):
            lines.append(f"| `{name}` | {label} | {one.failure}: {one.reason} | | | | |")
            continue
        base = found[name, "FP32"]
        faster = f"{base.p50 / one.p50:.2f}" if label == "INT8" and isinstance(base, Latency) else ""
        cells = [f"{1e3 * value:.3f}" for value in (one.p50, one.p90, one.p99)]
        lines.append(f"| `{name}` | {label} | " + " | ".join([*cells, f"{batch / one.mean:.0f}", faster]) + " |")
    return lines


def burst_of(worker: Worker, runtime: Runtime, model: Path, images: np.ndarray, threads: int) -> Burst:
    providers = runtime.session_providers(user_cache(), load_model(model), threads)
    session = worker.open(model, providers, optimization=runtime.optimization, threads=threads)
    feeds = {session.signature.inputs[0].name: images}
    device = "cuda" if runtime.on_gpu else None
    return lambda count, warmup: worker.time(session, feeds, runs=count, warmup=warmup, device=device)


if __name__ == "__main__":
    main()
