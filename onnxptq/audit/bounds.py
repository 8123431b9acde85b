"""How wide tensors can be without looking at data: by the input, the operators, and BatchNormalization."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxptq.audit.clipping import Interval
from onnxptq.graphs.batch_norms import remembered_batch_norms
from onnxptq.tasks import Task

if TYPE_CHECKING:
    import onnx

SIGMAS = 3.0
"""BatchNormalization hands on values of mean beta and deviation gamma. Of a hundred thousand some lie beyond four
deviations, so a range that does not reach three of them saw less than training did."""

_ELEMENTWISE = ("Relu", "Clip", "Identity")


def known_bounds(task: Task, folded: Path) -> dict[str, Interval]:
    """By tensor, the least and the greatest value that preprocessing and operators allow, where both are finite."""
    from onnxptq.quantization.intervals import propagate

    found = propagate(folded, task.input_bounds())
    return {name: bound for name, bound in found.items() if np.isfinite(bound).all()}


def attained_bounds(task: Task, folded: Path) -> dict[str, Interval]:
    """The bounds of the inputs, and of what follows from them so directly that samples do reach both ends."""
    from onnxptq.quantization.intervals import attained

    return attained(folded, task.input_bounds())


def batch_norm_ranges(folded: Path) -> dict[str, Interval]:
    """By tensor, beta +- `SIGMAS` * |gamma| over all channels of the BatchNormalization before it.

    Known for the outputs of former BatchNormalizations and what Relu, Clip and Identity make of them; empty where the
    model came without any, or with them folded.
    """
    import onnx

    norms = remembered_batch_norms(folded)
    if not norms:
        return {}
    proto = onnx.load(str(folded), load_external_data=False)
    constants = _scalars(proto)
    found: dict[str, Interval] = {}
    for tensor, norm in norms.items():
        reach = SIGMAS * np.abs(norm.scale)
        found[tensor] = (float((norm.bias - reach).min()), float((norm.bias + reach).max()))
    for node in proto.graph.node:
        if node.op_type in _ELEMENTWISE and node.input[0] in found:
            found[node.output[0]] = _after(node, found[node.input[0]], constants)
    return found


def _after(node: onnx.NodeProto, given: Interval, constants: Mapping[str, float]) -> Interval:
    if node.op_type == "Identity":
        return given
    limits = (0.0, float("inf"))
    if node.op_type == "Clip":
        low, high = (constants.get(name, missing) for name, missing in _limits(node))
        limits = (low, high)
    return min(max(given[0], limits[0]), limits[1]), min(max(given[1], limits[0]), limits[1])


def _limits(node: onnx.NodeProto) -> list[tuple[str, float]]:
    names = [*node.input[1:], "", ""]
    return [(names[0], float("-inf")), (names[1], float("inf"))]


def _scalars(proto: onnx.ModelProto) -> dict[str, float]:
    import onnx

    return {
        tensor.name: float(onnx.numpy_helper.to_array(tensor).reshape(-1)[0])
        for tensor in proto.graph.initializer
        if np.prod(tensor.dims, dtype=int) == 1 and tensor.data_type == onnx.TensorProto.FLOAT
    }
