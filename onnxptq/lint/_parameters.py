"""Scales and zero points: their values, their number, and the axis that they lie along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from onnxptq.graphs.view import WEIGHTED, GraphView, Parameters, attribute
from onnxptq.lint._base import Place, everywhere, rule

_ONNX = "https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html"
_MEASURED = "measured: ONNX Runtime 1.31.1 and OpenVINO 2026.4 on x86-64 (docs/lint.md)"
_PARSER_OF_TENSORRT = "https://github.com/onnx/onnx-tensorrt/blob/main/onnxOpImporters.cpp"
_DENORMALS = (
    "https://github.com/microsoft/onnxruntime/blob/main/include/onnxruntime/core/session/"
    "onnxruntime_session_options_config_keys.h"
)
_SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


@rule(
    "QDQ111",
    "scale that is zero, negative or not finite",
    everywhere("error"),
    why="Dividing by it gives infinity, NaN or mirrored values; TensorRT's parser refuses it, others compute nonsense.",
    source=_PARSER_OF_TENSORRT,
    remedy="The range of this tensor was empty or broken: calibrate with data that reaches it.",
)
def scale_not_positive(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ with such a scale."""
    for node, parameters in graph.parametrised():
        scale = parameters.scale
        if scale is not None and not (np.isfinite(scale) & (scale > 0)).all():
            bad = scale[~(np.isfinite(scale) & (scale > 0))]
            yield Place(graph.label(node), f"scale {bad.flat[0]:g}" + _among(bad.size, scale.size))


@rule(
    "QDQ112",
    "denormal scale",
    everywhere("warning"),
    why="Where denormals are flushed to zero it is a division by zero; the tensor was almost constant in calibration.",
    source=_DENORMALS,
    remedy="Calibrate with data that reaches this tensor, or set MinimumRealRange.",
)
def denormal_scale(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ with a positive scale below the smallest normal float32."""
    for node, parameters in graph.parametrised():
        scale = parameters.scale
        if scale is not None and ((scale > 0) & (scale < _SMALLEST_NORMAL)).any():
            yield Place(graph.label(node), f"scale {scale[scale > 0].min():g}")


@rule(
    "QDQ113",
    "scale or zero point computed at run time",
    {"tensorrt": "warning", "openvino": "warning"},
    why="OpenVINO computes what follows in float; TensorRT folds Q and DQ into kernels when the scale is a constant.",
    source=_MEASURED,
    remedy="Quantize statically (onnxptq quantize), or fold constants first.",
)
def computed_parameters(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ whose scale or zero point is no constant."""
    for node, parameters in graph.parametrised():
        if not parameters.constant:
            yield Place(graph.label(node), "its scale or zero point is no constant")


@rule(
    "QDQ114",
    "scale and zero point of different shapes",
    everywhere("error"),
    why="ONNX wants one zero point for each scale; ONNX Runtime and TensorRT refuse the node.",
    source=_ONNX,
    remedy="Write as many zero points as scales.",
)
def shapes_differ(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ whose scale and zero point have different numbers of values."""
    for node, parameters in graph.parametrised():
        scale, zero = parameters.scale, parameters.zero_point
        if scale is not None and zero is not None and scale.size != zero.size:
            yield Place(graph.label(node), f"{scale.size} scales and {zero.size} zero points")


@rule(
    "QDQ115",
    "activation with one scale a channel",
    {"tensorrt": "error", "cpu": "error", "openvino": "warning"},
    why="Activations have one scale a tensor. The CPU provider fuses such a graph and fails when it runs, TensorRT has "
    "no kernel, OpenVINO computes in float.",
    source=_MEASURED,
    remedy="Give weights one scale a channel, activations one scale a tensor.",
)
def activation_per_channel(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ of several scales on what is computed."""
    for node in graph.quantizes:
        parameters = graph.parameters(node)
        if parameters.per_channel and graph.constant(node.input[0]) is None:
            assert parameters.scale is not None
            yield Place(graph.label(node), f"{parameters.scale.size} scales on the activation {node.input[0]}")


@rule(
    "QDQ116",
    "weight scales along a wrong axis",
    {"cpu": "error", "tensorrt": "warning", "openvino": "warning"},
    why="INT8 kernels take one scale an output channel. The CPU provider fuses such a node all the same and silently "
    "computes something else where the numbers of channels agree; OpenVINO computes in float.",
    source=_MEASURED,
    remedy="Conv: axis 0. ConvTranspose: axis 1. MatMul: the last axis. Gemm: axis 1, with transB=1 axis 0.",
)
def wrong_axis(graph: GraphView, target: str) -> Iterator[Place]:
    """DQ on the weight of a Conv, Gemm ... along another axis than the output channels."""
    for node, dequantize, weight in quantized_weights(graph):
        parameters = graph.parameters(dequantize)
        if not _along_an_axis(parameters):
            continue
        wanted = _channel_axis(node, len(weight.dims))
        found = parameters.axis % max(len(weight.dims), 1)
        if found != wanted:
            yield Place(graph.label(node), f"its weight {weight.name} has its scales along axis {found}, not {wanted}")


@rule(
    "QDQ117",
    "number of weight scales is not the number of channels",
    everywhere("error"),
    why="ONNX wants as many scales as the weight has entries along the axis; every provider refuses the node.",
    source=_ONNX,
    remedy="Write one scale a channel, or one for the whole tensor.",
)
def number_of_scales(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ on a weight with a wrong number of scales."""
    for node, parameters in graph.parametrised():
        weight = graph.constant(node.input[0])
        if weight is None or not _along_an_axis(parameters) or not weight.dims:
            continue
        assert parameters.scale is not None
        axis = parameters.axis
        length = weight.dims[axis] if -len(weight.dims) <= axis < len(weight.dims) else 0
        if parameters.scale.size != length:
            yield Place(graph.label(node), f"{parameters.scale.size} scales for {length} entries along axis {axis}")


@rule(
    "QDQ118",
    "weight with a zero point that is not zero",
    {"openvino": "warning"},
    why="OpenVINO computes a Conv or MatMul with asymmetric weights in float. QUInt8 weights have zero point 128.",
    source=_MEASURED,
    remedy="Use QInt8 weights with WeightSymmetric, the quantizer's default.",
)
def asymmetric_weight(graph: GraphView, target: str) -> Iterator[Place]:
    """DQ with such a zero point on the weight of a Conv, Gemm ..."""
    for node, dequantize, weight in quantized_weights(graph):
        zero = graph.parameters(dequantize).zero_point
        if zero is not None and np.any(zero):
            yield Place(
                graph.label(node), f"its weight {weight.name} has the zero point {int(zero[zero != 0].flat[0])}"
            )


@rule(
    "QDQ119",
    "scales in external data",
    everywhere("note"),
    why="Lint reads the graph alone, never files beside it: these scales and zero points were not checked.",
    source="https://onnx.ai/onnx/repo-docs/ExternalData.html",
    remedy="Save the model with small tensors inside (onnx.save_model with size_threshold=65536).",
)
def unread_parameters(graph: GraphView, target: str) -> Iterator[Place]:
    """Q and DQ whose scale or zero point is a constant that was not read."""
    for node, parameters in graph.parametrised():
        if parameters.constant and parameters.scale is None:
            yield Place(graph.label(node), f"the scale {node.input[1]} was not read")


def quantized_weights(graph: GraphView) -> Iterator[tuple[Any, Any, Any]]:
    """(node, DQ, weight) for the constant second input of every Conv, ConvTranspose, Gemm and MatMul."""
    for node in graph.weighted:
        dequantize = graph.dequantize(node.input[1]) if len(node.input) > 1 else None
        weight = graph.weight(node.input[1]) if dequantize is not None else None
        if weight is not None:
            yield node, dequantize, weight


def _along_an_axis(parameters: Parameters) -> bool:
    return parameters.per_channel and parameters.scale is not None and parameters.scale.ndim == 1


def _channel_axis(node: Any, rank: int) -> int:
    assert node.op_type in WEIGHTED
    if node.op_type == "Conv":
        return 0
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    return 1 if node.op_type == "ConvTranspose" else max(rank - 1, 0)


def _among(bad: int, total: int) -> str:
    return f" ({bad} of {total} scales)" if total > 1 else ""
