"""Copies of recordings that fill the range of a waveform: what the robust methods calibrate on beside a set.

A quiet recording, brought to full scale, reaches what a loud one reaches; a silent one has nothing to bring there, and
becomes noise. Their samples need not sound like anything: they only have to reach where samples can reach.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts._apply import generators
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift

Sounds = npt.NDArray[np.float32]

SILENCE = 1e-4
"""Peak below which a recording holds nothing to be brought up: the last bit of 14."""


def full_scale(batch: Sounds, severity: int, seeds: Seeds) -> Sounds:
    """Each recording about its mean, times what brings its peak to 1; silent ones become white noise of peak 1."""
    filled = np.empty_like(batch)
    for index, generator in enumerate(generators("full_scale", seeds)):
        wave = batch[index].astype(np.float64)
        wave -= wave.mean() if wave.size else 0.0
        if np.abs(wave).max(initial=0.0) < SILENCE:
            wave = generator.standard_normal(wave.size)
        filled[index] = wave / max(float(np.abs(wave).max(initial=0.0)), 1e-12)
    return filled


def reverse(batch: Sounds, severity: int, seeds: Seeds) -> Sounds:
    """Each recording backwards in time."""
    return np.ascontiguousarray(batch[:, ::-1])


def polarity(batch: Sounds, severity: int, seeds: Seeds) -> Sounds:
    """Each recording times -1: what a microphone that is wired the other way gives."""
    return -batch


def overlap(batch: Sounds, severity: int, seeds: Seeds, partners: Sounds) -> Sounds:
    """Each recording with another one on top, both at full scale, halved."""
    return np.float32(0.5) * (full_scale(batch, severity, seeds) + full_scale(partners, severity, seeds))


_COPIES = (
    (full_scale, "each recording brought to full scale; silence becomes noise (the same at every severity)", True),
    (reverse, "each recording backwards (the same at every severity)", False),
    (polarity, "each recording times -1 (the same at every severity)", False),
    (overlap, "two recordings at full scale on top of each other (the same at every severity)", True),
)
for _apply, _summary, _seeded in _COPIES:
    SHIFTS.register(
        Shift(
            name=_apply.__name__,
            family="augmentation",
            modality="audio",
            apply=_apply,
            summary=_summary,
            source="ours",
            mixes=_apply is overlap,
            seeded=_seeded,
        )
    )
