"""Operators: what stays in float, what has no INT8 kernel, what a provider does not know."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from onnxptq.graphs.parts import STANDARD_DOMAINS
from onnxptq.graphs.view import MICROSOFT, GraphView, is_dequantize, is_quantize
from onnxptq.lint._base import Place, everywhere, rule

_MEASURED = "measured: ONNX Runtime 1.31.1 and OpenVINO 2026.4 on x86-64 (docs/lint.md)"
_OPERATORS_OF_TENSORRT = "https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md"
_RULES_OF_CPU = (
    "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/qdq_transformer/"
    "selectors_actions/qdq_selector_action_transformer.cc"
)
_PLACEMENT_OF_TENSORRT = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)
_DYNAMIC = frozenset(
    {"DynamicQuantizeLinear", "DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulInteger", "ConvInteger"}
    | {"MatMulIntegerToFloat", "QAttention"}
)
_OPERATOR_FORMAT = ("QLinear", "QGemm")
_KERNELS_OF_CPU = frozenset(
    {
        "Conv",
        "Gemm",
        "MatMul",
        "Add",
        "Mul",
        "Concat",
        "Split",
        "Where",
        "AveragePool",
        "GlobalAveragePool",
        "LeakyRelu",
    }
    | {"Sigmoid", "Softmax", "MaxPool", "ReduceMax", "ReduceMin", "Resize", "ArgMax", "Expand", "Flatten", "Gather"}
    | {"GatherElements", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
"""Operators that ONNX Runtime 1.31 turns into integer ones between DQ and Q (`qdq_selector_action_transformer.cc`)."""

_NO_ARITHMETIC = frozenset(
    {
        "QuantizeLinear",
        "DequantizeLinear",
        "Constant",
        "Identity",
        "Cast",
        "Shape",
        "Concat",
        "Gather",
        "Reshape",
        "Slice",
    }
    | {
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Transpose",
        "Expand",
        "Pad",
        "Conv",
        "ConvTranspose",
        "Gemm",
        "MatMul",
    }
    | {"Relu", "Clip", "MaxPool"}
)
"""Operators that only move or compare values, or that INT8 kernels take in."""

_JUDGED_ELSEWHERE = frozenset({"Relu", "Clip"})


@rule(
    "QDQ301",
    "weighted operator left in float",
    everywhere("warning"),
    why="Conv, ConvTranspose, Gemm and MatMul are what INT8 speeds up; this one has no Q and DQ at its inputs.",
    source=_PLACEMENT_OF_TENSORRT,
    remedy="Quantize it, or leave it so if it was excluded on purpose.",
)
def float_operator(graph: GraphView, target: str) -> Iterator[Place]:
    """A weighted operator without a DQ at its first two inputs, in a quantized graph."""
    if not graph.dequantizes:
        return
    for node in graph.weighted:
        if len(node.input) > 1 and all(graph.dequantize(name) is None for name in node.input[:2]):
            yield Place(graph.label(node), "its inputs are in float")


@rule(
    "QDQ302",
    "weighted operator with one input in float",
    everywhere("warning"),
    why="INT8 kernels need activation and weight in INT8: with one of them in float the node is computed in float.",
    source=_PLACEMENT_OF_TENSORRT,
    remedy="Quantize both inputs, or none.",
)
def half_float_operator(graph: GraphView, target: str) -> Iterator[Place]:
    """A weighted operator with a DQ at exactly one of its first two inputs."""
    for node in graph.weighted:
        quantized = [graph.dequantize(name) is not None for name in node.input[:2]]
        if target == "cpu" and _weight_quantized_by_runtime(graph, node):
            continue
        if quantized.count(True) == 1 and len(quantized) == 2:
            yield Place(graph.label(node), f"{node.input[quantized.index(False)]} is in float")


@rule(
    "QDQ310",
    "float weight that ONNX Runtime quantizes itself",
    {"cpu": "note"},
    why="Between a DQ and a Q the CPU provider quantizes a float weight when the model is loaded, with one scale for "
    "the whole tensor: fast, but channels of different size lose accuracy. Older versions compute in float.",
    source=_MEASURED,
    remedy="Quantize the weight into the file, with one scale a channel.",
)
def runtime_weight(graph: GraphView, target: str) -> Iterator[Place]:
    """A Conv or Gemm between DQ and Q with a constant float weight."""
    for node in graph.weighted:
        if _weight_quantized_by_runtime(graph, node):
            yield Place(graph.label(node), f"its weight {node.input[1]} is in float")


@rule(
    "QDQ303",
    "float model",
    everywhere("warning"),
    why="The graph has no quantized operator at all: every provider computes it in float.",
    source="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
    remedy="Quantize it first: onnxptq quantize MODEL.",
)
def float_model(graph: GraphView, target: str) -> Iterator[Place]:
    """A main graph with weighted operators and nothing quantized, here or in a subgraph or function."""
    if graph.name or graph.model_is_quantized or graph.dequantizes or not graph.weighted:
        return
    if not any(_is_dynamic(node) or _is_operator_format(node) for node in graph.nodes):
        yield Place("", f"{len(graph.weighted)} Conv, Gemm and MatMul nodes, none quantized")


@rule(
    "QDQ304",
    "INT8 that the CUDA provider computes in float",
    {"cuda": "warning"},
    why="The CUDA provider has no INT8 kernels for Q and DQ graphs: it dequantizes, computes in float and quantizes "
    "again. Accuracy is that of INT8, speed is below that of the float model.",
    source="https://github.com/microsoft/onnxruntime/issues/24807",
    remedy="Use the TensorRT provider for speed (onnxptq quantize --target tensorrt), or the float model in FP16.",
)
def float_on_cuda(graph: GraphView, target: str) -> Iterator[Place]:
    """A main graph with quantized weighted operators; one finding."""
    quantized = [n for n in graph.weighted if any(graph.dequantize(name) is not None for name in n.input[:2])]
    if not graph.name and quantized:
        yield Place("", f"{len(quantized)} quantized Conv, Gemm and MatMul nodes run in float")


@rule(
    "QDQ305",
    "operator without an INT8 kernel between DQ and Q",
    {"cpu": "note"},
    why="The CPU provider computes it in float between the DQ and the Q.",
    source=_RULES_OF_CPU,
    remedy="Harmless for small tensors; else leave it in float (--exclude) or replace it by an operator with a kernel.",
)
def no_kernel(graph: GraphView, target: str) -> Iterator[Place]:
    """An operator with DQ before and Q after it that is not in the CPU provider's list."""
    for node in graph.nodes:
        if node.op_type in _KERNELS_OF_CPU | _JUDGED_ELSEWHERE or is_quantize(node) or is_dequantize(node):
            continue
        before = bool(node.input) and graph.dequantize(node.input[0]) is not None
        after = any(is_quantize(reader) for output in node.output for reader, _ in graph.readers(output))
        if before and after:
            yield Place(graph.label(node), f"{node.op_type} has no INT8 kernel")


@rule(
    "QDQ306",
    "dynamic quantization",
    {"tensorrt": "error", "cuda": "warning", "openvino": "warning"},
    why="Scales are computed at run time by operators that TensorRT's parser does not know and that the CUDA provider "
    "mostly leaves to the CPU.",
    source="https://github.com/NVIDIA/TensorRT/issues/4698",
    remedy="Quantize statically, with calibration data (onnxptq quantize).",
)
def dynamic_quantization(graph: GraphView, target: str) -> Iterator[Place]:
    """DynamicQuantizeLinear, MatMulInteger, ConvInteger and their relatives."""
    for node in graph.nodes:
        if _is_dynamic(node):
            yield Place(graph.label(node), f"{node.op_type} quantizes at run time")


@rule(
    "QDQ307",
    "operator-oriented quantization",
    {"tensorrt": "error", "cuda": "warning"},
    why="QLinearConv and its relatives are kernels of the CPU provider. TensorRT's parser has no importer for them, "
    "and the CUDA provider leaves them to the CPU.",
    source="https://github.com/onnx/onnx-tensorrt/issues/560",
    remedy="Quantize into Q and DQ (QuantFormat.QDQ, which onnxptq always does).",
)
def operator_format(graph: GraphView, target: str) -> Iterator[Place]:
    """QLinearConv, QLinearMatMul, QGemm, com.microsoft's QLinearAdd ..."""
    for node in graph.nodes:
        if _is_operator_format(node):
            yield Place(graph.label(node), f"{node.op_type} is no Q and DQ")


@rule(
    "QDQ308",
    "quantized weight computed at run time",
    {"tensorrt": "warning", "openvino": "warning"},
    why="Weights are laid out for INT8 kernels when the model is built; what is computed later is multiplied in float.",
    source=_MEASURED,
    remedy="Fold the constants that lead to it before quantizing (onnxptq does).",
)
def computed_weight(graph: GraphView, target: str) -> Iterator[Place]:
    """A Conv, ConvTranspose or Gemm with a DQ on a second input that is no constant."""
    for node in graph.weighted:
        if node.op_type == "MatMul" or len(node.input) < 2:
            continue
        if graph.dequantize(node.input[1]) is not None and graph.weight(node.input[1]) is None:
            yield Place(graph.label(node), f"its weight {node.input[1]} is no constant")


@rule(
    "QDQ309",
    "operator outside of ONNX",
    {"tensorrt": "warning", "openvino": "note"},
    why="Operators of other domains are ONNX Runtime's or your own; where the provider does not know them, the graph "
    "is cut there and the rest goes back and forth between providers.",
    source="https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html",
    remedy="Export without fused contrib operators (quantize before optimising), or keep this part on the CPU.",
)
def other_domain(graph: GraphView, target: str) -> Iterator[Place]:
    """An operator of another domain that is no function of the model and no quantized operator."""
    for node in graph.nodes:
        if node.domain in STANDARD_DOMAINS or (node.domain, node.op_type) in graph.functions:
            continue
        if not (is_quantize(node) or is_dequantize(node) or _is_dynamic(node) or _is_operator_format(node)):
            yield Place(graph.label(node), f"its domain is {node.domain}")


@rule(
    "QDQ311",
    "remainder in FP32 in a strongly typed network",
    {"tensorrt11": "note"},
    why="TensorRT 11 computes every operator in the type that the graph gives it. It has no flag for FP16 any more: "
    "what has no Q and DQ in an FP32 graph runs in FP32.",
    source="https://docs.nvidia.com/deeplearning/tensorrt/latest/api/migration/tensorrt-10x-to-11x.html",
    remedy="Quantize with --remainder fp16, or convert the file (python -m modelopt.onnx.autocast) and judge it "
    "again: its numbers are others.",
)
def remainder_in_fp32(graph: GraphView, target: str) -> Iterator[Place]:
    """A quantized main graph with operators that compute in FP32: none of its constants is FP16."""
    from onnx import TensorProto

    if graph.name or not graph.dequantizes:
        return
    scales = [graph.constant(node.input[1]) for node in graph.dequantizes]
    if any(scale is not None and scale.data_type == TensorProto.FLOAT16 for scale in scales):
        return
    plain = [node for node in graph.nodes if node.op_type not in _NO_ARITHMETIC]
    if plain:
        kinds = sorted({node.op_type for node in plain})
        yield Place("", f"{len(plain)} operators without Q and DQ ({', '.join(kinds[:5])})")


def _weight_quantized_by_runtime(graph: GraphView, node: Any) -> bool:
    """Whether ONNX Runtime's `WeightBiasQuantization` applies: DQ, Conv or Gemm of a float constant, Q."""
    if node.op_type not in ("Conv", "ConvTranspose", "Gemm") or len(node.input) < 2:
        return False
    between = graph.dequantize(node.input[0]) is not None and graph.constant(node.input[1]) is not None
    return between and any(is_quantize(reader) for reader, _ in graph.readers(node.output[0]))


def _is_dynamic(node: Any) -> bool:
    return node.op_type in _DYNAMIC and (node.domain in STANDARD_DOMAINS or node.domain == MICROSOFT)


def _is_operator_format(node: Any) -> bool:
    known = node.domain in STANDARD_DOMAINS or node.domain == MICROSOFT
    return known and bool(node.op_type.startswith(_OPERATOR_FORMAT))
