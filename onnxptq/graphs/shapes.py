"""ONNX's shape inference without carrying the weights through it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_SHAPE_BYTES = 4096
"""Constants up to this size may be shapes, axes or repeats, whose values inference reads. No shape is longer."""


def infer_shapes(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The same model with all types and shapes that ONNX can tell, and its weights; `proto` is of no use afterwards.

    What `onnx.shape_inference.infer_shapes_path` writes, without two copies of the weights on the disk.

    Raises:
        onnx.shape_inference.InferenceError, RuntimeError: as ONNX raises them.
    """
    taken = _take_weights(proto)
    inferred = _infer(proto)
    _give_weights(inferred, taken)
    return inferred


def inferred_graph(proto: onnx.ModelProto) -> onnx.GraphProto:
    """The main graph with all types and shapes that ONNX can tell, without its weights; `proto` stays as it is.

    Raises:
        onnx.shape_inference.InferenceError, RuntimeError: as ONNX raises them.
    """
    taken = _take_weights(proto)
    try:
        return _infer(proto).graph
    finally:
        _give_weights(proto, taken)


def _infer(proto: onnx.ModelProto) -> onnx.ModelProto:
    import onnx

    return onnx.shape_inference.infer_shapes(proto)


def _take_weights(proto: onnx.ModelProto) -> dict[str, bytes]:
    """Takes the data out of large float constants."""
    large = list(_large_weights(proto.graph))
    taken = {tensor.name: tensor.raw_data for tensor in large}
    for tensor in large:
        tensor.ClearField("raw_data")
    return taken


def _give_weights(proto: onnx.ModelProto, taken: dict[str, bytes]) -> None:
    for tensor in proto.graph.initializer:
        if tensor.name in taken and not tensor.HasField("raw_data"):
            tensor.raw_data = taken[tensor.name]


def _large_weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for tensor in graph.initializer:
        if tensor.data_type in floats and len(tensor.raw_data) > _SHAPE_BYTES:
            yield tensor
