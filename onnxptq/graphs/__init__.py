"""ONNX files: load and check, fold for quantization, digest, and the provenance that an INT8 model carries."""

from __future__ import annotations

from onnxptq.graphs.fold import fold
from onnxptq.graphs.load import Model, load_model
from onnxptq.graphs.provenance import Provenance, read_provenance, write_with_provenance

__all__ = ["Model", "Provenance", "fold", "load_model", "read_provenance", "write_with_provenance"]
