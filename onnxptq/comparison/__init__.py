"""Comparison: the same samples through several models on several runtimes, and what differs."""

from __future__ import annotations

from onnxptq.comparison.compare import CompareSettings, compare_runtimes
from onnxptq.comparison.result import Cause, Comparison, ComparisonRow, DependentGroup, ProviderFlips, Speed

__all__ = [
    "Cause",
    "CompareSettings",
    "Comparison",
    "ComparisonRow",
    "DependentGroup",
    "ProviderFlips",
    "Speed",
    "compare_runtimes",
]
