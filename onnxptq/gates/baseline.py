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
from onnxptq.evaluation.paired import measure_of, scores_of
from onnxptq.evaluation.predictions import Predictions
from onnxptq.files import replacing
from onnxptq.foreign_text import json_text
from onnxptq.text_files import parse_json, read_text

FORMAT = 1

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
        labelled: `outcomes` are right or wrong; else agreement with the reference.
        outcomes: bool, (n,).
        provider: what it ran on.
        bytes: size of the file, or None where only predictions were judged.
        latency_ratio: median latency against the reference, or None where it was not measured.
    """

    model: Mapping[str, Any]
    samples: Mapping[str, Any]
    rows_digest: str
    labelled: bool
    outcomes: npt.NDArray[np.bool_]
    provider: str
    bytes: int | None = None
    latency_ratio: float | None = None


def make_baseline(
    reference: Predictions, model: Predictions, *, size: int | None = None, latency_ratio: float | None = None
) -> Baseline:
    """The baseline of a run."""
    return Baseline(
        model=dict(model.identity["model"]),
        samples=_samples(model),
        rows_digest=_rows_digest(model),
        labelled=measure_of(model).against == "truth",
        outcomes=scores_of(model, reference) == 1.0,
        provider=model.runtime,
        bytes=size,
        latency_ratio=latency_ratio,
    )


def save_baseline(path: Path, baseline: Baseline) -> None:
    """Writes a baseline as JSON. Raises OutputError when it cannot be written."""
    values = {
        "format": FORMAT,
        "model": dict(baseline.model),
        "samples": dict(baseline.samples),
        "provider": baseline.provider,
        "rows": len(baseline.outcomes),
        "rows_digest": baseline.rows_digest,
        "labelled": baseline.labelled,
        "outcomes": base64.b64encode(np.packbits(baseline.outcomes).tobytes()).decode(),
        "right": int(baseline.outcomes.sum()),
        "bytes": baseline.bytes,
        "latency_ratio": baseline.latency_ratio,
    }
    with replacing(path) as temporary:
        temporary.write_text(json_text(values), encoding="utf-8")


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
    if values["format"] != FORMAT:
        raise DataError(
            f"the baseline {path} has format {values['format']!r}; this version reads format {FORMAT}. Update onnxptq."
        )
    try:
        return _from_json(values)
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise DataError(f"the baseline {path} is damaged: {type(error).__name__}: {error}. {anew}") from error


def _from_json(values: Mapping[str, Any]) -> Baseline:
    rows = values["rows"]
    packed = np.frombuffer(base64.b64decode(values["outcomes"], validate=True), dtype=np.uint8)
    if type(rows) is not int or len(packed) != (rows + 7) // 8:
        raise ValueError(f"{rows!r} rows do not fit {len(packed)} bytes of outcomes")
    outcomes = np.unpackbits(packed, count=rows).astype(np.bool_)
    if int(outcomes.sum()) != values["right"]:
        raise ValueError("the outcomes do not add up")
    for key, kinds in _KINDS.items():
        if not isinstance(values[key], kinds) or isinstance(values[key], bool) != (kinds is bool):
            raise TypeError(f"{key} is {values[key]!r}")
    return Baseline(
        model=values["model"],
        samples=values["samples"],
        rows_digest=values["rows_digest"],
        labelled=values["labelled"],
        outcomes=outcomes,
        provider=values["provider"],
        bytes=values["bytes"],
        latency_ratio=values["latency_ratio"],
    )


_KINDS: dict[str, Any] = {
    "model": dict,
    "samples": dict,
    "rows_digest": str,
    "labelled": bool,
    "provider": str,
    "bytes": int | None,
    "latency_ratio": float | int | None,
}


def check_comparable(baseline: Baseline, model: Predictions, path: Path) -> None:
    """Raises DataError when the baseline's model was judged on other samples, so that a comparison would mislead."""
    now = _samples(model)
    for key, difference in _COMPARED.items():
        if baseline.samples.get(key) != now[key]:
            raise DataError(
                f"the baseline {path} was made with {difference}: {_short(baseline.samples.get(key))} there, "
                f"{_short(now[key])} here. Check on the same, or make the baseline again with --update-baseline."
            )
    if baseline.rows_digest != _rows_digest(model) or baseline.labelled != model.labelled:
        raise DataError(
            f"the baseline {path} was made on other rows ({len(baseline.outcomes)} there, {len(model)} here). "
            "Make it again with --update-baseline."
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
