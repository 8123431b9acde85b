"""What the processes of `sweep.py` do: each function here is one measurement and gives its figures.

Times are CPU seconds of the process. Imports, opening the data and compiling and loading the counter (0.4 s, most of it
Numba's imports) count on no side.
"""

from __future__ import annotations

import cProfile
import os
import pickle
import pstats
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]

STOCK_METHODS = {"minmax": "MinMax", "entropy": "Entropy", "percentile": "Percentile"}


def quantize_ours(plan: Any, folder: Path) -> Figures:
    """All models of the grid as a worker of a sweep makes them: folding, drawing, passes, ranges, files."""
    from onnxptq.runtimes.session import limit_threads
    from onnxptq.sweeps.job import _Maker

    limit_threads(1)
    _counter_loaded()
    _quantizer_imported()
    folder.mkdir()
    with tempfile.TemporaryDirectory() as cache:
        context = _context(plan, cache)
        start = time.process_time()
        made = _Maker(context, folder).all(plan.grid)
        seconds = time.process_time() - start
    _check(made)
    distinct = {one.model.digest: str(one.model.path) for one in made}
    return {"seconds": seconds, "models": len(made), "files": list(distinct.values())}


def quantize_stock(plan: Any) -> Figures:
    """The loop over `quantize_static`, one graph preparation for all; its samples were read and shifted before."""
    from onnxruntime.quantization import CalibrationMethod, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from onnxptq.quantization.static import quantizer_settings

    _quantizer_imported()
    with tempfile.TemporaryDirectory() as folder:
        context = _context(plan, folder)
        recipes = {key: context.recipe(key) for key in plan.grid}
        drawn = {key.calibration: [feeds for _, feeds in context.draw(recipes[key])] for key in plan.grid}
        settings = {key: quantizer_settings(recipe, context.inputs.model.path) for key, recipe in recipes.items()}
        folded = str(Path(folder) / "folded.onnx")
        start = time.process_time()
        quant_pre_process(str(context.inputs.model.path), folded)
        for number, key in enumerate(plan.grid):
            quantize_static(
                folded,
                str(Path(folder) / f"{number}.onnx"),
                _Reader(drawn[key.calibration]),
                calibrate_method=CalibrationMethod[STOCK_METHODS[key.method]],
                **settings[key].to_kwargs(),
            )
        return {"seconds": time.process_time() - start, "models": len(plan.grid)}


def evaluate_ours(plan: Any, files: Sequence[str]) -> Figures:
    """FP32 and the models judged as a worker of a sweep does: decoding, shifts, sessions, predictions, reports."""
    from onnxptq.evaluation.run import predict
    from onnxptq.graphs import load_model
    from onnxptq.runtimes.installation import import_onnxruntime
    from onnxptq.runtimes.session import limit_threads
    from onnxptq.sweeps.job import _judged, _Made
    from onnxptq.sweeps.run import BATCH_CELLS

    limit_threads(1)
    import_onnxruntime()
    with tempfile.TemporaryDirectory() as cache:
        context = _context(plan, cache)
        made = [_Made(load_model(Path(file)), {}, "", {}, "cpu") for file in files]
        start = time.process_time()
        predict([context.reference], context.samples, context.cache)
        for first in range(0, len(made), BATCH_CELLS):
            judged = _judged(context, made[first : first + BATCH_CELLS])
            assert all(one.report for one in judged.values()), judged
        return {"seconds": time.process_time() - start, "predictions": len(context.samples) * (1 + len(made))}


QUANTIZATION_STEPS = {
    "graph preparation": ("fold.py", "fold"),
    "reading and shifting samples": ("samples.py", "__iter__"),
    "inference": ("_inference.py", "run_sample"),
    "counting": ("collect.py", "add"),
    "keeping statistics": ("statistics.py", "save"),
    "ONNX Runtime's quantizer, vectorized": ("vectorized.py", "quantized_model"),
    "ranges of 24 models": ("static.py", "ranges_from"),
    "filling 24 graphs": ("writer.py", "_rewrite"),
    "looking at 24 files": ("load.py", "load_model"),
}
"""Parts of `quantize_ours`, none inside another, and the function of each: (file, name)."""

EVALUATION_STEPS = {
    "loading models": ("session.py", "open_session"),
    "decoding and corrupting samples": ("samples.py", "batches"),
    "inference": ("session.py", "run"),
    "reports": ("report.py", "compare"),
    "keeping predictions": ("predictions.py", "save_predictions"),
}
"""The same of `evaluate_ours`."""


def quantize_profile(plan: Any, folder: Path) -> Figures:
    """`quantize_ours` under a profiler: seconds by part. The profiler makes what is Python dearer than it is."""
    with cProfile.Profile() as profiler:
        figures = quantize_ours(plan, folder)
    return {**figures, "steps": _by_step(profiler, QUANTIZATION_STEPS, figures["seconds"])}


def evaluate_profile(plan: Any, files: Sequence[str]) -> Figures:
    """`evaluate_ours` under a profiler: seconds by part."""
    with cProfile.Profile() as profiler:
        figures = evaluate_ours(plan, files)
    return {**figures, "steps": _by_step(profiler, EVALUATION_STEPS, figures["seconds"])}


def _by_step(profiler: cProfile.Profile, steps: Mapping[str, tuple[str, str]], seconds: float) -> dict[str, float]:
    cumulative = {(Path(file).name, name): entry[3] for (file, _, name), entry in pstats.Stats(profiler).stats.items()}
    found = {step: cumulative[function] for step, function in steps.items()}
    return {**found, "the rest": seconds - sum(found.values())}


def evaluate_bare(plan: Any, files: Sequence[str]) -> Figures:
    """`session.run` alone for the same predictions, model after model, on batches that lie in memory."""
    import onnxruntime

    from onnxptq.evaluation.sample_runner import BATCH

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    with tempfile.TemporaryDirectory() as cache:
        context = _context(plan, cache)
        feeds = [one for _, one in context.samples.batches(context.inputs.model.core.signature.fixed_batch or BATCH)]
        loading = running = 0.0
        for file in (str(context.inputs.model.path), *files):
            start = time.process_time()
            session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
            loaded = time.process_time()
            for one in feeds:
                session.run(None, one)
            loading, running = loading + loaded - start, running + time.process_time() - loaded
    return {"seconds": running, "loading": loading}


def schedule(cells: int) -> Figures:
    """Wall seconds a cell of a sweep whose jobs are done at once, and of one that finds everything in the store.

    The store is a file with its journal flushed to the disk; jobs and results are pickled, as for a worker.
    """
    from onnxptq.cache import Cache
    from onnxptq.sweeps.local import answer
    from onnxptq.sweeps.run import open_grid, sweep
    from onnxptq.sweeps.store import Store

    plan = _small_plan(cells)
    with tempfile.TemporaryDirectory(dir=".") as folder, Store(Cache(Path(folder))) as store:
        engine = Inline()
        once = replace(plan, seeds=(0,), calibrations=("clean",), methods=("minmax",))
        sweep(open_grid(once, store, engine), store, engine)
        cell = store.study("last").cells[0]

        def at_once(job: Any) -> Any:
            result, error = answer(replace(job, cells=()))
            return replace(result, cells=tuple(replace(cell, key=key) for key in job.cells)), error

        engine = Inline(at_once)
        figures: Figures = {"cells": cells, "bytes": len(pickle.dumps(cell))}
        for name in ("new", "known"):
            start = time.perf_counter()
            grid = open_grid(plan, store, engine)
            opened = time.perf_counter()
            sweep(grid, store, engine)
            figures[name] = (time.perf_counter() - opened) / cells
            figures["grid"] = (opened - start) / cells
        start = time.perf_counter()
        store.study("last")
        figures["read"] = (time.perf_counter() - start) / cells
        return figures


def sweep_memory(cells: int) -> Figures:
    """A real sweep of the built-in model, scheduler and worker in one process."""
    from onnxptq.cache import Cache
    from onnxptq.sweeps.run import open_grid, sweep
    from onnxptq.sweeps.store import Store

    plan = _small_plan(cells)
    with tempfile.TemporaryDirectory() as folder, Store(Cache(Path(folder))) as store:
        engine = Inline()
        sweep(open_grid(plan, store, engine), store, engine)
    return {"cells": cells}


@dataclass
class Inline:
    """An engine that does jobs in this process, but hands them over as to another one.

    Attributes:
        do: what is done with a job; None is the work of a sweep.
    """

    do: Any = None
    workers: int = 2
    threads: int = 1
    _waiting: list[Any] = field(default_factory=list)

    def identity(self, runtime: str) -> Mapping[str, str]:
        from onnxptq.sweeps.local import identity_here

        return identity_here(runtime)

    def submit(self, job: Any) -> None:
        self._waiting.append(pickle.dumps(job))

    def wait(self) -> Any:
        from onnxptq.sweeps.engine import JobOutcome
        from onnxptq.sweeps.local import answer

        job = pickle.loads(self._waiting.pop(0))
        return JobOutcome(job, *pickle.loads(pickle.dumps((self.do or answer)(job))))

    def __enter__(self) -> Inline:
        return self

    def __exit__(self, *error: object) -> None: ...


class _Reader:
    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Mapping[str, np.ndarray] | None:
        return next(self._feeds, None)


def _context(plan: Any, cache: str) -> Any:
    from onnxptq.cache import Cache
    from onnxptq.sweeps.model_context import open_context

    return open_context(plan, plan.models[0], Cache(Path(cache)))


def _small_plan(cells: int) -> Any:
    from onnxptq.sweeps.plan import Plan

    return Plan(
        calibrations=("clean", "dark@3", "contrast@3", "noisy"),
        methods=("minmax", "percentile", "entropy:bins=2048"),
        seeds=tuple(range(cells // 12)),
        corruptions=("fog@3", "motion_blur@3"),
        calib_size=8,
        eval_size=100,
    )


def _counter_loaded() -> None:
    from onnxptq.calibrators.histogram import Accumulator, compiled

    compiled()
    accumulator = Accumulator()
    # The second call finds its table large enough: by then both kernels were loaded.
    for _ in range(2):
        accumulator.add(np.ones(1, np.float32))


def _quantizer_imported() -> None:
    """Where PyTorch is installed, ONNX Runtime's graph preparation imports it: two seconds."""
    import onnxruntime.tools.symbolic_shape_infer  # noqa: F401


def _check(made: Sequence[Any]) -> None:
    wrong = next((one for one in made if isinstance(one, str)), None)
    if wrong is not None:
        raise SystemExit(f"a cell could not be made: {wrong}")


def peak_mb() -> float:
    """Peak resident memory of this process; `ru_maxrss` would start at that of the process that forked it."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if os.uname().sysname != "Darwin" else 2**20)


WORK = {
    one.__name__: one
    for one in (
        quantize_ours,
        quantize_stock,
        quantize_profile,
        evaluate_ours,
        evaluate_bare,
        evaluate_profile,
        schedule,
        sweep_memory,
    )
}
