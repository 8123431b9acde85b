"""Gemm as the quantizer expects it: alpha and beta are 1, and a constant bias has one number a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.repair.editing import Editing, attribute, set_attribute

if TYPE_CHECKING:
    import onnx

_FLOATS = (np.float32, np.float16)


def fold_alpha(editing: Editing) -> bool:
    """Multiplies alpha into a constant weight.

    A quantized bias has the scale of input times weight, and a kernel that fuses the Gemm takes alpha into account a
    second time.
    """
    changed = False
    for node in editing.nodes("Gemm"):
        alpha = attribute(node, "alpha", 1.0)
        if alpha == 1.0:
            continue
        for position in (1, 0):
            values = editing.values(node.input[position])
            if values is not None and values.dtype in _FLOATS:
                scaled = (values.astype(np.float64) * alpha).astype(values.dtype)
                node.input[position] = editing.constant(scaled, f"{node.input[position]}_alpha")
                set_attribute(node, "alpha", None)
                changed = True
                break
    return changed


def fold_beta(editing: Editing) -> bool:
    """Multiplies beta into a constant bias, and leaves out a bias that beta = 0 makes nothing of."""
    changed = False
    for node in editing.nodes("Gemm"):
        beta = attribute(node, "beta", 1.0)
        if beta == 1.0 or not _has_bias(node):
            continue
        values = editing.values(node.input[2])
        if beta == 0.0:
            del node.input[2:]
        elif values is not None and values.dtype in _FLOATS:
            scaled = (values.astype(np.float64) * beta).astype(values.dtype)
            node.input[2] = editing.constant(scaled, f"{node.input[2]}_beta")
        else:
            continue
        set_attribute(node, "beta", None)
        changed = True
    return changed


def flatten_bias(editing: Editing) -> bool:
    """Gives each constant bias one number a column; one of several rows becomes an Add behind the Gemm."""
    changed = False
    for node in editing.nodes("Gemm"):
        values = editing.values(node.input[2]) if _has_bias(node) else None
        if values is None or values.dtype not in _FLOATS:
            continue
        columns = _columns(editing, node, values)
        if values.shape == (columns,):
            continue
        row = values.reshape(-1, values.shape[-1]) if values.ndim else values.reshape(1, 1)
        if len(row) > 1 and np.array_equal(row, np.broadcast_to(row[:1], row.shape)):
            row = row[:1]
        if len(row) == 1 and columns is not None:
            flat = np.broadcast_to(row[0], (columns,))
            node.input[2] = editing.constant(flat, f"{node.input[2]}_row")
        elif len(row) == 1:  # The quantizer takes a row for a weight that is no constant: it has one scale.
            continue
        else:
            _add_behind(editing, node)
        changed = True
    return changed


def _has_bias(node: onnx.NodeProto) -> bool:
    return len(node.input) > 2 and bool(node.input[2])


def _columns(editing: Editing, node: onnx.NodeProto, bias: npt.NDArray[Any]) -> int | None:
    """How many columns a Gemm computes, or None where neither weight nor bias tell."""
    weight = editing.initializers.get(node.input[1])
    if weight is not None and len(weight.dims) == 2:
        return int(weight.dims[0 if attribute(node, "transB", 0) else 1])
    return int(bias.shape[-1]) if bias.ndim and bias.shape[-1] > 1 else None


def _add_behind(editing: Editing, node: onnx.NodeProto) -> None:
    import onnx

    output, bias = node.output[0], node.input[2]
    product = editing.fresh(f"{output}_without_bias")
    node.output[0] = product
    del node.input[2:]
    known = editing.value_info(output)
    if known is not None:
        value = editing.graph.value_info.add()
        value.CopyFrom(known)
        value.name = product
    name = f"{node.name}_bias" if node.name else ""
    editing.insert_after(node, onnx.helper.make_node("Add", [product, bias], [output], name=name))
