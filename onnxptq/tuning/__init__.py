"""Tuning: the INT8 file that passes a policy, and the proof on samples that no choice has seen."""

from __future__ import annotations

from onnxptq.tuning.result import Candidate, Tuned
from onnxptq.tuning.tune import METHODS, tune

__all__ = ["METHODS", "Candidate", "Tuned", "tune"]
