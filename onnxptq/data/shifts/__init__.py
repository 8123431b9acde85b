"""Shifts: seeded, pure changes of samples, for calibration sets and evaluation groups alike."""

from __future__ import annotations

from onnxptq.data.shifts._apply import Images, Texts, apply_shift, generators, parse_shift, sample_seeds
from onnxptq.data.shifts._base import DEFINITIONS, KINDS, SHIFTS, Batch, Facts, InputFacts, Seeds, Shift

__all__ = [
    "DEFINITIONS",
    "KINDS",
    "SHIFTS",
    "Batch",
    "Facts",
    "Images",
    "InputFacts",
    "Seeds",
    "Shift",
    "Texts",
    "apply_shift",
    "generators",
    "parse_shift",
    "sample_seeds",
]
