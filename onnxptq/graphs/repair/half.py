"""Models in float16 become models in float32 with the same inputs and outputs.

The quantizer gives tensors of float16 scales of float32, which no QuantizeLinear takes; and where ONNX Runtime's own
preparation puts casts around each node, weights are cast at run time and quantized as if they were activations. In
float32 every weight is a constant, quantized for each channel; the CPU has no kernels of float16 that would be missed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from onnxptq.errors import ModelError
from onnxptq.graphs.external import SINGLE_FILE_LIMIT
from onnxptq.graphs.parts import subgraphs
from onnxptq.graphs.repair.editing import Editing
from onnxptq.graphs.repair.names import rename

if TYPE_CHECKING:
    import onnx

_HALF, _FLOAT = 10, 1
"""TensorProto.FLOAT16 and TensorProto.FLOAT."""

_TYPE_ATTRIBUTES = ("to", "dtype", "output_datatype", "output_dtype")
"""Attributes that hold the type of a node's result."""


def computes_in_half(proto: onnx.ModelProto) -> bool:
    """Whether a graph of a model has a constant, an input, an output or a cast of float16."""
    for graph in _graphs(proto.graph):
        if any(tensor.data_type == _HALF for tensor in graph.initializer):
            return True
        if any(value.type.tensor_type.elem_type == _HALF for value in (*graph.input, *graph.output)):
            return True
        for node in graph.node:
            if any(a.t.data_type == _HALF for a in node.attribute if a.HasField("t")):
                return True
            if any(a.i == _HALF for a in node.attribute if a.name in _TYPE_ATTRIBUTES):
                return True
    return False


def half_to_float(editing: Editing) -> bool:
    """Turns all that is float16 inside a model into float32, with casts at its inputs and outputs.

    Raises:
        ModelError: the weights would not fit one file any more.
    """
    if not computes_in_half(editing.proto):
        return False
    _cast_at_the_ends(editing)
    size = 0
    for graph in _graphs(editing.graph):
        for tensor in graph.initializer:
            size += _widen(editing, tensor)
        ends = (*graph.input, *graph.output) if graph is not editing.graph else ()
        for value in (*ends, *graph.value_info):
            if value.type.tensor_type.elem_type == _HALF:
                value.type.tensor_type.elem_type = _FLOAT
        for node in graph.node:
            size += _widen_attributes(editing, node)
    if size > SINGLE_FILE_LIMIT:
        raise ModelError(
            f"the weights are in float16, and have {size} bytes in float32, more than one file holds. "
            "Export the model in float32 with its weights in external data."
        )
    return True


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    waiting = [graph]
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting.extend(inner for node in graph.node for inner in subgraphs(node))


_CASTS = "onnxptq_cast"
"""Beginning of the names of the casts that are put in, which stay casts to float16."""


def _cast_at_the_ends(editing: Editing) -> None:
    import onnx

    first, last = [], []
    constants = editing.initializers
    for value in editing.graph.input:
        if value.type.tensor_type.elem_type == _HALF and value.name not in constants:
            inner = editing.fresh(f"{value.name}_float")
            rename(editing, value.name, inner)
            first.append(onnx.helper.make_node("Cast", [value.name], [inner], name=f"{_CASTS}_{inner}", to=_FLOAT))
    inputs = editing.inputs
    for value in editing.graph.output:
        if value.type.tensor_type.elem_type == _HALF and value.name not in inputs:
            inner = editing.fresh(f"{value.name}_float")
            rename(editing, value.name, inner)
            last.append(onnx.helper.make_node("Cast", [inner], [value.name], name=f"{_CASTS}_{inner}", to=_HALF))
    nodes = [type(node).FromString(node.SerializeToString()) for node in editing.graph.node]
    del editing.graph.node[:]
    editing.graph.node.extend([*first, *nodes, *last])


def _widen(editing: Editing, tensor: onnx.TensorProto) -> int:
    """Makes a constant of float16 one of float32, in place; returns its bytes, 0 where it was none."""
    from onnx import numpy_helper

    if tensor.data_type != _HALF:
        return 0
    wide = editing.array(tensor).astype(np.float32)
    tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    return int(wide.nbytes)


def _widen_attributes(editing: Editing, node: onnx.NodeProto) -> int:
    if node.name.startswith(_CASTS):
        return 0
    size = 0
    for a in node.attribute:
        if a.HasField("t"):
            size += _widen(editing, a.t)
        if a.name in _TYPE_ATTRIBUTES and a.i == _HALF:
            a.i = _FLOAT
    return size
