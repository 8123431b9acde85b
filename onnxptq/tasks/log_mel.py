"""Log-mel features: the front end that most small audio models are trained behind.

    {"front_end": {"kind": "log-mel", "n_fft": 256, "hop": 128, "mels": 40, "log": "natural", "offset": 1e-6}}

Frames of the waveform, windowed; the power of their spectrum; triangles on the mel scale; a logarithm. The keys have
the names and meanings of librosa's `melspectrogram` where it has them; the tests compare the two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError, did_you_mean

Floats = npt.NDArray[np.float64]

KIND = "log-mel"
CHOICES = {
    "window": ("hann", "hann_symmetric", "hamming", "rectangular"),
    "scale": ("htk", "slaney"),
    "norm": ("none", "slaney"),
    "log": ("natural", "log10", "db"),
}


@dataclass(frozen=True)
class LogMel:
    """How features are computed.

    Attributes:
        n_fft: samples a frame, and of its Fourier transform.
        hop: samples from one frame to the next.
        mels: bands.
        low, high: ends of the lowest and of the highest band, in Hz; `high` None is half the sample rate.
        window: "hann" is the periodic one of librosa and torchaudio, "hann_symmetric" that of `numpy.hanning`.
        center: frames are centered on their time, the waveform mirrored at its ends.
        power: of the magnitude: 2 is energy.
        scale: of mel: "htk" (2595 log10(1 + f / 700)) or "slaney" (linear up to 1 kHz).
        norm: "slaney" divides each triangle by its width.
        log: "natural", "log10", or "db" (10 log10).
        offset: added before the logarithm, so that silence has one.
        floor: least value that the logarithm is taken of.
    """

    n_fft: int = 400
    hop: int = 160
    mels: int = 80
    low: float = 0.0
    high: float | None = None
    window: str = "hann"
    center: bool = False
    power: float = 2.0
    scale: str = "htk"
    norm: str = "none"
    log: str = "natural"
    offset: float = 1e-6
    floor: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """All of it; `log_mel` reads it again."""
        return {"kind": KIND, **asdict(self)}

    def frames(self, samples: int) -> int:
        """Frames of a waveform of so many samples; 0 where it is too short for one."""
        padded = samples + 2 * (self.n_fft // 2) if self.center else samples
        return max(0, 1 + (padded - self.n_fft) // self.hop)

    def features(self, waves: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
        """float32, (N, mels, frames), of waveforms (N, T) at `rate` samples a second."""
        filters = self.filters(rate)
        found = np.empty((len(waves), self.mels, self.frames(waves.shape[1])), np.float32)
        for index, wave in enumerate(waves):
            energies = filters @ self._spectrum(wave.astype(np.float64))
            found[index] = self._logarithm(energies)
        return found

    def bounds(self, rate: int) -> tuple[float, float]:
        """The features of silence and of the loudest sine of full scale.

        A wave that is clipped until it is a square lies 2 dB beyond; recordings do not.
        """
        corners = self._corners(rate)
        times = np.arange(self.n_fft) / rate
        energies = [self.filters(rate) @ self._spectrum(np.cos(2 * np.pi * one * times))[:, :1] for one in corners]
        low, high = self._logarithm(np.array([0.0, np.max(energies)]))
        return float(low), float(high)

    def filters(self, rate: int) -> Floats:
        """float64, (mels, n_fft // 2 + 1): the triangles."""
        corners = self._corners(rate)
        bins = np.linspace(0, rate / 2, self.n_fft // 2 + 1)
        rising = (bins - corners[:-2, None]) / np.diff(corners)[:-1, None]
        falling = (corners[2:, None] - bins) / np.diff(corners)[1:, None]
        triangles = np.maximum(0, np.minimum(rising, falling))
        if self.norm == "slaney":
            triangles *= (2 / (corners[2:] - corners[:-2]))[:, None]
        return np.asarray(triangles)

    def _corners(self, rate: int) -> Floats:
        to_mel, to_hertz = _SCALES[self.scale]
        ends = to_mel(np.array([self.low, rate / 2 if self.high is None else self.high]))
        return to_hertz(np.linspace(ends[0], ends[1], self.mels + 2))

    @cached_property
    def _window(self) -> Floats:
        if self.window == "rectangular":
            return np.ones(self.n_fft)
        if self.window == "hamming":
            return np.hamming(self.n_fft + 1)[:-1]
        return np.hanning(self.n_fft) if self.window == "hann_symmetric" else np.hanning(self.n_fft + 1)[:-1]

    def _spectrum(self, wave: Floats) -> Floats:
        if self.center:
            wave = np.pad(wave, self.n_fft // 2, mode="reflect" if wave.size > self.n_fft // 2 else "constant")
        frames = np.lib.stride_tricks.sliding_window_view(wave, self.n_fft)[:: self.hop] * self._window
        return np.asarray(np.abs(np.fft.rfft(frames, axis=1)).T ** self.power)

    def _logarithm(self, energies: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            values = np.log(np.maximum(energies, self.floor) + self.offset)
        return np.asarray(values / np.log(10) * {"natural": np.log(10), "log10": 1, "db": 10}[self.log])


def log_mel(given: Any) -> LogMel:
    """Reads `front_end` of a specification.

    Raises:
        UsageError: it is of another kind, has a key that is not known, or a value that is wrong.
    """
    if not isinstance(given, Mapping) or given.get("kind", KIND) != KIND:
        kind = given.get("kind") if isinstance(given, Mapping) else given
        raise UsageError(f"preprocessing: front_end must be a table of the kind {KIND!r}, got {kind!r}.")
    values = {key: value for key, value in given.items() if key != "kind"}
    for key, value in values.items():
        if key not in LogMel.__dataclass_fields__:
            raise UsageError(
                f"preprocessing: front_end has no key {key!r}. {did_you_mean(str(key), LogMel.__dataclass_fields__)}"
            )
        _check(key, value)
    made = LogMel(**values)
    if made.offset <= 0 and made.floor <= 0:
        raise UsageError("preprocessing: front_end needs an offset or a floor above 0: silence has no logarithm.")
    return made


def _check(key: str, value: Any) -> None:
    if key in CHOICES:
        if value not in CHOICES[key]:
            raise UsageError(f"preprocessing: front_end.{key} must be {' or '.join(CHOICES[key])}, got {value!r}.")
    elif key == "center":
        if not isinstance(value, bool):
            raise UsageError(f"preprocessing: front_end.center must be true or false, got {value!r}.")
    elif key in ("n_fft", "hop", "mels"):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= 2**20:
            raise UsageError(f"preprocessing: front_end.{key} must be a whole number of at least 1, got {value!r}.")
    elif (key, value) != ("high", None) and not _is_size(value):
        raise UsageError(f"preprocessing: front_end.{key} must be a number of at least 0, got {value!r}.")


def _is_size(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def _to_slaney(hertz: Floats) -> Floats:
    above = 15 + np.log(np.maximum(hertz, 1000) / 1000) / (np.log(6.4) / 27)
    return np.where(hertz < 1000, hertz * 3 / 200, above)


def _from_slaney(mel: Floats) -> Floats:
    return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))


def _to_htk(hertz: Floats) -> Floats:
    return np.asarray(2595 * np.log10(1 + hertz / 700))


def _from_htk(mel: Floats) -> Floats:
    return np.asarray(700 * (10 ** (mel / 2595) - 1))


_SCALES: Mapping[str, tuple[Callable[[Floats], Floats], Callable[[Floats], Floats]]] = {
    "htk": (_to_htk, _from_htk),
    "slaney": (_to_slaney, _from_slaney),
}
