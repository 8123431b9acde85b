"""Types and versions: zero points, unsigned and 16-bit integers, 4-bit weights, 8-bit floats, opset, domain."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from onnxptq.graphs.view import MICROSOFT, GraphView
from onnxptq.lint._base import Place, rule

_TYPES_OF_TENSORRT = "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/work-quantized-types.html"
_RULES_OF_CPU = (
    "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/qdq_transformer/"
    "selectors_actions/qdq_selector_action_transformer.cc"
)

_FIRST_OPSET_OF_TENSORRT = 9
_LAST_OPSETS_OF_TENSORRT = {"tensorrt": 24, "tensorrt11": 25}


@rule(
    "QDQ101",
    "zero point that is not zero",
    {"tensorrt": "error"},
    why="TensorRT quantizes symmetrically; its parser refuses a zero point other than 0.",
    source="https://github.com/NVIDIA/TensorRT/issues/2774",
    remedy="Quantize with ActivationSymmetric and WeightSymmetric (onnxptq quantize --target tensorrt).",
)
def zero_point_not_zero(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ whose zero point has a value other than 0."""
    for node, parameters in graph.parametrised():
        zero = parameters.zero_point
        if zero is not None and np.any(zero):
            yield Place(graph.label(node), f"zero point {_shown(zero)}")


@rule(
    "QDQ102",
    "unsigned 8-bit integers",
    {"tensorrt": "error"},
    why="TensorRT has signed INT8 only: its parser refuses UINT8, or reads it as INT8 and clips the upper half.",
    source=_TYPES_OF_TENSORRT,
    remedy="Use QInt8 for activations and weights (onnxptq quantize --target tensorrt).",
)
def unsigned(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ of UINT8."""
    yield from _of_types(graph, ("UINT8",))


@rule(
    "QDQ103",
    "16-bit integers",
    {"tensorrt": "error", "cpu": "warning", "cuda": "warning", "openvino": "warning"},
    why="TensorRT has no 16-bit quantization; the CPU provider and OpenVINO compute such operators in float, and the "
    "CUDA provider has no 16-bit Q and DQ kernels.",
    source=_RULES_OF_CPU,
    remedy="Use 8-bit activations; leave the sensitive operators in float (--exclude).",
)
def sixteen_bits(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ of INT16 or UINT16."""
    yield from _of_types(graph, ("INT16", "UINT16"))


@rule(
    "QDQ104",
    "integers of 2 or 4 bits",
    {"tensorrt": "warning", "cpu": "warning", "cuda": "warning", "openvino": "warning"},
    why="4-bit weights save memory only: Conv and Gemm are computed in float. TensorRT takes INT4 for the weights of "
    "matrix products alone.",
    source=_TYPES_OF_TENSORRT,
    remedy="Use QInt8 weights where speed is the goal.",
)
def few_bits(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ of INT4, UINT4, INT2 or UINT2."""
    yield from _of_types(graph, ("INT4", "UINT4", "INT2", "UINT2"))


@rule(
    "QDQ105",
    "8-bit floats",
    {"cpu": "error", "cuda": "warning", "openvino": "warning"},
    why="The CPU provider of ONNX Runtime 1.31 builds an invalid graph from float8 Q and DQ and refuses to load it; "
    "OpenVINO and CUDA convert and compute in float.",
    source="measured: ONNX Runtime 1.31.1 and OpenVINO 2026.4 on x86-64 (docs/lint.md)",
    remedy="Use QInt8; keep float8 for TensorRT.",
)
def float8(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ of an 8-bit float."""
    yield from _of_types(graph, ("FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"))


@rule(
    "QDQ106",
    "opset outside of what TensorRT parses",
    {"tensorrt": "warning"},
    why=f"The parser of TensorRT 10 knows opset {_FIRST_OPSET_OF_TENSORRT} to {_LAST_OPSETS_OF_TENSORRT['tensorrt']}, "
    f"that of TensorRT 11 to {_LAST_OPSETS_OF_TENSORRT['tensorrt11']}; operators of other versions fall back to CUDA "
    "or the CPU, or are misread.",
    source="https://docs.nvidia.com/deeplearning/tensorrt/latest/reference/onnx-opset-guide.html",
    remedy="Export with a supported opset, or convert it with onnx.version_converter.",
)
def opset(graph: GraphView, target: str) -> Iterator[Place]:
    """A main graph of an unsupported opset."""
    if not graph.name and not _FIRST_OPSET_OF_TENSORRT <= graph.opset <= _LAST_OPSETS_OF_TENSORRT[target]:
        yield Place("", f"opset {graph.opset}")


@rule(
    "QDQ107",
    "Q and DQ of com.microsoft",
    {"tensorrt": "warning"},
    why="QuantizeLinear and DequantizeLinear of the domain com.microsoft are ONNX Runtime's own; TensorRT's "
    "documentation lists those of ONNX only.",
    source="https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md",
    remedy="Quantize without UseQDQContribOps; for 16-bit types use opset 21 or newer.",
)
def microsoft_domain(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ outside of ONNX's own domain."""
    for node in graph.quantizes + graph.dequantizes:
        if node.domain == MICROSOFT:
            yield Place(graph.label(node), "its domain is com.microsoft")


def _of_types(graph: GraphView, names: tuple[str, ...]) -> Iterator[Place]:
    from onnx import TensorProto

    types = {TensorProto.DataType.Value(name): name for name in names if name in TensorProto.DataType.keys()}  # noqa: SIM118
    for node, parameters in graph.parametrised():
        if parameters.type in types:
            yield Place(graph.label(node), f"its type is {types[parameters.type]}")


def _shown(values: Any) -> str:
    flat = np.unique(values)
    return str(int(flat[0])) if flat.size == 1 else f"between {int(flat[0])} and {int(flat[-1])}"
