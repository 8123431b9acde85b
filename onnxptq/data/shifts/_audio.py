"""Shifts of recordings: what microphones, rooms and channels do to a waveform.

A batch is float32, (N, T). Noise is scaled by the energy of each recording, so a ratio in decibel means the same for a
loud one and a quiet one; a silent recording stays silent.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts._apply import generators
from onnxptq.data.shifts._base import SHIFTS, Facts, Seeds, Shift

Sounds = npt.NDArray[np.float32]
Wave = npt.NDArray[np.float64]

QUIET = (0.5, 0.3, 0.15, 0.1, 0.05)
LOUD = (1.5, 2.0, 3.0, 5.0, 8.0)
CLIPPED = (0.5, 0.3, 0.2, 0.1, 0.05)
RATIOS_DB = (20.0, 15.0, 10.0, 5.0, 0.0)
HUM_DB = (30.0, 25.0, 20.0, 15.0, 10.0)
DECAY_SECONDS = (0.15, 0.3, 0.5, 0.8, 1.2)
CUTOFFS = (0.9, 0.8, 0.7, 0.55, 0.4)
SILENT = (0.2, 0.4, 0.6, 0.8, 1.0)
BITS = (8, 7, 6, 5, 4)

USUAL_RATE = 16_000
"""Samples a second where nobody says."""

_MAINS = 50.0
_HARMONICS = ((1, 1.0), (2, 0.5), (3, 0.6), (4, 0.2), (5, 0.3))
"""Multiples of the mains' frequency in a hum, and how strong each is: odd ones prevail, as transformers saturate."""


def _each(change: Callable[[Wave, int, np.random.Generator, int], Wave], name: str) -> Callable[..., Sounds]:
    """A change of one recording, for a batch: `change(wave, severity, generator, rate)`."""

    def apply(batch: Sounds, severity: int, seeds: Seeds, facts: Facts) -> Sounds:
        rate = next((one.rate for one in facts.values() if one.rate), USUAL_RATE)
        shifted = np.empty_like(batch)
        for index, generator in enumerate(generators(name, seeds)):
            shifted[index] = change(batch[index].astype(np.float64), severity - 1, generator, rate)
        return shifted

    return apply


def _quiet(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    return wave * QUIET[level]


def _loud(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    return np.clip(wave * LOUD[level], -1, 1)


def _clipping(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    most = CLIPPED[level] * np.abs(wave).max(initial=0.0)
    return np.clip(wave, -most, most)


def _background_noise(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    """Pink noise: a murmur, whose energy falls with the frequency as that of most surroundings does."""
    return _with(wave, _coloured(generator, wave.size, 0.5), RATIOS_DB[level])


def _hiss(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    return _with(wave, generator.standard_normal(wave.size), RATIOS_DB[level])


def _hum(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    times = np.arange(wave.size) / rate
    phases = generator.uniform(0, 2 * np.pi, len(_HARMONICS))
    tones = [
        strength * np.sin(2 * np.pi * _MAINS * multiple * times + phase)
        for (multiple, strength), phase in zip(_HARMONICS, phases, strict=True)
        if _MAINS * multiple < rate / 2
    ]
    return _with(wave, np.sum(tones, axis=0) if tones else np.zeros_like(wave), HUM_DB[level])


def _reverberation(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    """The recording in a room whose echoes have lost 60 dB after some time (RT60); its energy stays."""
    decay = DECAY_SECONDS[level]
    length = max(1, int(decay * rate))
    response = generator.standard_normal(length) * 10 ** (-3 * np.arange(length) / (decay * rate))
    response *= 0.5 / max(float(np.sqrt((response**2).sum())), 1e-12)
    response[0] += 1.0
    size = 1 << int(np.ceil(np.log2(max(2, wave.size + length - 1))))
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(response, size), size)[: wave.size]
    energy = float((wet**2).sum())
    return np.asarray(wet * np.sqrt(float((wave**2).sum()) / energy)) if energy > 0 else wave


def _band_limit(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    spectrum = np.fft.rfft(wave)
    spectrum[int(CUTOFFS[level] * len(spectrum)) :] = 0
    return np.asarray(np.fft.irfft(spectrum, wave.size))


def _silence(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    count = round(SILENT[level] * wave.size)
    start = int(generator.integers(0, wave.size - count + 1))
    cut = wave.copy()
    cut[start : start + count] = 0
    return cut


def _mu_law(wave: Wave, level: int, generator: np.random.Generator, rate: int) -> Wave:
    """Companded by mu = 255, rounded to few bits, expanded."""
    steps = 2 ** (BITS[level] - 1) - 1
    inside = np.clip(wave, -1, 1)
    companded = np.sign(inside) * np.log1p(255 * np.abs(inside)) / np.log(256)
    rounded = np.rint(companded * steps) / steps
    return np.asarray(np.sign(rounded) * np.expm1(np.abs(rounded) * np.log(256)) / 255)


def _coloured(generator: np.random.Generator, count: int, exponent: float) -> Wave:
    """Noise whose amplitude falls as frequency to the power -exponent."""
    spectrum = np.fft.rfft(generator.standard_normal(count))
    frequencies = np.maximum(np.arange(len(spectrum)), 1.0)
    return np.asarray(np.fft.irfft(spectrum / frequencies**exponent, count))


def _with(wave: Wave, noise: Wave, ratio_db: float) -> Wave:
    """The recording with noise, at a signal-to-noise ratio over the whole of it; clipped at full scale."""
    energy = float((noise**2).sum())
    if energy == 0:
        return wave
    gain = np.sqrt(float((wave**2).sum()) / energy) * 10 ** (-ratio_db / 20)
    return np.asarray(np.clip(wave + gain * noise, -1, 1))


_DEFINITIONS: tuple[tuple[str, str, Callable[..., Wave], str, str], ...] = (
    ("quiet", "gain", _quiet, "times 0.5, 0.3, 0.15, 0.1, 0.05", "ours"),
    ("loud", "gain", _loud, "times 1.5, 2, 3, 5, 8, clipped at full scale", "ours"),
    ("clipping", "clipping", _clipping, "clipped at 0.5, 0.3, 0.2, 0.1, 0.05 of its peak", "ours"),
    ("background_noise", "noise", _background_noise, "pink noise, 20, 15, 10, 5, 0 dB below it", "ours"),
    ("hiss", "noise", _hiss, "white noise, 20, 15, 10, 5, 0 dB below it", "ours"),
    ("hum", "hum", _hum, "50 Hz and its multiples, 30, 25, 20, 15, 10 dB below it", "ours"),
    (
        "reverberation",
        "room",
        _reverberation,
        "a room of RT60 0.15, 0.3, 0.5, 0.8, 1.2 s, its energy kept",
        "ours, after Moorer, About this reverberation business (1979)",
    ),
    ("band_limit", "band", _band_limit, "nothing above 0.9, 0.8, 0.7, 0.55, 0.4 of the band", "ours"),
    ("silence", "silence", _silence, "0.2, 0.4, 0.6, 0.8, all of it silent", "ours"),
    ("mu_law", "codec", _mu_law, "companded to 8, 7, 6, 5, 4 bits", "ours, after ITU-T G.711, mu = 255"),
)
for _name, _family, _change, _summary, _source in _DEFINITIONS:
    SHIFTS.register(
        Shift(
            name=_name,
            family=_family,
            modality="audio",
            apply=_each(_change, _name),
            summary=_summary,
            source=_source,
            seeded=_name in ("background_noise", "hiss", "hum", "reverberation", "silence"),
            informed=True,
        )
    )
