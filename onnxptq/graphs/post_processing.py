"""What a detector does behind its last layers with weights: decoding boxes, joining them with scores, suppression.

One scale cannot serve two quantities: in an output that joins boxes (0 to 640) and scores (0 to 1) a step of INT8 is
2.5, and every score is 0. Where nodes behind the last weights join such quantities, all of these nodes stay in float.
Rules:

1. From a float output back to the layers with weights: what lies between is the post-processing. A Conv that only takes
   a mean over bins (the distribution focal loss of YOLOv8) belongs to it.
2. It joins two quantities where a Concat has an input that a Sigmoid or a Softmax bounds by 0 and 1, with nothing but
   moves of data behind it, and another input that is not so bounded; or where it holds a NonMaxSuppression.

Classifiers, segmenters and transformers have no such Concat behind their last weights.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxptq.graphs.view import GraphView

if TYPE_CHECKING:
    import onnx

_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "QLinearConv", "QLinearMatMul")
_BOUNDING = ("Sigmoid", "Softmax", "HardSigmoid")
_MOVING = frozenset(
    {
        "Reshape",
        "Transpose",
        "Slice",
        "Split",
        "Squeeze",
        "Unsqueeze",
        "Flatten",
        "Identity",
        "Gather",
        "Cast",
        "Expand",
        "QuantizeLinear",
        "DequantizeLinear",
    }
)
"""Operators that leave values as they are, or nearly so."""


def post_processing(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes that stay in float, in the order of the graph."""
    from onnx import TensorProto

    view = GraphView.of(graph)
    found: dict[int, onnx.NodeProto] = {}
    for output in graph.output:
        if output.type.tensor_type.elem_type not in (TensorProto.FLOAT, TensorProto.INT64, TensorProto.INT32):
            continue
        region = _behind_weights(view, output.name)
        if any(_joins_quantities(view, node) for node in region):
            found |= {id(node): node for node in region}
    return [node for node in graph.node if id(node) in found]


def joined_quantities(view: GraphView) -> list[onnx.NodeProto]:
    """Each Concat behind the last weights that makes one tensor of what is bounded by 0 and 1 and of what is not."""
    found: dict[int, onnx.NodeProto] = {}
    for output in view.outputs:
        joins = [node for node in _behind_weights(view, output) if node.op_type == "Concat"]
        found |= {id(node): node for node in joins if _joins_quantities(view, node)}
    return list(found.values())


def _behind_weights(view: GraphView, output: str) -> list[onnx.NodeProto]:
    """The nodes from the last layers with weights to an output."""
    region: dict[int, onnx.NodeProto] = {}
    waiting = [output]
    while waiting:
        node = view.producer(waiting.pop())
        if node is None or id(node) in region or _has_weights(view, node):
            continue
        region[id(node)] = node
        waiting.extend(node.input)
    return list(region.values())


def _joins_quantities(view: GraphView, node: onnx.NodeProto) -> bool:
    """Whether a node makes one tensor of two quantities, or picks boxes by their scores."""
    if node.op_type == "NonMaxSuppression":
        return True
    if node.op_type != "Concat":
        return False
    computed = [name for name in node.input if view.producer(name) is not None]
    bounded = [_is_bounded(view, name) for name in computed]
    return any(bounded) and not all(bounded)


def _is_bounded(view: GraphView, name: str) -> bool:
    """Whether all values lie between 0 and 1 because an activation says so."""
    node = view.producer(name)
    while node is not None and node.op_type in _MOVING:
        node = view.producer(node.input[0])
    if node is not None and node.op_type == "Concat":
        return all(_is_bounded(view, part) for part in node.input)
    return node is not None and node.op_type in _BOUNDING


def _has_weights(view: GraphView, node: onnx.NodeProto) -> bool:
    if node.op_type not in _WEIGHTED:
        return False
    return not _takes_a_mean_over_bins(view, node)


def _takes_a_mean_over_bins(view: GraphView, node: onnx.NodeProto) -> bool:
    """A Conv of 1 x 1 with one output channel, right behind a Softmax over its input channels."""
    weights = view.constant(node.input[1]) if node.op_type == "Conv" and len(node.input) > 1 else None
    if weights is None or len(weights.dims) < 3 or weights.dims[0] != 1 or any(size != 1 for size in weights.dims[2:]):
        return False
    maker = view.producer(node.input[0])
    while maker is not None and maker.op_type in _MOVING:
        maker = view.producer(maker.input[0])
    return maker is not None and maker.op_type == "Softmax"
