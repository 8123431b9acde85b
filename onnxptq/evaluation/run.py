"""Running models over evaluation samples: sessions in, predictions out, each made once and then found by its key."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.cache import Room, content_key
from onnxptq.errors import DataError
from onnxptq.evaluation.predictions import SCHEMA_VERSION, Predictions, load_predictions, save_predictions
from onnxptq.evaluation.samples import EvaluationSamples
from onnxptq.graphs import Model
from onnxptq.runtimes import Session, open_session, runtime_identity
from onnxptq.tasks import Feeds, Task

BATCH = 64
"""Samples in one call of a model with a dynamic batch: INT8 kernels are near their best, memory stays small."""

OUTPUTS_KEPT = 1024
"""Values of output a sample up to which predictions keep the outputs themselves (4 KB a sample)."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Subject:
    """A model that is judged, and the provider that it runs on."""

    model: Model
    provider: str = "cpu"
    threads: int | None = None
    allow_fallback: bool = False

    def open(self) -> Session:
        """A session of the model on its provider."""
        return open_session(self.model.path, self.provider, threads=self.threads, allow_fallback=self.allow_fallback)


def predict(
    subjects: Sequence[Subject], samples: EvaluationSamples, room: Room, progress: Progress = lambda rows: None
) -> list[Predictions]:
    """Predictions of each subject on the same samples; the first subject is the reference of all.

    Args:
        subjects: models and providers; the first is the reference.
        samples: what they are judged on.
        room: where predictions that were made before are found.
        progress: called with the number of rows done since the last call, summed over subjects.

    Raises:
        DataError: a model gives NaN or infinity on a sample.
        RuntimeUnavailableError: a provider does not load.
    """
    identities = [_identity(subject, samples) for subject in subjects]
    places = [room.place("predictions", _key(identity), ".parquet") for identity in identities]
    found = [_found(place) for place in places]
    missing = [number for number, run in enumerate(found) if run is None]
    progress(len(samples) * (len(subjects) - len(missing)))
    keepable = True
    if missing:
        made = _run([subjects[n] for n in missing], samples, progress)
        keepable = all(run.outputs is not None for run in made)
        for number, run in zip(missing, made, strict=True):
            found[number] = replace(run, identity=identities[number])
            if keepable:
                save_predictions(places[number], [found[number]])  # type: ignore[list-item]
    runs = [run for run in found if run is not None]
    return [_against(runs[0], run) for run in runs]


def _identity(subject: Subject, samples: EvaluationSamples) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": subject.model.path.name, "digest": subject.model.digest},
        "runtime": runtime_identity(subject.provider),
        "data": {"digest": samples.dataset.digest, "samples": len(samples.dataset)},
        "task": samples.task.name,
        "preprocessing": samples.task.specification,
        "classes": list(samples.task.classes or samples.dataset.label_names),
        "corruptions": list(samples.corruptions),
        "seed": samples.seed,
    }


def _key(identity: dict[str, Any]) -> str:
    return content_key("predictions", **{**identity, "model": identity["model"]["digest"]})


def _found(place: Any) -> Predictions | None:
    return load_predictions(place)[0] if place.is_file() else None


@dataclass
class _Gathered:
    """Rows of one subject while they come in."""

    prediction: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    outputs: npt.NDArray[np.float32] | None
    signal: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]


def _run(subjects: Sequence[Subject], samples: EvaluationSamples, progress: Progress) -> list[Predictions]:
    sessions = [subject.open() for subject in subjects]
    gathered: list[_Gathered] = []
    for rows, feeds in samples.batches(batch_size(sessions)):
        reference: npt.NDArray[np.float32] | None = None
        for number, session in enumerate(sessions):
            outputs = run_padded(session, feeds)
            flat = np.concatenate([o.reshape(len(rows), -1).astype(np.float32, copy=False) for o in outputs], axis=1)
            _check_finite(flat, rows, samples, subjects[number])
            if len(gathered) <= number:
                gathered.append(_empty(len(samples), flat.shape[1]))
            reference = flat if reference is None else reference
            _gather(gathered[number], rows, flat, reference, samples.task, outputs)
        progress(len(rows) * len(sessions))
    return [_predictions(one, samples) for one in gathered]


def batch_size(sessions: Sequence[Session]) -> int:
    """The batch that all sessions accept: BATCH, or what a model has fixed.

    Raises:
        DataError: two models have fixed different batches.
    """
    fixed = {spec.shape[0] for s in sessions for spec in s.signature.inputs if spec.shape and spec.shape[0] is not None}
    if len(fixed) > 1:
        raise DataError(f"the models have fixed different batch sizes ({sorted(fixed)}); evaluate them one by one.")
    return next(iter(fixed)) if fixed else BATCH  # type: ignore[return-value]


def run_padded(session: Session, feeds: Feeds) -> list[npt.NDArray[Any]]:
    """The outputs for a batch that may be shorter than the batch that the model has fixed."""
    count = len(next(iter(feeds.values())))
    fixed = next((s.shape[0] for s in session.signature.inputs if s.shape and s.shape[0] is not None), None)
    if fixed is not None and count < fixed:
        feeds = {name: np.concatenate([a, np.repeat(a[-1:], fixed - count, axis=0)]) for name, a in feeds.items()}
    return [output[:count] for output in session.run(feeds)]


def _check_finite(
    flat: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], samples: EvaluationSamples, subject: Subject
) -> None:
    finite = np.isfinite(flat).all(axis=1)
    if not finite.all():
        sample = samples.sample_id[rows[np.flatnonzero(~finite)[0]]]
        raise DataError(f"{subject.model.path} gives NaN or infinity on sample {sample}; it cannot be judged on it.")


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


def _against(reference: Predictions, run: Predictions) -> Predictions:
    """The run with its error measured against the reference, where both kept their outputs."""
    if reference.outputs is None and run.outputs is None:
        return run  # Too large to keep: they ran side by side just now.
    if reference.outputs is None or run.outputs is None:
        nothing = np.full(len(run), np.nan)
        return replace(run, signal_energy=nothing, error_energy=nothing)
    signal, error = _energies(reference.outputs, run.outputs)
    return replace(run, signal_energy=signal, error_energy=error)
