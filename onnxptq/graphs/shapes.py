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
    import onnx

    large = list(_large_weights(proto.graph))
    taken = [tensor.raw_data for tensor in large]
    for tensor in large:
        tensor.ClearField("raw_data")
    inferred = onnx.shape_inference.infer_shapes(proto)
    bare = [tensor for tensor in inferred.graph.initializer if _weight_without_data(tensor)]
    names = {tensor.name: data for tensor, data in zip(large, taken, strict=True)}
    for tensor in bare:
        if tensor.name in names:
            tensor.raw_data = names[tensor.name]
    return inferred


def _large_weights(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    import onnx

    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    for tensor in graph.initializer:
        if tensor.data_type in floats and len(tensor.raw_data) > _SHAPE_BYTES:
            yield tensor


def _weight_without_data(tensor: onnx.TensorProto) -> bool:
    return not tensor.raw_data and not tensor.float_data and bool(tensor.dims)
