"""Calibration: the sets that samples are drawn as, the readers that feed them, statistics and range methods."""

from __future__ import annotations

from onnxptq.calibrators._reader import SampleReader
from onnxptq.calibrators.sampler import SAMPLERS, Pool, Sampler
from onnxptq.calibrators.samples import CalibrationSamples
from onnxptq.calibrators.sets import ALIASES, PARTS, CalibrationSet, meant_for

__all__ = [
    "ALIASES",
    "PARTS",
    "SAMPLERS",
    "CalibrationSamples",
    "CalibrationSet",
    "Pool",
    "SampleReader",
    "Sampler",
    "meant_for",
]
