"""Running models over evaluation samples: sessions in, predictions out, each made once and then found by its key."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from onnxptq.cache import Room, content_key
from onnxptq.data.versions import data_versions
from onnxptq.errors import DataError, ModelError, OnnxptqError
from onnxptq.evaluation.predictions import SCHEMA_VERSION, Predictions, load_predictions, save_predictions
from onnxptq.evaluation.samples import EvaluationSamples
from onnxptq.foreign_text import one_line
from onnxptq.graphs import Model
from onnxptq.runtimes import open_session
from onnxptq.runtimes.isolated import WorkerError
from onnxptq.runtimes.selection import CPU, Runtime
from onnxptq.tasks import Feeds, Signature, Task

BATCH = 64
"""Samples in one call of a model with a dynamic batch: INT8 kernels are near their best, memory stays small."""

OUTPUTS_KEPT = 1024
"""Values of output a sample up to which predictions keep the outputs themselves (4 KB a sample)."""

_PORTION_BYTES = 8 * 2**20
_PORTION_BATCHES = 8
"""Batches, and bytes of them, that one model runs on before the next one does, where outputs are narrow. What is done
between runs finds nothing in the processor's caches, so it is done seldom; but a user wants to see progress."""

Progress = Callable[[int], None]

T = TypeVar("T")


class Runner(Protocol):
    """A model that was loaded, in this process or in another one."""

    @property
    def signature(self) -> Signature:
        """Its inputs and outputs."""
        ...

    def run(self, feeds: Feeds) -> list[npt.NDArray[Any]]:
        """All outputs for `feeds`, in the order of the signature."""
        ...


class Candidate(Protocol):
    """A model and what it runs on: whatever `predict` can judge."""

    @property
    def model(self) -> Model:
        """The file."""
        ...

    @property
    def runtime(self) -> Runtime:
        """What it runs on."""
        ...

    def open(self) -> Runner:
        """The model, ready to run."""
        ...


@dataclass(frozen=True)
class Subject:
    """A model that is judged in this process, and what it runs on: a runtime of this environment.

    `onnxptq.evaluation.lane.candidates` takes any runtime.
    """

    model: Model
    runtime: Runtime = CPU
    threads: int | None = None

    def open(self) -> Runner:
        """A session of the model on its runtime."""
        return open_session(
            self.model.core.path,
            self.runtime.provider.name,
            threads=self.threads,
            optimization=self.runtime.optimization,
            options=self.runtime.options,
        )


def predict(
    subjects: Sequence[Candidate], samples: EvaluationSamples, room: Room, progress: Progress = lambda rows: None
) -> list[Predictions]:
    """Predictions of each subject on the same samples; the first subject is the reference of all.

    Args:
        subjects: models and what they run on; the first is the reference.
        samples: what they are judged on.
        room: where predictions that were made before are found.
        progress: called with the number of rows done since the last call, summed over subjects.

    Raises:
        DataError: a model gives NaN or infinity on a sample.
        RuntimeUnavailableError: a provider does not load.
    """
    results = _predict(subjects, samples, room, progress, tolerant=False)
    return [run for run in results if isinstance(run, Predictions)]


def predict_each(
    subjects: Sequence[Candidate], samples: EvaluationSamples, room: Room, progress: Progress = lambda rows: None
) -> list[Predictions | OnnxptqError]:
    """As `predict`, but a subject that fails leaves its error in its place, and the others finish.

    Raises whatever the first subject, the reference of all, fails with.
    """
    return _predict(subjects, samples, room, progress, tolerant=True)


def _predict(
    subjects: Sequence[Candidate], samples: EvaluationSamples, room: Room, progress: Progress, *, tolerant: bool
) -> list[Predictions | OnnxptqError]:
    identities = [_identity(subject, samples) for subject in subjects]
    places = [_place(identity, room) for identity in identities]
    for identity, subject in zip(identities, subjects, strict=True):
        identity["runtime"] |= _name_or_reason(subject.runtime)
    found: list[Predictions | OnnxptqError | None] = [_found(place) for place in places]
    missing = [number for number, run in enumerate(found) if run is None]
    progress(len(samples) * (len(subjects) - len(missing)))
    if missing:
        made = _run([subjects[n] for n in missing], samples, progress, tolerant=tolerant)
        # Outputs that are too large to keep can be compared only while the models run side by side.
        keepable = all(run.outputs is not None for run in made if isinstance(run, Predictions))
        for number, run in zip(missing, made, strict=True):
            found[number] = run
            if keepable and isinstance(run, Predictions):
                save_predictions(places[number], [replace(run, identity=identities[number])])
    # A file found by its content may have been written for a model or rows of other names.
    named = [
        replace(run, identity=identity, sample_id=samples.sample_id) if isinstance(run, Predictions) else run
        for run, identity in zip(found, identities, strict=True)
        if run is not None
    ]
    reference = named[0]
    if isinstance(reference, OnnxptqError):
        raise reference
    return [against(reference, run) if isinstance(run, Predictions) else run for run in named]


def predictions_place(subject: Candidate, samples: EvaluationSamples, room: Room) -> Path:
    """Where the predictions of a subject lie, once `predict` has made and kept them."""
    return _place(_identity(subject, samples), room)


def _place(identity: dict[str, Any], room: Room) -> Path:
    return room.place("predictions", _key(identity), ".parquet")


def _identity(subject: Candidate, samples: EvaluationSamples) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": one_line(subject.model.path.name), "digest": subject.model.digest},
        "runtime": subject.runtime.identity(),
        "data": {"digest": samples.dataset.digest, "samples": len(samples.dataset)},
        "task": samples.task.name,
        "preprocessing": samples.task.specification,
        "classes": list(samples.task.classes or samples.dataset.label_names),
        "corruptions": list(samples.corruptions),
        "seed": samples.seed,
    }


def _name_or_reason(runtime: Runtime) -> dict[str, str]:
    """What a reader should know beside what decides the numbers: the name that was asked for, or why it is not that."""
    if runtime.fallback_reason is not None:
        return {"fallback_reason": runtime.fallback_reason}
    return {} if runtime.name in (runtime.provider.name, runtime.provider.ort_name) else {"name": runtime.name}


def _key(identity: dict[str, Any]) -> str:
    # What is found again must not differ because the file has another name.
    return content_key("predictions", **{**identity, "model": identity["model"]["digest"], "versions": data_versions()})


def _found(place: Path) -> Predictions | None:
    try:
        return load_predictions(place)[0] if place.is_file() else None
    except DataError:
        return None  # Damaged on the disk: it is made anew and replaced.


@dataclass
class _Gathered:
    """Rows of one subject while they come in."""

    prediction: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    outputs: npt.NDArray[np.float32] | None
    signal: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]


def _run(
    subjects: Sequence[Candidate], samples: EvaluationSamples, progress: Progress, *, tolerant: bool
) -> list[Predictions | OnnxptqError]:
    results: dict[int, _Gathered | OnnxptqError] = {}
    sessions: dict[int, Runner] = {}

    def attempt(number: int, step: Callable[[], T]) -> T | None:
        try:
            return step()
        except OnnxptqError as error:
            if not tolerant:
                raise _named(error, subjects[number]) from error
            results[number] = error
            sessions.pop(number, None)
            return None

    for number, subject in enumerate(subjects):
        if (session := attempt(number, subject.open)) is not None:
            sessions[number] = session
    if not sessions:
        return [error for error in results.values() if isinstance(error, OnnxptqError)]
    for rows, batches in _portions(samples, list(sessions.values())):
        reference: npt.NDArray[np.float32] | None = None
        for number, session in list(sessions.items()):
            done = attempt(number, partial(_outputs, session, batches, rows, samples, subjects[number]))
            if done is None:
                continue
            outputs, flat = done
            gathered = results.setdefault(number, _empty(len(samples), flat.shape[1]))
            assert isinstance(gathered, _Gathered)
            reference = flat if reference is None else reference
            _gather(gathered, rows, flat, reference, samples.task, outputs)
            progress(len(rows))
        progress(len(rows) * (len(subjects) - len(sessions)))
    ordered = [results[number] for number in range(len(subjects))]
    return [_predictions(one, samples) if isinstance(one, _Gathered) else one for one in ordered]


def _named(error: OnnxptqError, subject: Candidate) -> OnnxptqError:
    """A worker's error does not say which model it was; all others do."""
    if not isinstance(error, WorkerError):
        return error
    reason = f"{subject.model.path.name} cannot be judged on {subject.runtime.name}: {error.reason}."
    return ModelError(f"{reason} {error.remedy}".rstrip())


def _portions(
    samples: EvaluationSamples, sessions: Sequence[Runner]
) -> Iterator[tuple[npt.NDArray[np.int64], list[Feeds]]]:
    """Rows, and the batches that feed them: several where all outputs have few values a sample, else one."""
    most = _PORTION_BYTES if all(_narrow(session.signature) for session in sessions) else 0
    rows: list[npt.NDArray[np.int64]] = []
    batches: list[Feeds] = []
    size = 0
    for some, feeds in samples.batches(batch_size(sessions)):
        rows.append(some)
        batches.append(feeds)
        size += sum(array.nbytes for array in feeds.values())
        if size >= most or len(batches) == _PORTION_BATCHES:
            yield np.concatenate(rows), batches
            rows, batches, size = [], [], 0
    if batches:
        yield np.concatenate(rows), batches


def _narrow(signature: Signature) -> bool:
    """Whether it says how many values the outputs have for a sample, and those are few enough to be kept."""
    shapes = [spec.shape for spec in signature.outputs]
    if any(not shape or None in shape[1:] for shape in shapes):
        return False
    return sum(math.prod(size or 0 for size in shape[1:]) for shape in shapes) <= OUTPUTS_KEPT


def _outputs(
    session: Runner, batches: list[Feeds], rows: npt.NDArray[np.int64], samples: EvaluationSamples, subject: Candidate
) -> tuple[list[npt.NDArray[Any]], npt.NDArray[np.float32]]:
    """All outputs as they are, and those of each sample in one row: float32, (N, K). All of it is finite."""
    parts = [run_padded(session, feeds) for feeds in batches]
    outputs = parts[0] if len(parts) == 1 else [np.concatenate(of_one) for of_one in zip(*parts, strict=True)]
    rowwise = [o.reshape(len(o), -1).astype(np.float32, copy=False) for o in outputs]
    flat = rowwise[0] if len(rowwise) == 1 else np.concatenate(rowwise, axis=1)
    _check_finite(flat, rows, samples, subject)
    return outputs, flat


def batch_size(sessions: Sequence[Runner]) -> int:
    """The batch that all sessions accept: BATCH, or what a model has fixed.

    Raises:
        DataError: two models have fixed different batches.
    """
    fixed = {batch for session in sessions if (batch := session.signature.fixed_batch) is not None}
    if len(fixed) > 1:
        raise DataError(f"the models have fixed different batch sizes ({sorted(fixed)}); evaluate them one by one.")
    return next(iter(fixed)) if fixed else BATCH


def run_padded(session: Runner, feeds: Feeds) -> list[npt.NDArray[Any]]:
    """The outputs for a batch that may be shorter than the batch that the model has fixed."""
    count = len(next(iter(feeds.values())))
    fixed = session.signature.fixed_batch
    if fixed is not None and count < fixed:
        feeds = {name: np.concatenate([a, np.repeat(a[-1:], fixed - count, axis=0)]) for name, a in feeds.items()}
    return [output[:count] for output in session.run(feeds)]


def _check_finite(
    flat: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], samples: EvaluationSamples, subject: Candidate
) -> None:
    finite = np.isfinite(flat)
    if not finite.all():
        sample = samples.place(int(rows[np.argmin(finite.all(axis=1))]))
        raise DataError(
            f"{subject.model.path} gives NaN or infinity for the sample {sample!r}; it cannot be judged on it. Repair "
            "the sample or leave it out."
        )


def _empty(rows: int, width: int) -> _Gathered:
    return _Gathered(
        prediction=np.empty(rows, np.int64),
        score=np.empty(rows, np.float32),
        margin=np.empty(rows, np.float32),
        outputs=np.empty((rows, width), np.float32) if width <= OUTPUTS_KEPT else None,
        signal=np.empty(rows, np.float64),
        error=np.empty(rows, np.float64),
    )


def _gather(
    one: _Gathered,
    rows: npt.NDArray[np.int64],
    flat: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    task: Task,
    outputs: list[npt.NDArray[Any]],
) -> None:
    scores = task.predict(outputs)
    one.prediction[rows], one.score[rows], one.margin[rows] = scores.prediction, scores.score, scores.margin
    if one.outputs is not None:
        one.outputs[rows] = flat
    one.signal[rows], one.error[rows] = _energies(reference, flat)


def _energies(
    reference: npt.NDArray[np.float32], outputs: npt.NDArray[np.float32]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if reference.shape != outputs.shape:
        nothing = np.full(len(outputs), np.nan)
        return nothing, nothing
    exact = reference.astype(np.float64)
    return (exact**2).sum(axis=1), ((exact - outputs) ** 2).sum(axis=1)


def _predictions(one: _Gathered, samples: EvaluationSamples) -> Predictions:
    return Predictions(
        sample_id=samples.sample_id,
        source_id=samples.source_id,
        groups=samples.groups,
        label=samples.label,
        prediction=one.prediction,
        score=one.score,
        margin=one.margin,
        outputs=one.outputs,
        signal_energy=one.signal,
        error_energy=one.error,
        identity={},
    )


def against(reference: Predictions, run: Predictions) -> Predictions:
    """The run with its error measured against the reference, where both kept their outputs."""
    if reference.outputs is None and run.outputs is None:
        return run  # Too large to keep: they ran side by side just now.
    if reference.outputs is None or run.outputs is None:
        nothing = np.full(len(run), np.nan)
        return replace(run, signal_energy=nothing, error_energy=nothing)
    signal, error = _energies(reference.outputs, run.outputs)
    return replace(run, signal_energy=signal, error_energy=error)
