"""How a model wants its recordings, as its specification says and its signature allows.

{"task": "audio-classification", "sample_rate": 16000, "length": 16000,
 "front_end": {"kind": "log-mel", "n_fft": 400, "hop": 160, "mels": 80}, "mean": -9.9, "std": 5.0}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from onnxptq.errors import ModelError, UsageError
from onnxptq.signature import Signature, TensorSpec, shown
from onnxptq.tasks.log_mel import LogMel, log_mel

ALIGNMENTS = ("center", "start")
LAYOUTS = ("mel_time", "time_mel")


@dataclass(frozen=True)
class AudioSpecification:
    """How recordings become feeds.

    Attributes:
        input: name of the model's input.
        rank: its number of dimensions.
        sample_rate: samples a second.
        length: samples of each recording, cut or filled up with silence; None: as long as it is.
        align: where a recording lies in that length, "center" or "start".
        front_end: features of the waveform; None feeds the waveform itself.
        layout: of features: (mels, frames) or (frames, mels).
        mean, std: taken from and divided by at the end.
    """

    input: str
    rank: int
    sample_rate: int
    length: int | None = None
    align: str = "center"
    front_end: LogMel | None = None
    layout: str = "mel_time"
    mean: float = 0.0
    std: float = 1.0

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON; `audio_specification` reads it again."""
        values: dict[str, Any] = {
            "input": self.input,
            "sample_rate": self.sample_rate,
            "length": self.length,
            "align": self.align,
            "mean": self.mean,
            "std": self.std,
        }
        if self.front_end is not None:
            values |= {"front_end": self.front_end.to_json(), "layout": self.layout}
        return values


def audio_specification(given: Mapping[str, Any], signature: Signature) -> AudioSpecification:
    """Reads a specification and completes it from the model's signature. Keys that it does not know are ignored.

    Raises:
        UsageError: a value of the specification is wrong in itself, or the sample rate is missing.
        ModelError: the model's input cannot take such recordings; the message shows both shapes.
    """
    source = _input(given, signature)
    rate = given.get("sample_rate")
    if not isinstance(rate, int) or isinstance(rate, bool) or not 1000 <= rate <= 1_000_000:
        raise UsageError(
            "preprocessing: sample_rate must be a whole number of samples a second, as in "
            f'{{"sample_rate": 16000}}, got {rate!r}. It is what the model was trained at.'
        )
    front_end = None if given.get("front_end") is None else log_mel(given["front_end"])
    made = AudioSpecification(
        input=source.name,
        rank=len(source.shape),
        sample_rate=rate,
        length=given.get("length"),
        align=_one_of(given, "align", ALIGNMENTS),
        front_end=front_end,
        layout=_one_of(given, "layout", LAYOUTS),
        mean=_number(given, "mean", 0.0),
        std=_number(given, "std", 1.0),
    )
    if made.std <= 0:
        raise UsageError(f"preprocessing: std must be above 0, got {made.std}.")
    return _with_length(made, source)


def _with_length(made: AudioSpecification, source: TensorSpec) -> AudioSpecification:
    """With the length that a waveform model fixes; raises where shapes do not fit."""
    if made.front_end is None:
        (fixed,) = source.shape[-1:]
        if made.length is None and fixed is not None:
            return AudioSpecification(**{**vars(made), "length": fixed})
        wanted: tuple[int | None, ...] = (made.length,)
    else:
        frames = None if made.length is None else made.front_end.frames(made.length)
        if frames == 0:
            raise UsageError(
                f"preprocessing: length {made.length} is shorter than one frame of {made.front_end.n_fft} samples."
            )
        bands = made.front_end.mels
        wanted = (bands, frames) if made.layout == "mel_time" else (frames, bands)
        if made.length is None and None not in source.shape[-2:]:
            raise UsageError(
                f"preprocessing: the model takes {shown(source.shape)}, so all recordings must be equally long; "
                'say how long with "length", in samples.'
            )
    own = source.shape[len(source.shape) - len(wanted) :]
    if len(own) < len(wanted) or any(None not in (a, b) and a != b for a, b in zip(own, wanted, strict=True)):
        raise ModelError(
            f"input {source.name!r} has shape {shown(source.shape)}, but the preprocessing makes {shown(wanted)} of a "
            "recording. Give the length, hop, n_fft, mels and layout that the model was trained with."
        )
    return made


def _input(given: Mapping[str, Any], signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs) or "none"
        raise ModelError(
            f"the input audio needs a model with one input; this one has: {names}. Store their arrays (input tensor)."
        )
    (source,) = signature.inputs
    if given.get("input") not in (None, source.name):
        raise UsageError(f"the model has no input {given['input']!r}; its input is {source.name!r}.")
    least = 2 if given.get("front_end") is None else 3
    middle = source.shape[1 : len(source.shape) - least + 1]
    if (
        source.dtype != "float32"
        or len(source.shape) not in (least, least + 1)
        or any(s not in (1, None) for s in middle)
    ):
        expected = "(N, T) or (N, 1, T)" if least == 2 else "(N, mels, frames) or (N, 1, mels, frames)"
        raise ModelError(
            f"input {source.name!r} is {source.dtype} {shown(source.shape)}; recordings are fed as float32 {expected}. "
            "For other inputs store arrays (input tensor)."
        )
    return source


def _one_of(given: Mapping[str, Any], key: str, choices: tuple[str, ...]) -> str:
    value = given.get(key) or choices[0]
    if value not in choices:
        raise UsageError(f"preprocessing: {key} must be {' or '.join(choices)}, got {value!r}.")
    return str(value)


def _number(given: Mapping[str, Any], key: str, default: float) -> float:
    value = given.get(key)
    if value is None:
        return default
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise UsageError(f"preprocessing: {key} of a recording is one number, got {value!r}.")
    return float(value)
