"""Which tensors and nodes of an INT8 file harm the worst group, and which nodes to keep in float."""

from __future__ import annotations

from onnxptq.diagnosis.diagnose import DiagnoseSettings, diagnose, diagnose_on
from onnxptq.diagnosis.result import Budget, Diagnosis, Effect, NodeEffect, TensorEffect

__all__ = ["Budget", "DiagnoseSettings", "Diagnosis", "Effect", "NodeEffect", "TensorEffect", "diagnose", "diagnose_on"]
