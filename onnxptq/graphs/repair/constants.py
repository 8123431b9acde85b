"""Constants as the quantizer expects them: dense, each read in one way, finite where they are weights."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxptq.errors import ModelError
from onnxptq.graphs.fills import WEIGHT_INPUTS
from onnxptq.graphs.hostile import MAX_TENSOR_BYTES
from onnxptq.graphs.order import keep_last_constants
from onnxptq.graphs.parts import is_standard, subgraphs
from onnxptq.graphs.repair.editing import Editing, attribute

if TYPE_CHECKING:
    import onnx


def densify(editing: Editing) -> bool:
    """Writes sparse constants out, those of subgraphs and of Constant nodes too.

    Raises:
        ModelError: one would take more memory than any model's tensor does.
    """
    from onnx import numpy_helper

    changed = False
    waiting = [editing.graph]
    while waiting:
        graph = waiting.pop()
        for sparse in graph.sparse_initializer:
            graph.initializer.append(numpy_helper.from_array(_dense(sparse), sparse.values.name))
            changed = True
        del graph.sparse_initializer[:]
        for node in graph.node:
            waiting.extend(subgraphs(node))
            for a in node.attribute:
                if node.op_type == "Constant" and a.HasField("sparse_tensor"):
                    dense = numpy_helper.from_array(_dense(a.sparse_tensor))
                    node.attribute.remove(a)
                    node.attribute.append(_tensor_attribute(dense))
                    changed = True
                    break
    return changed


def constants_out_of_nodes(editing: Editing) -> bool:
    """Makes initializers of the main graph's Constant nodes, whatever attribute holds the value."""
    from onnx import numpy_helper

    constants = [node for node in editing.nodes("Constant") if len(node.attribute) == 1]
    for node in constants:
        (held,) = node.attribute
        if held.HasField("t"):
            tensor = editing.graph.initializer.add()
            tensor.CopyFrom(held.t)
            tensor.name = node.output[0]
        else:
            dtype: Any = {"value_float": np.float32, "value_floats": np.float32}.get(held.name, np.int64)
            if held.name.startswith("value_string"):
                dtype = object
            array = np.array(attribute(node, held.name, None), dtype)
            editing.graph.initializer.append(numpy_helper.from_array(array, node.output[0]))
        editing.graph.node.remove(node)
    return bool(constants)


def one_name_each(editing: Editing) -> bool:
    """Leaves the last of the constants of one name, which is the one that ONNX Runtime takes."""
    return keep_last_constants(editing.graph)


def separate_readers(editing: Editing) -> bool:
    """Gives each way of reading a constant one of its own: as a weight along an axis, as a bias, as a plain tensor.

    The quantizer makes one quantized tensor of a constant, with scales along the axis of the reader that it saw last.
    """
    from onnx import TensorProto

    readers, inside, outputs = editing.readers(), editing.read_inside(), editing.outputs
    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    changed = False
    for tensor in [t for t in editing.graph.initializer if t.data_type in floats]:
        ways: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node, position in readers.get(tensor.name, []):
            way = _way_of_reading(node, position)
            # A bias follows the scales of its node. The quantizer copies a shared one, under a name that may be taken.
            taken = way == "bias" and any(f"{tensor.name}{i}" in editing.names for i in range(len(readers)))
            ways.setdefault(f"{way} {len(ways)}" if taken else way, []).append((node, position))
        # The first way keeps the name, unless somebody reads it who must find it as it is.
        keep = tensor.name in outputs or tensor.name in inside
        for way in list(ways)[0 if keep else 1 :]:
            copy = editing.copy(tensor.name, f"{tensor.name}_{way.replace(' ', '')}")
            for node, position in ways[way]:
                node.input[position] = copy
            changed = True
    return changed


def check_finite(editing: Editing, named: str) -> None:
    """Looks for NaN in constants that are quantized, and for infinity in weights.

    Raises:
        ModelError: names the constant and the node that reads it.
    """
    readers = editing.readers()
    for tensor in editing.graph.initializer:
        values = editing.values(tensor.name) if _is_float(tensor) else None
        if values is None or np.isfinite(values).all():
            continue
        nan = np.isnan(values).any()
        for node, position in readers.get(tensor.name, []):
            weight = position in WEIGHT_INPUTS.get(node.op_type, ()) and is_standard(node)
            if nan or weight:
                what = "NaN" if nan else "infinity"
                raise ModelError(
                    f"{named}: the constant {tensor.name!r}, read by the {node.op_type} {node.name!r}, holds {what}. "
                    "Weights must be finite numbers: export the model again from a checkpoint that is sound."
                )


def _is_float(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type in (1, 10, 11)  # float, float16, double


def _way_of_reading(node: onnx.NodeProto, position: int) -> str:
    """How the quantizer quantizes what a node reads at a place."""
    if not is_standard(node):
        return "plain"
    operator = node.op_type
    if operator in ("Conv", "ConvTranspose", "Gemm") and position == 2:
        return "bias"
    if operator.endswith("Normalization") and operator in WEIGHT_INPUTS and position:
        return "bias" if position == 2 else "normalization"
    if operator == "Conv" and position == 1:
        return "axis 0"
    if operator == "Gemm" and position == 1:
        return "axis 0" if attribute(node, "transB", 0) else "axis 1"
    if (operator == "ConvTranspose" and position == 1) or operator == "MatMul":
        return "axis 1"
    return "plain"


def _dense(sparse: onnx.SparseTensorProto) -> Any:
    from onnx import numpy_helper

    shape = tuple(sparse.dims)
    values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    if math.prod(shape) * values.itemsize > MAX_TENSOR_BYTES:
        raise ModelError(
            f"the sparse constant {sparse.values.name!r} has the shape {list(shape)}, more than "
            f"{MAX_TENSOR_BYTES >> 30} GiB when it is written out."
        )
    dense = np.zeros(shape, values.dtype)
    try:
        if indices.ndim == 2:
            dense[tuple(indices.T)] = values
        else:
            dense.reshape(-1)[indices] = values
    except (IndexError, ValueError) as error:
        raise ModelError(f"the sparse constant {sparse.values.name!r} does not fit its shape: {error}.") from error
    return dense


def _tensor_attribute(tensor: onnx.TensorProto) -> onnx.AttributeProto:
    import onnx

    return onnx.helper.make_attribute("value", tensor)
