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

from onnxptq.cache import Room
from onnxptq.comparison._judge import cause, dependent_groups, provider_flips
from onnxptq.comparison._placement import placement
from onnxptq.comparison.layers import LAYER_SAMPLES, LayerError, layer_errors, make_probes
from onnxptq.comparison.numerics import difference, output_step
from onnxptq.comparison.result import Comparison, Row, Speed, Status
from onnxptq.errors import ModelError, OnnxptqError, UsageError
from onnxptq.evaluation import EvaluationSamples, Predictions, compare
from onnxptq.evaluation.lane import Lane, LaneSubject, start_worker
from onnxptq.evaluation.run import predict_each
from onnxptq.evaluation.sample_runner import arranged
from onnxptq.files import digest_file
from onnxptq.graphs import Model
from onnxptq.progress import Progress, counted, silent
from onnxptq.runtimes.isolated import TIMEOUT_SECONDS, WorkerError
from onnxptq.runtimes.latency import Burst, Latency, measure
from onnxptq.runtimes.selection import CPU, Runtime
from onnxptq.signature import Feeds

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
    room: Room,
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
        room: where predictions that were made before are found.
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
    lanes = [Lane(model, runtime, settings.timeout_s) for model in distinct for runtime in runtimes]
    plain = {model.digest: _unfused(model, lanes, settings) for model in distinct if model.quantized}
    everything = [*lanes, *(lane for lane in plain.values() if lane not in lanes)]
    with ExitStack() as stack:
        for lane in everything:
            stack.callback(lane.close)
        _, first = next(samples.batches(max(LOOK_BATCH, LAYER_SAMPLES, *settings.batch_sizes)))
        _load(everything, first, room, progress)
        runs = _predict(everything, samples, room, progress)
        speeds = _speeds(lanes, first, settings, room, progress) if settings.speed else {}
        layers, notes = _layers(lanes, first, room, progress) if settings.layers else ({}, [])
    names = _names(distinct)
    rows = tuple(
        replace(
            _row(names[lane.model.digest], lane, lanes, runs, plain.get(lane.model.digest), settings.groups),
            speed=speeds.get(number, ()),
            layers=layers.get(number),
        )
        for number, lane in enumerate(lanes)
    )
    comparison = Comparison(names[reference.digest], tuple(runtimes), rows, dependent_groups(rows), (*warnings, *notes))
    return comparison, [run for lane in lanes if isinstance(run := runs[id(lane)], Predictions)]


def _names(models: Sequence[Model]) -> dict[str, str]:
    """What each model is called, by digest: its file's name, or its path where two files have the same name."""
    files = [model.path.name for model in models]
    return {model.digest: str(model.path) if files.count(model.path.name) > 1 else model.path.name for model in models}


def _unfused(model: Model, lanes: Sequence[Lane], settings: CompareSettings) -> Lane:
    """The lane that computes a QDQ graph as it is written: the CPU of this environment under ORT_DISABLE_ALL."""
    runtime = replace(CPU, name="cpu:none", optimization="none")
    same = (lane for lane in lanes if lane.model is model and lane.runtime.identity() == runtime.identity())
    return next(same, None) or Lane(model, runtime, settings.timeout_s)


def _load(lanes: Sequence[Lane], first: Feeds, room: Room, progress: Progress) -> None:
    for number, lane in enumerate(lanes):
        progress("loading", number, len(lanes))
        lane.attempt(partial(lane.load, room))
        if lane.session is not None:
            lane.attempt(partial(lane.look, _feeds(lane, first, LOOK_BATCH), room))
    progress("loading", len(lanes), len(lanes))
    if (failure := lanes[0].failure) is not None:
        raise _reference_fails(lanes[0], failure)


def _reference_fails(lane: Lane, error: OnnxptqError) -> ModelError:
    return ModelError(
        f"the reference {lane.model.path} does not run on the reference runtime {lane.runtime.name!r}, the first --ep: "
        f"{str(error).rstrip('.')}. Everything is compared with it: name another runtime first."
    )


def _predict(
    lanes: Sequence[Lane], samples: EvaluationSamples, room: Room, progress: Progress
) -> dict[int, Predictions | OnnxptqError]:
    """Predictions, or what went wrong, by the lane's id."""
    alive = [lane for lane in lanes if lane.failure is None]
    results: dict[int, Predictions | OnnxptqError] = {id(lane): lane.failure for lane in lanes if lane.failure}
    count = counted(progress, "evaluating", len(samples) * len(alive))
    try:
        made = predict_each([LaneSubject(lane) for lane in alive], samples, room, count)
    except WorkerError as error:
        raise _reference_fails(lanes[0], error) from error
    for lane, result in zip(alive, made, strict=True):
        results[id(lane)] = result
        if isinstance(result, WorkerError):
            lane.failure = result
    return results


def _feeds(lane: Lane, first: Feeds, batch: int) -> Feeds:
    """The first `batch` samples, again and again where there are too few; as many as the model has fixed, if it has."""
    assert lane.session is not None
    signature = lane.session.signature
    size = signature.fixed_batch or (1 if signature.alone else batch)
    resized = {name: np.resize(array, (size, *array.shape[1:])) for name, array in first.items()}
    return arranged(resized, signature)


def _speeds(
    lanes: Sequence[Lane], first: Feeds, settings: CompareSettings, room: Room, progress: Progress
) -> dict[int, tuple[Speed, ...]]:
    """By the number of the lane. All lanes of one batch size and number of threads are timed in turns."""
    found: dict[int, tuple[Speed, ...]] = {}
    configurations = [(batch, threads) for batch in settings.batch_sizes for threads in settings.threads]
    for step, (batch, threads) in enumerate(configurations):
        progress("timing", step, len(configurations))
        alive = [number for number, lane in enumerate(lanes) if lane.failure is None]
        bursts: list[Burst] = []
        sizes: list[int] = []
        for number in alive:
            feeds = _feeds(lanes[number], first, batch)
            sizes.append(len(next(iter(feeds.values()))))
            bursts.append(lanes[number].burst(feeds, threads, room))
        clocks = [lanes[number].clock if lanes[number].runtime.on_gpu else None for number in alive]
        for number, size, latency in zip(alive, sizes, measure(bursts, settings.runs, clocks), strict=True):
            if isinstance(latency, Latency):
                found[number] = (*found.get(number, ()), Speed(size, threads, latency))
            else:
                lanes[number].failure = latency
    progress("timing", len(configurations), len(configurations))
    return found


def _layers(
    lanes: Sequence[Lane], first: Feeds, room: Room, progress: Progress
) -> tuple[dict[int, tuple[LayerError, ...]], list[str]]:
    """By the number of the lane, for quantized models that run; and what could not be had."""
    wanted = [n for n, lane in enumerate(lanes) if lane.model.quantized and lane.failure is None]
    found: dict[int, tuple[LayerError, ...]] = {}
    notes = []
    for step, number in enumerate(wanted):
        progress("layers", step, len(wanted))
        lane = lanes[number]
        feeds = _feeds(lane, first, LAYER_SAMPLES)
        with tempfile.TemporaryDirectory(prefix="onnxptq.layers.") as folder:
            try:
                probes = make_probes(lanes[0].model.core.path, lane.model.core.path, Path(folder))
                exact = _all_outputs(probes.reference, lanes[0], feeds, room)
                found[number] = layer_errors(probes, exact, _all_outputs(probes.model, lane, feeds, room))
            except (ModelError, WorkerError) as error:
                notes.append(f"no errors of layers for {lane.model.path.name} on {lane.runtime.name}: {error}")
    progress("layers", len(wanted), len(wanted))
    return found, notes


def _all_outputs(copy: Path, lane: Lane, feeds: Feeds, room: Room) -> dict[str, npt.NDArray[Any]]:
    """All outputs of a copy of the lane's model by name. Raises WorkerError."""
    with start_worker(lane.runtime, timeout_s=lane.timeout_s) as worker:
        providers = lane.runtime.session_providers(room, replace(lane.model, digest=digest_file(copy)))
        session = worker.open(copy, providers, optimization=lane.runtime.optimization)
        outputs = worker.run(session, feeds)
    return {spec.name: array for spec, array in zip(session.signature.outputs, outputs, strict=True)}


def _row(
    name: str,
    lane: Lane,
    lanes: Sequence[Lane],
    runs: Mapping[int, Predictions | OnnxptqError],
    unfused: Lane | None,
    groups: Sequence[str],
) -> Row:
    base = next(other for other in lanes if other.model is lane.model)
    reference, run, same, plain = (
        None if one is None else _done(runs[id(one)]) for one in (lanes[0], lane, base, unfused)
    )
    assert reference is not None  # else nothing was compared
    status, reason, log = _status(lane, runs[id(lane)])
    row = Row(
        model=name,
        runtime=lane.runtime.name,
        quantized=lane.model.quantized,
        status=status,
        reason=reason,
        log=log,
        file_bytes=lane.model.size,
        placement=placement(lane.model.core.path, lane.session.placement if lane.session else None, lane.kernels),
        creation_seconds=lane.session.seconds if lane.session else None,
        baseline_bytes=lane.baseline_bytes,
        peak_bytes=lane.peak_bytes,
    )
    if run is None:
        return row
    step = output_step(lane.model.core.path)
    other = same is not None and lane is not base
    return replace(
        row,
        report=compare(reference, run, groups),
        against_reference=None if lane is lanes[0] else difference(reference, run),
        between=difference(same, run, step) if other and same is not None else None,
        flips=provider_flips(same, run, groups) if other and same is not None else None,
        cause=None if plain is None else cause(reference, plain, run, step),
    )


def _done(result: Predictions | OnnxptqError) -> Predictions | None:
    return result if isinstance(result, Predictions) else None


def _status(lane: Lane, result: Predictions | OnnxptqError) -> tuple[Status, str, tuple[str, ...]]:
    if lane.failure is not None:
        return lane.failure.failure, lane.failure.reason, lane.failure.log
    if isinstance(result, OnnxptqError):
        return "failed", str(result), ()
    return "done", "", ()
