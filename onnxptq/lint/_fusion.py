"""What keeps INT8 kernels from being chosen: activations, float outputs, attributes, shared signed pairs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from onnxptq.graphs.parts import STANDARD_DOMAINS
from onnxptq.graphs.view import GraphView, attribute, is_dequantize, is_quantize
from onnxptq.lint._base import Place, rule

_MEASURED = "measured: ONNX Runtime 1.31.1 and OpenVINO 2026.4 on x86-64 (docs/lint.md)"
_PLACEMENT_OF_TENSORRT = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)
_SELECTORS_OF_CPU = (
    "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/qdq_transformer/"
    "selectors_actions/qdq_selectors.cc"
)
_FUSED_ACTIVATIONS = frozenset({"Relu", "Clip", "LeakyRelu", "Sigmoid", "Tanh", "HardSwish", "Elu", "Gelu", "Mish"})


@rule(
    "QDQ221",
    "Q and DQ between an operator and its activation function",
    {"tensorrt": "warning", "cpu": "warning"},
    why="TensorRT fuses Conv and Relu when nothing stands between them. On the CPU provider the Relu runs in float "
    "between DQ and Q. Either way the values are rounded twice.",
    source=_PLACEMENT_OF_TENSORRT,
    remedy="Quantize the output of the activation function alone (OpTypesToExcludeOutputQuantization: Conv, Gemm; "
    "on the CPU, asymmetric QUInt8 makes the Relu vanish).",
)
def pair_before_activation(graph: GraphView, target: str) -> Iterator[Place]:
    """Conv, Q, DQ, Relu, or Clip for the CPU; any activation function for TensorRT."""
    kinds = frozenset({"Relu", "Clip"}) if target == "cpu" else _FUSED_ACTIVATIONS
    for node in graph.nodes:
        if node.op_type not in kinds or node.domain not in STANDARD_DOMAINS:
            continue
        dequantize = graph.dequantize(node.input[0])
        quantize = graph.quantize_before(dequantize) if dequantize is not None else None
        producer = graph.producer(quantize.input[0]) if quantize is not None else None
        if producer is not None and (producer in graph.weighted or producer.op_type == "Add"):
            yield Place(graph.label(node), f"{graph.label(producer)} is quantized before it")


@rule(
    "QDQ222",
    "quantized Conv whose output stays in float",
    {"cpu": "warning"},
    why="The CPU provider replaces DQ, Conv, Q by one INT8 kernel when the Q is the one reader of the Conv, or of a "
    "Relu or Clip that the Q makes superfluous. Otherwise the Conv runs in float, on dequantized values.",
    source=_SELECTORS_OF_CPU,
    remedy="Quantize the Conv's own output; with asymmetric QUInt8 the quantizer removes Relu and Clip.",
)
def conv_without_quantize(graph: GraphView, target: str) -> Iterator[Place]:
    """A Conv with quantized inputs that no Q follows."""
    for node in graph.weighted:
        if node.op_type != "Conv" or not all(graph.dequantize(name) is not None for name in node.input[:2]):
            continue
        if (reason := _unquantized(graph, node)) is not None:
            yield Place(graph.label(node), reason)


@rule(
    "QDQ223",
    "Gemm that the CPU provider does not fuse",
    {"cpu": "warning"},
    why="With a bias, the INT8 Gemm takes alpha and beta of 1 only; and a bias in float is quantized on the fly where "
    "the output is quantized, not where it stays in float.",
    source=_SELECTORS_OF_CPU,
    remedy="Fold alpha and beta into weight and bias; quantize the bias (QuantizeBias=True), or the output.",
)
def gemm_not_fused(graph: GraphView, target: str) -> Iterator[Place]:
    """A Gemm with quantized inputs and a bias that keeps it in float."""
    for node in graph.weighted:
        if node.op_type != "Gemm" or len(node.input) < 3 or not node.input[2]:
            continue
        if not all(graph.dequantize(name) is not None for name in node.input[:2]):
            continue
        if attribute(node, "alpha", 1.0) != 1 or attribute(node, "beta", 1.0) != 1:
            yield Place(graph.label(node), "alpha or beta is not 1")
        elif graph.dequantize(node.input[2]) is None and not _read_by_quantize(graph, node):
            yield Place(graph.label(node), "its bias and its output are in float")


@rule(
    "QDQ224",
    "float bias, which older ONNX Runtimes do not fuse",
    {"cpu": "note"},
    why="ONNX Runtime quantizes a float bias itself since version 1.21; before that the Conv or Gemm runs in float.",
    source="https://github.com/microsoft/onnxruntime/pull/22889",
    remedy="Deploy with a newer ONNX Runtime, or quantize with QuantizeBias=True.",
)
def float_bias(graph: GraphView, target: str) -> Iterator[Place]:
    """A Conv or Gemm with quantized inputs and a float bias."""
    for node in graph.weighted:
        if len(node.input) < 3 or not node.input[2] or graph.dequantize(node.input[2]) is not None:
            continue
        if all(graph.dequantize(name) is not None for name in node.input[:2]):
            yield Place(graph.label(node), f"its bias {node.input[2]} is in float")


@rule(
    "QDQ225",
    "signed activation that x86 kernels cannot take over",
    {"cpu": "warning"},
    why="On x86 ONNX Runtime turns INT8 activations into UINT8, which its kernels need, but only where one Q is read "
    "by one DQ and that by one node, and not for constants: everything else stays in float.",
    source=_MEASURED,
    remedy="Use QUInt8 activations on the CPU (onnxptq quantize --target cpu).",
)
def signed_activation(graph: GraphView, target: str) -> Iterator[Place]:
    """A Q of INT8 with several readers, or an elementwise operator of it with a constant."""
    from onnx import TensorProto

    for node in graph.quantizes:
        if graph.parameters(node).type != TensorProto.INT8 or graph.constant(node.input[0]) is not None:
            continue
        pairs = [reader for reader, _ in graph.readers(node.output[0]) if is_dequantize(reader)]
        readers = [reader for pair in pairs for reader, _ in graph.readers(pair.output[0])]
        mixed = [reader for reader in readers if reader.op_type in ("Add", "Mul") and _has_constant(graph, reader)]
        if len(pairs) > 1 or len(readers) > 1:
            yield Place(graph.label(node), f"{max(len(pairs), len(readers))} readers of signed {node.input[0]}")
        elif mixed:
            yield Place(graph.label(mixed[0]), f"a constant beside signed {node.input[0]}")


@rule(
    "QDQ226",
    "product of two activations with a zero point",
    {"openvino": "warning"},
    why="OpenVINO multiplies two activations (attention) in INT8 when both zero points are 0, else in float.",
    source=_MEASURED,
    remedy="Use symmetric activations (onnxptq quantize --target openvino).",
)
def asymmetric_product(graph: GraphView, target: str) -> Iterator[Place]:
    """A MatMul of two quantized activations of which one has a zero point other than 0."""
    for node in graph.weighted:
        pairs = [pair for name in node.input[:2] if (pair := graph.dequantize(name)) is not None]
        if node.op_type != "MatMul" or len(pairs) < 2 or any(graph.weight(name) is not None for name in node.input):
            continue
        zeros = [graph.parameters(pair).zero_point for pair in pairs]
        if any(zero is not None and np.any(zero) for zero in zeros):
            yield Place(graph.label(node), "an input has a zero point other than 0")


def _unquantized(graph: GraphView, node: Any) -> str | None:
    """Why no INT8 kernel writes the output of `node`; None where one does."""
    output = node.output[0]
    readers = [reader for reader, _ in graph.readers(output)]
    if output in graph.outputs:
        return f"its output {output} is an output of the graph"
    if len(readers) != 1:
        return f"{len(readers)} nodes read its output {output}"
    if is_quantize(readers[0]):
        return None
    if readers[0].op_type in ("Relu", "Clip"):
        after = [reader for reader, _ in graph.readers(readers[0].output[0])]
        if len(after) == 1 and is_quantize(after[0]) and _makes_superfluous(graph, readers[0], after[0]):
            return None
    return f"{graph.label(readers[0])} reads its output in float"


def _makes_superfluous(graph: GraphView, activation: Any, quantize: Any) -> bool:
    """Whether the range of the Q lies within the limits of the Relu or Clip (`IsClipMadeRedundantByQ`)."""
    parameters = graph.parameters(quantize)
    limits = _integer_limits(parameters.type)
    scale, zero = parameters.scale, parameters.zero_point
    if scale is None or zero is None or limits is None or scale.size != 1 or zero.size != 1:
        return False
    least, most = ((limit - float(zero.flat[0])) * float(scale.flat[0]) for limit in limits)
    low, high = 0.0, np.inf
    if activation.op_type == "Clip":
        low, high = (_limit(graph, activation, i, default) for i, default in ((1, -np.inf), (2, np.inf)))
    slack = 1e-4 * (most - least)
    return low <= least + slack and most - slack <= high


def _integer_limits(data_type: int) -> tuple[float, float] | None:
    from onnx import TensorProto

    limits: dict[int, tuple[float, float]] = {TensorProto.UINT8: (0.0, 255.0), TensorProto.INT8: (-128.0, 127.0)}
    return limits.get(data_type)


def _limit(graph: GraphView, clip: Any, position: int, default: float) -> float:
    if len(clip.input) <= position or not clip.input[position]:
        return default
    values = graph.values(clip.input[position])
    return float(values.flat[0]) if values is not None and values.size == 1 else np.nan


def _read_by_quantize(graph: GraphView, node: Any) -> bool:
    return any(is_quantize(reader) for reader, _ in graph.readers(node.output[0]))


def _has_constant(graph: GraphView, node: Any) -> bool:
    return any(graph.weight(name) is not None for name in node.input)
