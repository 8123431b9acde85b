"""How many multiply-adds each node of a graph takes, estimated from its shapes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "FusedConv": 1}
"""Operators with the position of their weights."""

_PRODUCTS = {"MatMul": (0, 1), "MatMulInteger": (0, 1), "QLinearMatMul": (0, 3)}
"""Operators with the positions of the two matrices."""


def multiply_adds(path: Path) -> dict[str, int]:
    """Multiply-adds of each node of the main graph that is a convolution or a matrix product, by the node's name.

    Dimensions that are not known count as 1, so they are those of one sample, and shares are what to read. Nodes
    without a name, in subgraphs, and of other operators (recurrent ones, Attention) are left out.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    shapes = _shapes(onnx.shape_inference.infer_shapes(model).graph)
    counted = ((node.name, _of_node(node, shapes)) for node in model.graph.node if node.name)
    return {name: count for name, count in counted if count}


def share_of(counts: Mapping[str, int], nodes: Collection[str]) -> float:
    """The share of all multiply-adds, from 0 to 1, that some nodes take; NaN where nothing is counted."""
    total = sum(counts.values())
    return sum(counts.get(node, 0) for node in set(nodes)) / total if total else math.nan


def _shapes(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in [*graph.input, *graph.value_info, *graph.output]:
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes.setdefault(value.name, tuple(max(dim.dim_value, 1) for dim in dims))
    return shapes


def _of_node(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    def shape(position: int) -> tuple[int, ...]:
        return shapes.get(node.input[position], ()) if len(node.input) > position else ()

    output = shapes.get(node.output[0], ())
    if node.op_type in _CONVOLUTIONS:
        # Weights are (M, C / group, k1, k2 ...): each value of the output takes one filter.
        return math.prod(output) * math.prod(shape(_CONVOLUTIONS[node.op_type])[1:]) if output else 0
    if node.op_type == "ConvTranspose":
        # Weights are (C, M / group, k1, k2 ...): each value of the input is spread by one filter.
        return math.prod(shape(0)) * math.prod(shape(1)[1:]) if shape(0) else 0
    if node.op_type in _PRODUCTS:
        left, right = (shape(position) for position in _PRODUCTS[node.op_type])
        return math.prod(output) * left[-1] if output and left and right else 0
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
        left = shape(0)
        return math.prod(output) * left[0 if transposed else 1] if output and len(left) == 2 else 0
    return 0
