"""Models on runtimes: the same samples through all of them, each in a process of its own."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.cache import Cache
from onnxptq.comparison._judge import cause, dependent_groups, provider_flips
from onnxptq.comparison._placement import placement
from onnxptq.comparison.layers import LAYER_SAMPLES, LayerError, layer_errors, make_probes
from onnxptq.comparison.numerics import difference, output_step
from onnxptq.comparison.result import Comparison, ComparisonRow, Speed, Status
from onnxptq.errors import ModelError, OnnxptqError, UsageError
from onnxptq.evaluation import EvaluationSamples, Predictions, compare
from onnxptq.evaluation.model_under_test import Footprint, ModelInWorker
from onnxptq.evaluation.run import predict_each
from onnxptq.evaluation.sample_runner import arranged
from onnxptq.evaluation.sanity import reference_notes
from onnxptq.evaluation.worker_session import start_worker
from onnxptq.files import digest_file
from onnxptq.graphs import Model
from onnxptq.progress import Progress, counted, silent
from onnxptq.runtimes.isolated import TIMEOUT_SECONDS, WorkerError
from onnxptq.runtimes.latency import Burst, Latency, measure
from onnxptq.runtimes.selection import CPU, Runtime
from onnxptq.signature import Feeds

_UNFUSED = replace(CPU, name="cpu:none", optimization="none")
"""Computes a QDQ graph as it is written: the CPU of this environment under ORT_DISABLE_ALL."""

LOOK_BATCH = 16
"""Samples in the run whose memory and kernels are looked at."""


@dataclass(frozen=True)
class CompareSettings:
    """What is to be found out.

    Attributes:
        groups: groupings; () is the default one.
        speed: whether latency is measured.
        batch_sizes: samples in one call.
        threads: threads inside one operator; None is ONNX Runtime's own choice.
        runs: calls that are timed in each configuration.
        layers: whether the error of each layer is measured.
        timeout_s: how long one request to a worker may take, in seconds.
    """

    groups: tuple[str, ...] = ()
    speed: bool = True
    batch_sizes: tuple[int, ...] = (1,)
    threads: tuple[int | None, ...] = (None,)
    runs: int = 100
    layers: bool = False
    timeout_s: float = TIMEOUT_SECONDS

    def __post_init__(self) -> None:
        numbers = {"batch size": self.batch_sizes, "number of threads": self.threads, "number of runs": (self.runs,)}
        for what, values in numbers.items():
            for value in values:
                if value is not None and value < 1:
                    raise UsageError(f"a {what} must be 1 or more, got {value}.")
        if self.timeout_s <= 0:
            raise UsageError(f"the time limit must be more than 0 seconds, got {self.timeout_s:g}.")


def compare_runtimes(
    reference: Model,
    models: Sequence[Model],
    runtimes: Sequence[Runtime],
    samples: EvaluationSamples,
    cache: Cache,
    settings: CompareSettings,
    *,
    warnings: Sequence[str] = (),
    progress: Progress = silent,
) -> tuple[Comparison, list[Predictions]]:
    """Runs every model, the reference among them, on every runtime.

    Args:
        reference: the FP32 model.
        models: the models to judge.
        runtimes: the first is the reference runtime.
        samples: what they are judged on.
        cache: where predictions that were made before are found.
        settings: what is to be found out.
        warnings: to be passed on.
        progress: called as work goes on.

    Returns:
        What was found, and the predictions of the rows that are done.

    Raises:
        ModelError: the reference does not run on the reference runtime.
        UsageError: a runtime is named twice.
    """
    written = [runtime.name for runtime in runtimes]
    if twice := next((name for name in written if written.count(name) > 1), None):
        raise UsageError(f"the runtime {twice!r} is named twice. Name each once; a level makes another: cpu:none.")
    distinct = list({model.digest: model for model in (reference, *models)}.values())
    in_worker = partial(ModelInWorker, cache=cache, timeout_s=settings.timeout_s, least_share=0.0)
    subjects = [in_worker(model, runtime) for model in distinct for runtime in runtimes]
    plain = {m.digest: _unfused(m, subjects) or in_worker(m, _UNFUSED) for m in distinct if m.quantized}
    everything = [*subjects, *(one for one in plain.values() if one not in subjects)]
    with ExitStack() as stack:
        for one in everything:
            stack.callback(one.close)
        _, first = next(samples.batches(max(LOOK_BATCH, LAYER_SAMPLES, *settings.batch_sizes)))
        footprints = _load(everything, first, progress)
        runs = _predict(everything, samples, cache, progress)
        speeds = _speeds(subjects, first, settings, progress) if settings.speed else {}
        layers, notes = _layers(subjects, first, cache, progress) if settings.layers else ({}, [])
    names = _names(distinct)
    rows = tuple(
        replace(
            _row(names[one.model.digest], one, subjects, runs, plain.get(one.model.digest), settings.groups),
            **_of_one_run(one, footprints.get(one)),
            speed=speeds.get(one, ()),
            layers=layers.get(one),
        )
        for one in subjects
    )
    exact = runs[subjects[0]]
    sane = reference_notes(exact) if isinstance(exact, Predictions) else ()
    said = (*sane, *warnings, *notes)
    comparison = Comparison(names[reference.digest], tuple(runtimes), rows, dependent_groups(rows), said)
    return comparison, [run for one in subjects if isinstance(run := runs[one], Predictions)]


def _names(models: Sequence[Model]) -> dict[str, str]:
    """What each model is called, by digest: its file's name, or its path where two files have the same name."""
    files = [model.path.name for model in models]
    return {model.digest: str(model.path) if files.count(model.path.name) > 1 else model.path.name for model in models}


def _unfused(model: Model, subjects: Sequence[ModelInWorker]) -> ModelInWorker | None:
    """The model where it is compared on a runtime that computes a QDQ graph as it is written."""
    same = (one for one in subjects if one.model is model and one.runtime.identity() == _UNFUSED.identity())
    return next(same, None)


def _load(subjects: Sequence[ModelInWorker], first: Feeds, progress: Progress) -> dict[ModelInWorker, Footprint]:
    """What one run of each takes, where it loads and runs."""
    found = {}
    for number, one in enumerate(subjects):
        progress("loading", number, len(subjects))
        if one.attempt(one.open) is None:
            continue
        if (taken := one.attempt(partial(one.footprint, _feeds(one, first, LOOK_BATCH)))) is not None:
            found[one] = taken
    progress("loading", len(subjects), len(subjects))
    if (failure := subjects[0].failure) is not None:
        raise _reference_fails(subjects[0], failure)
    return found


def _reference_fails(subject: ModelInWorker, error: OnnxptqError) -> ModelError:
    return ModelError(
        f"the reference {subject.model.path} does not run on the reference runtime {subject.runtime.name!r}, the first "
        f"--ep: {str(error).rstrip('.')}. Everything is compared with it: name another runtime first."
    )


def _predict(
    subjects: Sequence[ModelInWorker], samples: EvaluationSamples, cache: Cache, progress: Progress
) -> dict[ModelInWorker, Predictions | OnnxptqError]:
    """Predictions, or what went wrong."""
    alive = [one for one in subjects if one.failure is None]
    results: dict[ModelInWorker, Predictions | OnnxptqError] = {one: one.failure for one in subjects if one.failure}
    count = counted(progress, "evaluating", len(samples) * len(alive))
    try:
        made = predict_each(alive, samples, cache, count)
    except WorkerError as error:
        raise _reference_fails(subjects[0], error) from error
    for one, result in zip(alive, made, strict=True):
        results[one] = result
        if isinstance(result, WorkerError):
            one.failure = result
    return results


def _feeds(subject: ModelInWorker, first: Feeds, batch: int) -> Feeds:
    """The first `batch` samples, again and again where there are too few; as many as the model has fixed, if it has."""
    signature = subject.signature
    size = signature.fixed_batch or (1 if signature.alone else batch)
    resized = {name: np.resize(array, (size, *array.shape[1:])) for name, array in first.items()}
    return arranged(resized, signature)


def _speeds(
    subjects: Sequence[ModelInWorker], first: Feeds, settings: CompareSettings, progress: Progress
) -> dict[ModelInWorker, tuple[Speed, ...]]:
    """All models of one batch size and number of threads are timed in turns."""
    found: dict[ModelInWorker, tuple[Speed, ...]] = {}
    configurations = [(batch, threads) for batch in settings.batch_sizes for threads in settings.threads]
    for step, (batch, threads) in enumerate(configurations):
        progress("timing", step, len(configurations))
        alive = [one for one in subjects if one.failure is None]
        bursts: list[Burst] = []
        sizes: list[int] = []
        for one in alive:
            feeds = _feeds(one, first, batch)
            sizes.append(len(next(iter(feeds.values()))))
            bursts.append(one.burst(feeds, threads))
        clocks = [one.clock if one.runtime.on_gpu else None for one in alive]
        for one, size, latency in zip(alive, sizes, measure(bursts, settings.runs, clocks), strict=True):
            if isinstance(latency, Latency):
                found[one] = (*found.get(one, ()), Speed(size, threads, latency))
            else:
                one.failure = latency
    progress("timing", len(configurations), len(configurations))
    return found


def _layers(
    subjects: Sequence[ModelInWorker], first: Feeds, cache: Cache, progress: Progress
) -> tuple[dict[ModelInWorker, tuple[LayerError, ...]], list[str]]:
    """For quantized models that run; and what could not be had."""
    wanted = [one for one in subjects if one.model.quantized and one.failure is None]
    found: dict[ModelInWorker, tuple[LayerError, ...]] = {}
    notes = []
    for step, one in enumerate(wanted):
        progress("layers", step, len(wanted))
        feeds = _feeds(one, first, LAYER_SAMPLES)
        with tempfile.TemporaryDirectory(prefix="onnxptq.layers.") as folder:
            try:
                probes = make_probes(subjects[0].model.core.path, one.model.core.path, Path(folder))
                exact = _all_outputs(probes.reference, subjects[0], feeds, cache)
                found[one] = layer_errors(probes, exact, _all_outputs(probes.model, one, feeds, cache))
            except (ModelError, WorkerError) as error:
                notes.append(f"no errors of layers for {one.model.path.name} on {one.runtime.name}: {error}")
    progress("layers", len(wanted), len(wanted))
    return found, notes


def _all_outputs(copy: Path, subject: ModelInWorker, feeds: Feeds, cache: Cache) -> dict[str, npt.NDArray[Any]]:
    """All outputs of a copy of the model by name. Raises WorkerError."""
    runtime = subject.runtime
    with start_worker(runtime, timeout_s=subject.timeout_s) as worker:
        providers = runtime.session_providers(cache, replace(subject.model, digest=digest_file(copy)))
        session = worker.open(copy, providers, optimization=runtime.optimization)
        outputs = worker.run(session, feeds)
    return {spec.name: array for spec, array in zip(session.signature.outputs, outputs, strict=True)}


def _row(
    name: str,
    subject: ModelInWorker,
    subjects: Sequence[ModelInWorker],
    runs: Mapping[ModelInWorker, Predictions | OnnxptqError],
    unfused: ModelInWorker | None,
    groups: Sequence[str],
) -> ComparisonRow:
    base = next(other for other in subjects if other.model is subject.model)
    reference, run, same, plain = (
        None if one is None else _done(runs[one]) for one in (subjects[0], subject, base, unfused)
    )
    assert reference is not None  # else nothing was compared
    status, reason, log = _status(subject, runs[subject])
    row = ComparisonRow(
        model=name,
        runtime=subject.runtime.name,
        quantized=subject.model.quantized,
        status=status,
        reason=reason,
        log=log,
        file_bytes=subject.model.size,
        creation_seconds=subject.session.seconds if subject.session else None,
    )
    if run is None:
        return row
    step = output_step(subject.model.core.path)
    other = same is not None and subject is not base
    return replace(
        row,
        report=compare(reference, run, groups),
        against_reference=None if subject is subjects[0] else difference(reference, run),
        between=difference(same, run, step) if other and same is not None else None,
        flips=provider_flips(same, run, groups) if other and same is not None else None,
        cause=None if plain is None else cause(reference, plain, run, step),
    )


def _of_one_run(subject: ModelInWorker, footprint: Footprint | None) -> dict[str, Any]:
    """The columns of a row that come from looking at one run."""
    nodes = subject.session.placement if subject.session else None
    where = placement(subject.model.core.path, nodes, footprint.kernels if footprint else None)
    if footprint is None:
        return {"placement": where}
    return {"placement": where, "baseline_bytes": footprint.baseline_bytes, "peak_bytes": footprint.peak_bytes}


def _done(result: Predictions | OnnxptqError) -> Predictions | None:
    return result if isinstance(result, Predictions) else None


def _status(subject: ModelInWorker, result: Predictions | OnnxptqError) -> tuple[Status, str, tuple[str, ...]]:
    if subject.failure is not None:
        return subject.failure.failure, subject.failure.reason, subject.failure.log
    if isinstance(result, OnnxptqError):
        return "failed", str(result), ()
    return "done", "", ()
