"""What the documents say of CUDA and TensorRT, as functions that prove or break it. `benchmarks/gpu.py` runs them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from _networks import NETWORKS

import onnxptq
from onnxptq.cache import Cache
from onnxptq.errors import OnnxptqError
from onnxptq.evaluation.worker_session import open_in, start_worker
from onnxptq.graphs import load_model
from onnxptq.models import builtin
from onnxptq.quantization.collect import CalibrationPass
from onnxptq.quantization.collect_on_device import DevicePass
from onnxptq.quantization.plan import plan_calibration
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.runtimes import find_provider, open_session, probe
from onnxptq.runtimes import session as sessions
from onnxptq.runtimes.latency import Latency, measure
from onnxptq.runtimes.provider_options import Batches, DeviceSettings
from onnxptq.runtimes.selection import Runtime, resolve_runtime

Feeds = dict[str, np.ndarray]


@dataclass(frozen=True)
class Outcome:
    """What became of a claim: "holds", "broken", "measured" (nothing to hold) or "not run", with what was found."""

    verdict: str
    facts: dict[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim: its text as the documents have it, the provider it needs, and what tries it."""

    name: str
    text: str
    needs: str
    attempt: Callable[[Bench], Outcome]


CLAIMS: dict[str, Claim] = {}


def claim(
    name: str, text: str, needs: str = "cuda"
) -> Callable[[Callable[[Bench], Outcome]], Callable[[Bench], Outcome]]:
    def register(attempt: Callable[[Bench], Outcome]) -> Callable[[Bench], Outcome]:
        CLAIMS[name] = Claim(name, text, needs, attempt)
        return attempt

    return register


@dataclass(frozen=True)
class Bench:
    """What all claims share: a folder for files, and whether the CPU stands for the GPU."""

    folder: Path
    dry: bool
    hide_wheels: bool

    def runtime(self, name: str, **settings: Any) -> Runtime:
        return resolve_runtime(
            "cpu" if self.dry else name, self.cache, None if self.dry else DeviceSettings(**settings)
        )

    @property
    def cache(self) -> Cache:
        return Cache(self.folder / "room")

    def provider(self, name: str) -> str:
        return "cpu" if self.dry else name

    def fp32(self) -> tuple[Path, tuple[int, ...]]:
        """ResNet-50 of random weights; in a dry run the built-in digits."""
        if self.dry:
            return builtin().model, (1, 1, 8, 8)
        build, shape = NETWORKS["resnet50"]
        path = self.folder / "resnet50.onnx"
        return (path if path.exists() else build(path)), shape

    def int8(self, target: str) -> Path:
        path = self.folder / f"{target}.int8.onnx"
        if not path.exists():
            calibration = {} if self.dry else {"calib": "random", "calib_size": 8}
            model = None if self.dry else self.fp32()[0]
            onnxptq.quantize(model, evaluate=False, target=target, output=path, **calibration)
        return path

    def feeds(self, batch: int = 1, seed: int = 0) -> Feeds:
        path, shape = self.fp32()
        (spec,) = load_model(path).core.signature.inputs
        size = spec.shape[0] or batch
        return {spec.name: np.random.default_rng(seed).random((size, *shape[1:]), np.float32)}

    def samples(self, count: int) -> list[tuple[str, Feeds]]:
        return [(f"sample{number}", self.feeds(seed=number)) for number in range(count)]


@claim("libraries", "`onnxptq providers` names the GPU, its driver and the versions of cuBLAS and cuDNN.", needs="")
def libraries(bench: Bench) -> Outcome:
    status = probe(bench.provider("cuda"))
    facts = {"status": asdict(status), "tensorrt": asdict(probe("tensorrt"))}
    if bench.dry:
        return Outcome("holds" if status.loads else "broken", facts)
    whole = status.loads and status.gpu and status.driver and {"cublas", "cudnn"} <= set(status.libraries)
    return Outcome("holds" if whole else "broken", facts, status.reason)


@claim(
    "missing wheels", "Each library that is missing is named, and the remedy fits; without cuDNN products still run."
)
def missing_wheels(bench: Bench) -> Outcome:
    found = [file for entry in sys.path for file in Path(entry or ".").glob("nvidia/*/lib/lib*.so.*")]
    wanted = ("cublasLt", "cublas", "cudart", "curand", "cudnn", "nvrtc", "cufft")
    files = [file for file in found if file.name.partition(".")[0].removeprefix("lib") in wanted]
    if not files or not bench.hide_wheels:
        return Outcome(
            "not run", {}, "no wheels of NVIDIA here" if not files else "needs --hide-wheels, which renames files"
        )
    said = {}
    for file in files:
        hidden = file.rename(file.with_name(f"{file.name}.hidden"))
        try:
            code = "import json; from onnxptq.runtimes import probe; s = probe('cuda'); "
            code += "print(json.dumps([s.loads, s.reason, s.limit, s.remedy]))"
            done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
            said[file.name] = json.loads(done.stdout)
        finally:
            hidden.rename(file)
    bad = [
        name
        for name, (loads, reason, limit, _) in said.items()
        if not (name in reason or (loads and "cudnn" not in name) or limit)
    ]
    return Outcome("broken" if bad else "holds", {"said": said}, f"not named: {bad}" if bad else "")


@claim("tests", "`pytest -m gpu` passes.")
def gpu_tests(bench: Bench) -> Outcome:
    tests = Path(__file__).parents[1] / "tests"
    paths = [str(tests / "runtimes" / "test_gpu.py"), str(tests / "quantization" / "test_gpu.py")]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "addopts=--import-mode=importlib",
        "-m",
        "gpu",
        "-p",
        "no:cacheprovider",
    ]
    done = subprocess.run([*command, *paths], capture_output=True, text=True, check=False)
    last = done.stdout.strip().splitlines()[-1:]
    if done.returncode not in (0, 1):
        return Outcome("not run", {"said": last}, f"pytest ended with {done.returncode}: {done.stderr[-200:]}")
    if "passed" not in "".join(last) and done.returncode == 0:
        return Outcome("not run", {"said": last}, "every test was skipped")
    return Outcome("broken" if done.returncode else "holds", {"said": last})


@claim(
    "TF32", "FP32 without TF32 agrees with the CPU to float32's own rounding; with TF32 it loses most of the mantissa."
)
def tf32(bench: Bench) -> Outcome:
    path, _ = bench.fp32()
    feeds = bench.feeds()
    exact = open_session(path).run(feeds)[0]
    facts = {}
    for name, wished in (("off", False), ("on", True)):
        runtime = bench.runtime("cuda", tf32=wished)
        with start_worker(runtime) as worker:
            facts[name] = sqnr(exact, worker.run(open_in(worker, load_model(path), runtime, bench.cache), feeds)[0])
    if bench.dry:
        return Outcome("holds" if facts["off"] > 80 else "broken", facts)
    return Outcome("holds" if facts["off"] > 80 > facts["on"] else "broken", facts, "SQNR to the CPU in dB")


@claim(
    "float biases",
    "With WeightBiasQuantization off no DequantizeLinear of a bias runs on the CPU, and copies are fewer.",
)
def float_biases(bench: Bench) -> Outcome:
    model, runtime, facts = load_model(bench.int8("cuda")), bench.runtime("cuda"), {}
    for name in ("off", "on"):
        entries = sessions.session_entries("all", [find_provider("cuda").ort_name] if name == "off" else [])
        with ExitStack() as stack:
            stack.enter_context(mock.patch("onnxptq.runtimes.isolated.session_entries", lambda *given, e=entries: e))
            worker = stack.enter_context(start_worker(runtime))
            session = open_in(worker, model, runtime, bench.cache, profile=True)
            worker.run(session, bench.feeds())
            kernels = worker.kernels(session)
            burst = lambda runs, warmup, w=worker, s=session: w.time(s, bench.feeds(), runs=runs, warmup=warmup)  # noqa: E731
            p50 = float(np.median(burst(50, 10)))
        on_cpu = Counter(kernel.operator for kernel in kernels if kernel.provider == "CPUExecutionProvider")
        copies = sum(kernel.operator.startswith("Memcpy") for kernel in kernels)
        facts[name] = {"kernels": len(kernels), "on the CPU": dict(on_cpu), "copies": copies, "p50 ms": 1e3 * p50}
    if bench.dry:
        return Outcome("measured", facts)
    kept = not facts["off"]["on the CPU"].get("DequantizeLinear") and facts["off"]["copies"] <= facts["on"]["copies"]
    return Outcome("holds" if kept else "broken", facts)


@claim("speed", "CUDA gains no speed from INT8: it computes in float between Q and DQ.")
def speed(bench: Bench) -> Outcome:
    return _speed(bench, "cuda", lambda ratio: ratio <= 1.05)


@claim("speed of TensorRT", "TensorRT gains speed from INT8.", needs="tensorrt")
def speed_of_tensorrt(bench: Bench) -> Outcome:
    return _speed(bench, "tensorrt", lambda ratio: ratio >= 1.1)


def _speed(bench: Bench, name: str, holds: Callable[[float], bool]) -> Outcome:
    runtime = bench.runtime(name)
    facts: dict[str, Any] = {}
    device = "cuda" if runtime.on_gpu else None
    with ExitStack() as stack:
        bursts, clocks = [], []
        for path in (bench.fp32()[0], bench.int8(name)):
            worker = stack.enter_context(start_worker(runtime))
            feeds = bench.feeds()
            sizes = Batches(1, 1, feeds={key: array.shape for key, array in feeds.items()})
            opened = open_in(worker, load_model(path), runtime, bench.cache, batches=sizes)
            bursts.append(
                lambda runs, warmup, w=worker, s=opened, f=feeds: w.time(s, f, runs=runs, warmup=warmup, device=device)
            )
            clocks.append((lambda w=worker: w.clock(0)) if device else (lambda: None))
        for label, latency in zip(("FP32", "INT8"), measure(bursts, 100, clocks), strict=True):
            if not isinstance(latency, Latency):
                return Outcome("broken", facts, latency.reason)
            facts[label] = asdict(latency)
    facts["FP32 / INT8"] = facts["FP32"]["p50"] / facts["INT8"]["p50"]
    if bench.dry or not all(facts[label]["settled"] for label in ("FP32", "INT8")):
        return Outcome("measured", facts, "" if bench.dry else "the clock did not settle")
    return Outcome("holds" if holds(facts["FP32 / INT8"]) else "broken", facts)


@claim("determinism", "`--engine one-pass-cuda` gives the same statistics in every process.")
def determinism(bench: Bench) -> Outcome:
    path, _ = bench.fp32()
    tensors = plan_calibration(path, QuantizerSettings()).observed
    made = [DevicePass(path, tensors, provider=bench.provider("cuda")).collect(bench.samples(4)) for _ in range(3)]
    same = all(one.environments == made[0].environments for one in made)
    other = CalibrationPass(path, tensors, provider=bench.provider("cuda")).collect(bench.samples(4))
    apart = [
        name
        for name in tensors
        if (made[0].environments[""][name].minimum, made[0].environments[""][name].maximum)
        != (other.environments[""][name].minimum, other.environments[""][name].maximum)
    ]
    facts = {"tensors": len(tensors), "passes": len(made), "extremes apart from the copying pass": len(apart)}
    return Outcome("holds" if same and not apart else "broken", facts)


@claim("calibration", "Calibrating takes at most 1.3 of the GPU's bare FP32 inference.")
def calibration(bench: Bench) -> Outcome:
    path, _ = bench.fp32()
    tensors, samples = plan_calibration(path, QuantizerSettings()).observed, bench.samples(4 if bench.dry else 32)
    provider = bench.provider("cuda")
    bare = open_session(path, provider)
    passes: dict[str, Callable[[], Any]] = {
        "bare": lambda: [bare.run(feeds) for _, feeds in samples],
        "counted there": partial_pass(DevicePass(path, tensors, provider=provider, optimized=True), samples),
        "extremes there": partial_pass(
            DevicePass(path, tensors, provider=provider, optimized=True, histograms=False), samples
        ),
        "copied": partial_pass(CalibrationPass(path, tensors, provider=provider, optimized=True), samples),
    }
    seconds: dict[str, list[float]] = {name: [] for name in passes}
    for turn in range(2 if bench.dry else 4):
        for name, work in passes.items():
            start = time.perf_counter()
            work()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    best = {name: min(times) for name, times in seconds.items()}
    ratios = {name: best[name] / best["bare"] for name in passes if name != "bare"}
    facts = {"samples": len(samples), "bare ms a sample": 1e3 * best["bare"] / len(samples), "ratios": ratios}
    return Outcome("measured" if bench.dry else "holds" if ratios["counted there"] <= 1.3 else "broken", facts)


def partial_pass(opened: Any, samples: list[tuple[str, Feeds]]) -> Callable[[], Any]:
    return lambda: opened.collect(samples)


@claim("evaluation", "A batch of an evaluation takes at most 1.1 of the GPU's bare inference, copies included.")
def evaluation(bench: Bench) -> Outcome:
    path, _ = bench.fp32()
    runtime, feeds = bench.runtime("cuda"), bench.feeds(64)
    with start_worker(runtime) as worker:
        opened = open_in(worker, load_model(path), runtime, bench.cache)
        bare = float(np.median(worker.time(opened, feeds, runs=10, warmup=5)))
        took = []
        for _ in range(10):
            start = time.perf_counter()
            worker.run(opened, feeds)
            took.append(time.perf_counter() - start)
    ratio = float(np.median(took)) / bare
    facts = {"batch": len(next(iter(feeds.values()))), "bare ms": 1e3 * bare, "ratio": ratio}
    return Outcome("measured" if bench.dry else "holds" if ratio <= 1.1 else "broken", facts)


@claim("keys", "What was computed is found again only for the same GPU, driver, libraries, options and TF32.")
def keys(bench: Bench) -> Outcome:
    plain, wished = bench.runtime("cuda").identity(), bench.runtime("cuda", tf32=True).identity()
    if bench.dry:
        return Outcome("holds" if plain == wished else "broken", {"identity": plain}, "the CPU knows no TF32")
    lacking = {"gpu", "driver", "cublas", "cudnn", "NVIDIA_TF32_OVERRIDE", "option.use_tf32"} - set(plain)
    return Outcome(
        "broken" if lacking or plain == wished else "holds", {"identity": plain}, f"lacking {sorted(lacking)}"
    )


@claim("errors", "A GPU that is not there, a full memory and an unknown option each end with a remedy of their own.")
def errors(bench: Bench) -> Outcome:
    path, _ = bench.fp32()
    cases = {
        "no such GPU": ({"device_id": "63"}, "There is no GPU of that number"),
        "full memory": ({"gpu_mem_limit": "4096"}, "memory is full"),
        "unknown option": ({"speed": "1"}, "documents for"),
    }
    said = {}
    for name, (options, _) in cases.items():
        try:
            open_session(path, bench.provider("cuda"), options=options).run(bench.feeds())
            said[name] = "no error"
        except OnnxptqError as error:
            said[name] = str(error)
    if bench.dry:
        return Outcome("holds" if "no error" not in said.values() else "broken", said)
    bad = [name for name, (_, remedy) in cases.items() if remedy not in said[name]]
    return Outcome("broken" if bad else "holds", said, f"without its remedy: {bad}" if bad else "")


@claim("INT8 agrees", "INT8 on the GPU and on the CPU (cpu:exact) agree: SQNR to each other of 30 dB or more.")
def agrees(bench: Bench) -> Outcome:
    return _agrees(bench, "cuda")


@claim(
    "INT8 of TensorRT agrees",
    "INT8 on TensorRT and on the CPU agree likewise; FP32 runs there without INT8.",
    needs="tensorrt",
)
def tensorrt_agrees(bench: Bench) -> Outcome:
    return _agrees(bench, "tensorrt")


def _agrees(bench: Bench, name: str) -> Outcome:
    runtime, feeds, facts = bench.runtime(name), bench.feeds(), {}
    for label, path in (("FP32", bench.fp32()[0]), ("INT8", bench.int8(name))):
        exact = open_session(path, optimization="exact").run(feeds)[0]
        with start_worker(runtime) as worker:
            opened = open_in(worker, load_model(path), runtime, bench.cache)
            nodes = Counter(node.provider for node in opened.placement or ())
            facts[label] = {"SQNR dB": sqnr(exact, worker.run(opened, feeds)[0]), "nodes": dict(nodes)}
    least = min(facts["FP32"]["SQNR dB"] - 30, facts["INT8"]["SQNR dB"])
    return Outcome("holds" if least >= 30 else "broken", facts)


@claim("engines", "TensorRT builds one engine for all batch sizes of an evaluation.", needs="tensorrt")
def engines(bench: Bench) -> Outcome:
    model, runtime = load_model(builtin().model), bench.runtime("tensorrt")
    with start_worker(runtime) as worker:
        opened = open_in(worker, model, runtime, bench.cache, batches=Batches(64))
        for batch in (1, 8, 64, 5):
            worker.run(opened, {model.core.signature.inputs[0].name: np.zeros((batch, 1, 8, 8), np.float32)})
    (_, options), *_ = runtime.session_providers(bench.cache, model, batches=Batches(64))
    found = [file.name for file in Path(options.get("trt_engine_cache_path", ".")).glob("*.engine")]
    return Outcome("measured" if bench.dry else "holds" if len(found) == 1 else "broken", {"engines": found})


def sqnr(exact: np.ndarray, found: np.ndarray) -> float:
    noise = float(((exact - found) ** 2).sum())
    return 999.0 if noise == 0 else float(10 * np.log10(float((exact**2).sum()) / noise))
