"""The baseline: what the last accepted model did on every row, so that the next one is compared row by row."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.evaluation.measures import ACCURACY, AGREEMENT, Measure, measure_of
from onnxptq.evaluation.paired import scores_of
from onnxptq.evaluation.predictions import Predictions
from onnxptq.files import replacing
from onnxptq.foreign_text import json_text
from onnxptq.text_files import parse_json, read_text

FORMAT = 2
"""Of scores from 0 to 1. A classifier's rows are right or wrong: they are kept in format 1, a bit a row."""

_CLASSIFIERS = {True: ACCURACY.name, False: AGREEMENT.name}
"""The measure of a file of format 1, by whether it has labels."""

_COMPARED = {
    "data": "another dataset (or another part of it)",
    "preprocessing": "another preprocessing",
    "task": "another task",
    "classes": "other classes",
    "corruptions": "other corruptions",
    "seed": "another seed of the corruptions",
}
"""What must be the same for two runs to be compared, and how a difference is called."""


@dataclass(frozen=True)
class Baseline:
    """What an accepted model did.

    Attributes:
        model: {"name", "digest"} of it.
        samples: what it was judged on: data, preprocessing, task, classes, corruptions, seed.
        rows_digest: SHA-256 over the ids of the rows, in order.
        labelled: answers were judged by the truth; else by those of the reference.
        measure: what the scores are.
        scores: float32, (n,), from 0 to 1.
        provider: what it ran on.
        bytes: size of the file, or None where only predictions were judged.
        latency_ratio: median latency against the reference, or None where it was not measured.
    """

    model: Mapping[str, Any]
    samples: Mapping[str, Any]
    rows_digest: str
    labelled: bool
    measure: str
    scores: npt.NDArray[np.float32]
    provider: str
    bytes: int | None = None
    latency_ratio: float | None = None


def make_baseline(
    reference: Predictions,
    model: Predictions,
    measure: Measure | None = None,
    *,
    size: int | None = None,
    latency_ratio: float | None = None,
) -> Baseline:
    """The baseline of a run; the measure is that of its task where none is given."""
    measure = measure or measure_of(model)
    return Baseline(
        model=dict(model.identity["model"]),
        samples=_samples(model),
        rows_digest=_rows_digest(model),
        labelled=measure.against == "truth",
        measure=measure.name,
        scores=scores_of(model, reference, measure).astype(np.float32),
        provider=model.runtime,
        bytes=size,
        latency_ratio=latency_ratio,
    )


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Writes a baseline as JSON. Raises OutputError when it cannot be written."""
    values = {
        **_scores_to_json(baseline),
        "model": dict(baseline.model),
        "samples": dict(baseline.samples),
        "provider": baseline.provider,
        "rows": len(baseline.scores),
        "rows_digest": baseline.rows_digest,
        "labelled": baseline.labelled,
        "bytes": baseline.bytes,
        "latency_ratio": baseline.latency_ratio,
    }
    with replacing(path) as temporary:
        temporary.write_text(json_text(values), encoding="utf-8")


def _scores_to_json(baseline: Baseline) -> dict[str, Any]:
    if baseline.measure == _CLASSIFIERS[baseline.labelled]:
        right = baseline.scores == 1.0
        return {
            "format": 1,
            "outcomes": base64.b64encode(np.packbits(right).tobytes()).decode(),
            "right": int(right.sum()),
        }
    little_endian = baseline.scores.astype("<f4")
    return {
        "format": FORMAT,
        "measure": baseline.measure,
        "scores": base64.b64encode(little_endian.tobytes()).decode(),
        "scores_digest": hashlib.sha256(little_endian.tobytes()).hexdigest(),
    }


def load_baseline(path: Path) -> Baseline:
    """The baseline in a file.

    Raises:
        DataError: no such file, truncated, not a baseline, or of a newer format.
    """
    anew = "Make it again with --update-baseline."
    try:
        values = parse_json(read_text(path, "baseline", DataError), f"the baseline {path}", DataError)
    except DataError as error:
        if not path.exists():
            raise DataError(f"there is no baseline {path}. Make it with --update-baseline.") from error
        raise DataError(f"the baseline {path} is truncated or damaged: {error} {anew}") from error
    if not isinstance(values, dict) or "format" not in values:
        raise DataError(f"{path} is not a baseline of onnxptq check: it has no format. {anew}")
    if values["format"] not in (1, FORMAT) or isinstance(values["format"], bool):
        raise DataError(
            f"the baseline {path} has format {values['format']!r}; this version reads formats 1 and {FORMAT}. Update "
            "onnxptq."
        )
    try:
        return _from_json(values)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DataError(f"the baseline {path} is damaged: {type(error).__name__}: {error}. {anew}") from error


def _from_json(values: Mapping[str, Any]) -> Baseline:
    measure, scores = _scores_from_json(values)
    for key, kinds in _KINDS.items():
        if not isinstance(values[key], kinds) or isinstance(values[key], bool) != (kinds is bool):
            raise TypeError(f"{key} is {values[key]!r}")
    return Baseline(
        model=values["model"],
        samples=values["samples"],
        rows_digest=values["rows_digest"],
        labelled=values["labelled"],
        measure=measure,
        scores=scores,
        provider=values["provider"],
        bytes=values["bytes"],
        latency_ratio=values["latency_ratio"],
    )


def _scores_from_json(values: Mapping[str, Any]) -> tuple[str, npt.NDArray[np.float32]]:
    rows = values["rows"]
    if type(rows) is not int:
        raise TypeError(f"rows is {rows!r}")
    if values["format"] == 1:
        packed = np.frombuffer(base64.b64decode(values["outcomes"], validate=True), dtype=np.uint8)
        if len(packed) != (rows + 7) // 8:
            raise ValueError(f"{rows!r} rows do not fit {len(packed)} bytes of outcomes")
        right = np.unpackbits(packed, count=rows)
        if int(right.sum()) != values["right"]:
            raise ValueError("the outcomes do not add up")
        return _CLASSIFIERS[bool(values["labelled"])], right.astype(np.float32)
    content = base64.b64decode(values["scores"], validate=True)
    if len(content) != 4 * rows or hashlib.sha256(content).hexdigest() != values["scores_digest"]:
        raise ValueError(f"the scores are not those of {rows} rows that were written")
    scores = np.frombuffer(content, dtype="<f4").astype(np.float32)
    if not ((scores >= 0.0) & (scores <= 1.0)).all():
        raise ValueError("a score is not from 0 to 1")
    if not isinstance(values["measure"], str):
        raise TypeError(f"measure is {values['measure']!r}")
    return values["measure"], scores


_KINDS: dict[str, Any] = {
    "model": dict,
    "samples": dict,
    "rows_digest": str,
    "labelled": bool,
    "provider": str,
    "bytes": int | None,
    "latency_ratio": float | int | None,
}


def check_comparable(baseline: Baseline, model: Predictions, path: Path, measure: Measure | None = None) -> None:
    """Raises DataError when the baseline's model was judged on other samples, so that a comparison would mislead.

    Args:
        baseline: what was accepted.
        model: predictions of what is judged now.
        path: of the baseline, for messages.
        measure: what scores are judged now; None is that of the task.
    """
    now = _samples(model)
    for key, difference in _COMPARED.items():
        if baseline.samples.get(key) != now[key]:
            raise DataError(
                f"the baseline {path} was made with {difference}: {_short(baseline.samples.get(key))} there, "
                f"{_short(now[key])} here. Check on the same, or make the baseline again with --update-baseline."
            )
    if baseline.rows_digest != _rows_digest(model):
        raise DataError(
            f"the baseline {path} was made on other rows ({len(baseline.scores)} there, {len(model)} here). "
            "Make it again with --update-baseline."
        )
    judged = (measure or measure_of(model)).name
    if baseline.measure != judged:
        raise DataError(
            f"the baseline {path} holds the {baseline.measure} of its rows, and the {judged} is judged here. Name the "
            "same `score` in the policy, or make the baseline again with --update-baseline."
        )


def _samples(run: Predictions) -> dict[str, Any]:
    # As JSON reads it back: a tuple there is a list here.
    chosen = {key: run.identity.get(key) for key in _COMPARED}
    values: dict[str, Any] = json.loads(json.dumps(chosen))
    return values


def _rows_digest(run: Predictions) -> str:
    return hashlib.sha256("\n".join(run.sample_id.tolist()).encode()).hexdigest()


def _short(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return text if len(text) <= 100 else f"{text[:97]}..."
