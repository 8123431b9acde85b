"""Integers that do not fit: saturating products, clipped biases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.normalizers import COLUMNS, UNITS
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


@rule(
    "QDQ404",
    "one scale for columns of different units",
    {"cpu": "warning", "cuda": "warning", "tensorrt": "warning", "openvino": "warning"},
    why="A quantized input is multiplied by constants that differ 100-fold and more from column to column, as a "
    "normalizer does: its columns have different units, one scale serves the largest, and the others are rounded away.",
    source="measured: docs/robustness.md",
    remedy="Leave the normalizer in float (`onnxptq quantize --method robust`, or --exclude its nodes), or normalize "
    "in front of the model.",
)
def mixed_units(graph: GraphView, target: str) -> Iterator[Place]:
    """A Mul of a quantized input of the graph by a constant whose entries differ by `UNITS`, or are lost to 0."""
    for node in graph.nodes:
        if node.op_type != "Mul" or len(node.input) != 2:
            continue
        for tensor, constant in (tuple(node.input), tuple(node.input)[::-1]):
            gains = _constant_values(graph, constant)
            if gains is None or not 1 < gains.size <= COLUMNS or not _quantized_input(graph, tensor):
                continue
            sizes = np.abs(gains)
            if sizes.max() > 0 and sizes.max() >= UNITS * sizes.min():
                yield Place(graph.label(node), f"one scale serves all columns of {tensor}, whose units differ")


def _quantized_input(graph: GraphView, tensor: str) -> bool:
    """Whether a tensor is an input of the graph behind Q and DQ."""
    dequantize = graph.dequantize(tensor)
    quantize = graph.quantize_before(dequantize) if dequantize is not None else None
    return quantize is not None and quantize.input[0] in graph.inputs


def _constant_values(graph: GraphView, tensor: str) -> npt.NDArray[np.float64] | None:
    """The numbers of a constant, directly or behind a DQ of one scale."""
    dequantize = graph.dequantize(tensor)
    if dequantize is None:
        values = graph.values(tensor)
        return None if values is None else np.asarray(values, np.float64)
    values, parameters = graph.values(dequantize.input[0]), graph.parameters(dequantize)
    if values is None or parameters.scale is None or parameters.zero_point is None or parameters.scale.size != 1:
        return None
    return np.asarray((values - parameters.zero_point) * parameters.scale, np.float64)
