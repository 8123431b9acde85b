"""Comparison: the same samples through several models on several runtimes, and what differs."""

from __future__ import annotations

from onnxptq.comparison.compare import CompareSettings, compare_runtimes
from onnxptq.comparison.result import Cause, Comparison, DependentGroup, ProviderFlips, Row, Speed

__all__ = [
    "Cause",
    "CompareSettings",
    "Comparison",
    "DependentGroup",
    "ProviderFlips",
    "Row",
    "Speed",
    "compare_runtimes",
]
