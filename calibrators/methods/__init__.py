"""Range methods: pure functions from one tensor's statistics to the range that its quantizer gets."""

from __future__ import annotations

from onnxptq.calibrators.methods._base import RANGE_METHODS, QuantizationType, Range, RangeMethod

__all__ = ["RANGE_METHODS", "QuantizationType", "Range", "RangeMethod"]
