"""Running models over evaluation samples: sessions in, predictions out, each made once and then found by its key."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxptq.cache import Cache, content_key
from onnxptq.data.versions import data_versions
from onnxptq.errors import DataError, OnnxptqError
from onnxptq.evaluation._gathering import Gathered, Said, has_nan, kept_energies, narrow, not_finite
from onnxptq.evaluation.model_under_test import ModelUnderTest, explained
from onnxptq.evaluation.predictions import SCHEMA_VERSION, Predictions, load_predictions, save_predictions
from onnxptq.evaluation.sample_runner import BATCH, Runner, SampleRunner, join
from onnxptq.evaluation.samples import EvaluationSamples
from onnxptq.foreign_text import one_line
from onnxptq.heads import DEFINITIONS, Head, Truths
from onnxptq.progress import Advance, uncounted
from onnxptq.runtimes.isolated import WorkerError
from onnxptq.runtimes.selection import Runtime
from onnxptq.signature import Feeds

_PORTION_BYTES = 8 * 2**20
_PORTION_BATCHES = 8
"""Batches, and bytes of them, that one model runs on before the next one does, where outputs are narrow. What is done
between runs finds nothing in the processor's caches, so it is done seldom; but a user wants to see progress."""

T = TypeVar("T")


def predict(
    subjects: Sequence[ModelUnderTest],
    samples: EvaluationSamples,
    cache: Cache,
    progress: Advance = uncounted,
    known: Sequence[Predictions] = (),
) -> list[Predictions]:
    """Predictions of each subject on the same samples; the first subject is the reference of all.

    Args:
        subjects: models and what they run on; the first is the reference.
        samples: what they are judged on.
        cache: where predictions that were made before are found.
        progress: called with the number of rows done since the last call, summed over subjects.
        known: predictions that were made elsewhere, taken for the models that made them (`differences`).

    Raises:
        DataError: a model gives NaN or infinity on a sample.
        RuntimeUnavailableError: a provider does not load.
    """
    results = _predict(subjects, samples, cache, progress, known, tolerant=False)
    return [run for run in results if isinstance(run, Predictions)]


def predict_each(
    subjects: Sequence[ModelUnderTest], samples: EvaluationSamples, cache: Cache, progress: Advance = uncounted
) -> list[Predictions | OnnxptqError]:
    """As `predict`, but a subject that fails leaves its error in its place, and the others finish.

    Raises whatever the first subject, the reference of all, fails with.
    """
    return _predict(subjects, samples, cache, progress, (), tolerant=True)


def differences(run: Predictions, subject: ModelUnderTest, samples: EvaluationSamples) -> tuple[str, ...]:
    """In what predictions differ from those that a model would make of these samples, whatever they were run on; ()
    where they are its own."""
    wanted = json.loads(json.dumps(_identity(subject, samples)))  # As a file has it.
    differing = [key for key in _SAME if run.identity.get(key) != wanted[key]]
    return (*(["model"] if run.identity["model"].get("digest") != subject.model.digest else []), *differing)


_SAME = ("data", "task", "head", "judged", "preprocessing", "classes", "corruptions", "seed")


def _predict(
    subjects: Sequence[ModelUnderTest],
    samples: EvaluationSamples,
    cache: Cache,
    progress: Advance,
    known: Sequence[Predictions],
    *,
    tolerant: bool,
) -> list[Predictions | OnnxptqError]:
    identities = [_identity(subject, samples) for subject in subjects]
    places = [_place(identity, cache) for identity in identities]
    for identity, subject in zip(identities, subjects, strict=True):
        identity["runtime"] |= _name_or_reason(subject.runtime)
        identity["against"] = subjects[0].model.digest
    found: list[Predictions | OnnxptqError | None] = [
        _found(place) or next((run for run in known if not differences(run, subject, samples)), None)
        for place, subject in zip(places, subjects, strict=True)
    ]
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
    head = samples.task.head
    # A file found by its content may have been written for a model or rows of other names.
    named = [
        replace(run, identity=identity, sample_id=samples.sample_id, head=samples.task.head)
        if isinstance(run, Predictions)
        else run
        for run, identity in zip(found, identities, strict=True)
        if run is not None
    ]
    reference = named[0]
    if isinstance(reference, OnnxptqError):
        raise reference
    return [against(reference, run, head) if isinstance(run, Predictions) else run for run in named]


def predictions_place(subject: ModelUnderTest, samples: EvaluationSamples, cache: Cache) -> Path:
    """Where the predictions of a subject lie, once `predict` has made and kept them."""
    return _place(_identity(subject, samples), cache)


def _place(identity: dict[str, Any], cache: Cache) -> Path:
    return cache.place("predictions", _key(identity), ".parquet")


def _identity(subject: ModelUnderTest, samples: EvaluationSamples) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": one_line(subject.model.path.name), "digest": subject.model.digest},
        "runtime": subject.runtime.identity(),
        "data": {"digest": samples.dataset.digest, "samples": len(samples.dataset)},
        "task": samples.task.name,
        "head": samples.task.head.name,
        "judged": list(samples.task.head.judged),
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
    made = {"model": identity["model"]["digest"], "versions": data_versions(), "heads": DEFINITIONS}
    return content_key("predictions", **{**identity, **made})


def _found(place: Path) -> Predictions | None:
    try:
        return load_predictions(place)[0] if place.is_file() else None
    except DataError:
        return None  # Damaged on the disk: it is made anew and replaced.


def _run(
    subjects: Sequence[ModelUnderTest], samples: EvaluationSamples, progress: Advance, *, tolerant: bool
) -> list[Predictions | OnnxptqError]:
    results: dict[int, Gathered | OnnxptqError] = {}
    sessions: dict[int, Runner] = {}

    def attempt(number: int, step: Callable[[], T], doing: str) -> T | None:
        try:
            return step()
        except OnnxptqError as error:
            if not tolerant and isinstance(error, WorkerError):
                raise explained(error, subjects[number], doing) from error
            if not tolerant:
                raise
            results[number] = error
            sessions.pop(number, None)
            return None

    for number, subject in enumerate(subjects):
        if (session := attempt(number, subject.open, "is loaded")) is not None:
            sessions[number] = session
    if not sessions:
        return [error for error in results.values() if isinstance(error, OnnxptqError)]
    head = samples.task.head
    runners = {number: SampleRunner(session) for number, session in sessions.items()}
    for rows, batches, truths in _portions(samples, list(sessions.values())):
        reference: Said | None = None
        for number in list(sessions):
            first = reference is None
            say = partial(_said, runners[number], batches, rows, samples, subjects[number], first)
            said = attempt(number, say, "runs")
            if said is None:
                continue
            gathered = results.setdefault(number, Gathered(len(samples), head))
            assert isinstance(gathered, Gathered)
            reference = reference or said
            try:
                gathered.add(rows, said, reference, truths)
            except DataError as error:
                raise _at_fault(samples, rows, said, truths, error) from error
            progress(len(rows))
        progress(len(rows) * (len(subjects) - len(sessions)))
    ordered = [results[number] for number in range(len(subjects))]
    return [one.predictions(samples) if isinstance(one, Gathered) else one for one in ordered]


def _at_fault(
    samples: EvaluationSamples, rows: npt.NDArray[np.int64], said: Said, truths: Truths, error: DataError
) -> DataError:
    """The error with the place of the first sample whose truth the head cannot read, else itself."""
    head = samples.task.head
    for number, row in enumerate(rows.tolist()):
        try:
            answers = head.answers([output[number : number + 1] for output in said.outputs])
            head.score(answers, {name: values[number : number + 1] for name, values in truths.items()})
        except DataError as found:
            place = samples.place(row)
            return found if place in str(found) else DataError(f"{place}: {found}")
        except OnnxptqError:
            break  # The outputs of one sample alone cannot be read.
    return error


def _portions(
    samples: EvaluationSamples, sessions: Sequence[Runner]
) -> Iterator[tuple[npt.NDArray[np.int64], list[Feeds], Truths]]:
    """Rows, the batches that feed them, and their truths: several batches where outputs are narrow, else one."""
    most = _PORTION_BYTES if all(narrow(session.signature) for session in sessions) else 0
    rows: list[npt.NDArray[np.int64]] = []
    batches: list[Feeds] = []
    truths: dict[str, list[Any]] = {}
    size = 0
    for some, feeds, true in samples.batches_with_truths(batch_size(sessions)):
        rows.append(some)
        batches.append(feeds)
        for name, values in true.items():
            truths.setdefault(name, []).extend(values)
        size += sum(array.nbytes for array in feeds.values())
        if size >= most or len(batches) == _PORTION_BATCHES:
            yield np.concatenate(rows), batches, truths
            rows, batches, truths, size = [], [], {}, 0
    if batches:
        yield np.concatenate(rows), batches, truths


def _said(
    runner: SampleRunner,
    batches: list[Feeds],
    rows: npt.NDArray[np.int64],
    samples: EvaluationSamples,
    subject: ModelUnderTest,
    first: bool,
) -> Said:
    """What a model says of some rows; the first model is the reference."""
    parts = [runner.run(feeds) for feeds in batches]
    outputs = [join(of_one) for of_one in zip(*parts, strict=True)]
    said = Said([spec.name for spec in runner.signature.outputs], outputs)
    _check_finite(said, rows, samples, subject, first)
    said.answers = samples.task.head.answers(outputs)
    return said


def batch_size(sessions: Sequence[Runner]) -> int:
    """The batch that all sessions accept: BATCH, or what a model has fixed.

    Raises:
        DataError: two models have fixed different batches.
    """
    if any(session.signature.alone for session in sessions):
        return 1
    fixed = {batch for session in sessions if (batch := session.signature.fixed_batch) is not None}
    if len(fixed) > 1:
        raise DataError(f"the models have fixed different batch sizes ({sorted(fixed)}); evaluate them one by one.")
    return next(iter(fixed)) if fixed else BATCH


def _check_finite(
    said: Said, rows: npt.NDArray[np.int64], samples: EvaluationSamples, subject: ModelUnderTest, first: bool
) -> None:
    """Raises DataError, naming the sample, for an output that cannot be judged.

    That is NaN or infinity; for a head that takes what is not finite, NaN of the reference: nothing is near to it.
    """
    head = samples.task.head
    for name in head.judged if head.finite or first else ():
        output = said.outputs[said.names.index(name)]
        wrong = not_finite(output) if head.finite else has_nan(output)
        if wrong.any():
            sample = samples.place(int(rows[np.argmax(wrong)]))
            raise DataError(
                f"{subject.model.path} gives NaN{' or infinity' if head.finite else ''} for the sample {sample!r}; it "
                "cannot be judged on it. Repair the sample or leave it out."
            )


def against(reference: Predictions, run: Predictions, head: Head | None = None) -> Predictions:
    """The run with its error measured against the reference, where both kept their outputs.

    Args:
        reference: the run to compare with.
        run: the other one, on the same samples.
        head: measures the fidelity; None leaves it as it is.
    """
    if reference.outputs is None and run.outputs is None:
        return run  # Too large to keep: they ran side by side just now.
    if reference.outputs is None or run.outputs is None or reference.outputs.shape != run.outputs.shape:
        nothing = np.full(len(run), np.nan)
        return replace(run, signal_energy=nothing, error_energy=nothing, energies={})
    signal, error, energies = kept_energies(reference, run)
    if head is None or not (reference.shapes and run.shapes):
        return replace(run, signal_energy=signal, error_energy=error, energies=energies)
    answers = [head.answers(one.unflattened()) for one in (run, reference)]
    fidelity = head.fidelity(*answers)
    return replace(run, signal_energy=signal, error_energy=error, energies=energies, fidelity=fidelity)
