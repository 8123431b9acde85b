"""Integers that do not fit: saturating products, clipped biases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from onnxptq.graphs.post_processing import joined_quantities
from onnxptq.graphs.view import GraphView, is_quantize
from onnxptq.lint._base import Place, rule
from onnxptq.lint._parameters import quantized_weights

_SEVEN_BITS = 64
_INT32 = np.iinfo(np.int32)


@rule(
    "QDQ401",
    "U8S8 products that can saturate",
    {"cpu": "note"},
    why="Without VNNI, x86 adds two products of uint8 and int8 in INT16, which clips above 32767: weights of more than "
    "7 bits can then change the result, without a word.",
    source="https://github.com/microsoft/onnxruntime/issues/5849",
    remedy="For such CPUs quantize with reduce_range (7-bit weights), or set session.x64quantprecision; `onnxptq "
    "providers` tells whether this machine saturates.",
)
def saturation(graph: GraphView, target: str) -> Iterator[Place]:
    """A weighted operator with unsigned activations and signed weights beyond 7 bits; one finding for them all."""
    from onnx import TensorProto

    found = []
    for node, dequantize, weight in quantized_weights(graph):
        activation = graph.dequantize(node.input[0])
        types = [graph.parameters(each).type for each in (activation, dequantize) if each is not None]
        if types == [TensorProto.UINT8, TensorProto.INT8]:
            values = graph.values(weight.name) if weight.data_type == TensorProto.INT8 else None
            if values is None or np.abs(values).max(initial=0) > _SEVEN_BITS:
                found.append(graph.label(node))
    if found:
        yield Place("", f"{len(found)} nodes, the first is {found[0]}")


@rule(
    "QDQ402",
    "int32 bias at its limit",
    {"cpu": "warning", "openvino": "warning"},
    why="The scale of the bias is so small that the bias was clipped to int32: the channel adds a wrong constant.",
    source="https://github.com/microsoft/onnxruntime/pull/22020",
    remedy="Quantize without QDQDisableWeightAdjustForInt32Bias, or leave this node in float (--exclude).",
)
def clipped_bias(graph: GraphView, target: str) -> Iterator[Place]:
    """A quantized bias with a value at the end of the int32 range."""
    from onnx import TensorProto

    for node in graph.dequantizes:
        tensor = graph.constant(node.input[0])
        if tensor is None or tensor.data_type != TensorProto.INT32:
            continue
        values = graph.values(node.input[0])
        if values is not None and ((values <= _INT32.min + 1) | (values >= _INT32.max)).any():
            yield Place(graph.label(node), f"{node.input[0]} has a value at the limit of int32")


_LEVELS = 32
"""Steps that are left between 0 and 1 where scores can still be told apart, roughly."""


@rule(
    "QDQ403",
    "one scale for boxes and scores",
    {"cpu": "warning", "cuda": "warning", "tensorrt": "warning", "openvino": "warning"},
    why="A detector joins boxes (0 to 640) and scores (0 to 1) in one tensor: its one scale serves the boxes, and "
    "hardly a step is left for the scores, which all become 0 or 1.",
    source="measured: docs/detection.md",
    remedy="Leave the post-processing in float (`onnxptq quantize` does so by itself; elsewhere exclude the nodes from "
    "the last Conv to the output), or export boxes and scores as two outputs.",
)
def boxes_beside_scores(graph: GraphView, target: str) -> Iterator[Place]:
    """A Concat of bounded and unbounded values whose output has fewer than `_LEVELS` steps between 0 and 1."""
    for node in joined_quantities(graph):
        for reader, _ in graph.readers(node.output[0]):
            scale = graph.parameters(reader).scale if is_quantize(reader) else None
            if scale is not None and scale.max(initial=0) * _LEVELS > 1:
                yield Place(graph.label(node), f"{node.output[0]} has a step of {scale.max():.3g}")
