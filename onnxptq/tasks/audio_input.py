"""Recordings: decoded, mixed down, resampled and cut as the specification says; waveforms or log-mel features."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data import DecodeError, decode_sound, not_finite
from onnxptq.data.shifts import SHIFTS, Batch, Facts, InputFacts
from onnxptq.errors import DataError
from onnxptq.signature import Feeds, Signature
from onnxptq.tasks._audio_specification import AudioSpecification, audio_specification
from onnxptq.tasks._base import INPUTS, Input, InputKind, Row
from onnxptq.tasks._rows import input_columns, row_name

EVALUATION_SHIFTS = ("clipping@3", "reverberation@3", "band_limit@3", "hum@3", "mu_law@3")
"""The default evaluation: what calibration sets are made of (gain, noise, silence) is left to them."""

AUGMENTATIONS = ("full_scale@3", "full_scale@3+reverse@3", "full_scale@3+polarity@3", "overlap@3")
"""What the robust methods calibrate on beside the set: recordings that reach as far as any can."""

SECONDS = (1.0, 3.0)
"""Up to how long a recording is "short" and "medium"."""

DECIBEL = (-35.0, -20.0)
"""Root mean square against full scale up to which a recording is "quiet" and "medium"."""

NOISE_PEAK = 0.5

Waves = npt.NDArray[np.float32]


@dataclass(frozen=True)
class AudioInput(Input):
    """Recordings as float32 (N, T), one channel at the model's sample rate; feeds as the specification says."""

    details: AudioSpecification

    name = "audio"
    modality = "audio"
    group_columns = ("duration", "loudness")

    @property
    def specification(self) -> dict[str, Any]:
        """Input, sample_rate, length, align, front_end, layout, mean and std."""
        return self.details.to_json()

    def load(self, rows: Sequence[Row]) -> Batch:
        """Decodes, mixes down, resamples and cuts: float32, (N, T).

        Args:
            rows: each with one column: an encoded recording, its path, or an array (T,) at the model's sample rate.

        Raises:
            DataError: a recording is damaged, too short for one frame, or is none; it names the sample.
        """
        return np.stack([self._cut(self._wave(row)) for row in rows])

    def loadable_together(self, rows: Sequence[Row]) -> list[list[int]]:
        """All together where the specification fixes the length, else each alone: recordings differ in length."""
        if self.details.length is not None:
            return [list(range(len(rows)))]
        return [[position] for position in range(len(rows))]

    def feeds(self, batch: Batch) -> Feeds:
        """(features - mean) / std, or the waveform so: {input: float32, contiguous}, of the model's rank."""
        details = self.details
        values: npt.NDArray[Any] = batch
        if details.front_end is not None:
            values = details.front_end.features(batch, details.sample_rate)
            values = values if details.layout == "mel_time" else values.transpose(0, 2, 1)
        values = (values.astype(np.float64) - details.mean) / details.std
        if values.ndim < details.rank:
            values = values[:, None]
        return {details.input: np.ascontiguousarray(values, np.float32)}

    def noise(self, count: int, seed: int) -> Batch:
        """White noise between -0.5 and 0.5: float32, (count, length), one second where the length is open."""
        length = self.details.length or self.details.sample_rate
        return np.random.default_rng(seed).uniform(-NOISE_PEAK, NOISE_PEAK, (count, length)).astype(np.float32)

    def input_bounds(self) -> Mapping[str, tuple[float, float]]:
        """What full scale and silence give."""
        details = self.details
        low, high = (-1.0, 1.0) if details.front_end is None else details.front_end.bounds(details.sample_rate)
        return {details.input: ((low - details.mean) / details.std, (high - details.mean) / details.std)}

    def input_facts(self) -> Facts:
        """The sample rate, and full scale."""
        return {self.details.input: InputFacts("audio", (-1.0, 1.0), rate=self.details.sample_rate)}

    def augmentations(self) -> tuple[str, ...]:
        """`AUGMENTATIONS`."""
        return AUGMENTATIONS

    def evaluation_shifts(self) -> tuple[str, ...]:
        """`EVALUATION_SHIFTS`."""
        return EVALUATION_SHIFTS

    def fits(self, shift_name: str) -> str | None:
        """None where the shift (`name` or `name@severity`) makes sense for recordings, else the reason why not."""
        shift = SHIFTS.get(shift_name.partition("@")[0])
        if shift.modality != self.modality:
            known = ", ".join(other.name for other in SHIFTS if other.modality == self.modality)
            return f"{shift.name} is for {shift.modality} samples, not for recordings; for these there are {known}"
        return None

    def group_values(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """Duration (short, medium, long) and loudness (quiet, medium, loud) of each recording as it is stored."""
        waves = [self._wave(row) for row in rows]
        seconds = [wave.size / self.details.sample_rate for wave in waves]
        return {
            "duration": [_placed(one, SECONDS, ("short", "medium", "long")) for one in seconds],
            "loudness": [_placed(_decibel(wave), DECIBEL, ("quiet", "medium", "loud")) for wave in waves],
        }

    def _wave(self, row: Row) -> Waves:
        columns = input_columns(row)
        if len(columns) != 1:
            raise DataError(
                f"{row_name(row)} has the input columns {', '.join(columns) or 'none'}; an audio model takes one. "
                "Name the column of the recording."
            )
        raw = row[columns[0]]
        if isinstance(raw, np.ndarray):
            return _from_array(raw, row_name(row))
        try:
            return decode_sound(
                raw if isinstance(raw, bytes) else Path(raw).read_bytes(), self.details.sample_rate
            ).samples
        except (DecodeError, OSError) as error:
            raise DataError(
                f"the recording {row_name(row)} cannot be decoded: {error}. Restore or remove it, or leave out bad "
                "ones with --skip-bad."
            ) from error

    def _cut(self, wave: Waves) -> Waves:
        """At the length of the specification: the middle or the beginning, filled up with silence."""
        length, front_end = self.details.length, self.details.front_end
        if length is None:
            least = 1 if front_end is None or front_end.frames(wave.size) else front_end.n_fft
            return np.pad(wave, (0, max(0, least - wave.size)))
        spare = wave.size - length
        before = 0 if self.details.align == "start" else abs(spare) // 2
        if spare >= 0:
            return wave[before : before + length]
        return np.pad(wave, (before, -spare - before))


def _from_array(array: npt.NDArray[Any], name: str) -> Waves:
    """An array (T,) or (channels, T), of floats from -1 to 1 or of signed integers, as a waveform."""
    if array.dtype.kind == "i":
        array = array / -float(np.iinfo(array.dtype).min)
    if array.ndim == 2 and min(array.shape) <= _CHANNELS:
        array = array.mean(axis=int(np.argmin(array.shape)))
    if array.ndim != 1 or not array.size or array.dtype.kind != "f":
        raise DataError(
            f"the recording {name} is an array of {array.dtype} {array.shape}; expected (samples,) of floats from -1 "
            "to 1."
        )
    if reason := not_finite(array):
        raise DataError(f"the recording {name} holds {reason}. Repair it or leave bad ones out with --skip-bad.")
    return array.astype(np.float32)


_CHANNELS = 8
"""Most channels of an array; a longer axis is time."""


def _decibel(wave: Waves) -> float:
    energy = float(np.mean(wave.astype(np.float64) ** 2)) if wave.size else 0.0
    return float(10 * np.log10(max(energy, 1e-12)))


def _placed(value: float, limits: tuple[float, float], names: tuple[str, str, str]) -> str:
    return names[sum(value > limit for limit in limits)]


def build(specification: Mapping[str, Any], signature: Signature) -> AudioInput:
    """The input of one model.

    Raises:
        UsageError: a value of the specification is wrong, or it has no sample rate.
        ModelError: the model cannot take the recordings that the specification makes.
    """
    return AudioInput(audio_specification(specification, signature))


INPUTS.register(
    InputKind(
        "audio",
        "one recording, decoded, mixed down, resampled and cut; as a waveform or as log-mel features",
        build,
        formats=("a folder of wav, flac, ogg or mp3", "a table with recordings or their paths", ".npz of waveforms"),
        extra="audio",
        keys=("input", "sample_rate", "length", "align", "front_end", "layout", "mean", "std"),
    )
)
