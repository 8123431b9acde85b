"""Nodes that ONNX Runtime's static quantizer must leave alone, because it would make something else of them.

1. What reads a fill (`graphs.fills`): -inf has no scale, and -3.4e38 leaves nothing for the data.
2. Operators of other domains that have the name of one that the quantizer knows.
3. A Softmax that does not compute in float32 or float16: the quantizer gives it a range that nobody observed.
4. A Clip whose bounds are computed, or do not hold 0: the quantizer removes a Clip, since a range's ends cut as well,
   but every range holds 0.
5. A Relu or Clip whose input a subgraph reads: the quantizer removes it and gives its input another name.
6. What hands on a weight that is stored as integers: the quantizer waits for ever for the scale of its input.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from onnxptq.graphs.fills import find_fills
from onnxptq.graphs.parts import is_standard, reads

if TYPE_CHECKING:
    import onnx

_SHARES_SCALE = frozenset(
    {
        *("Split", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Resize", "MaxPool", "AveragePool"),
        *("Slice", "Pad", "Gather", "GatherElements", "TopK", "Relu", "Clip"),
    }
)
"""Operators whose result the quantizer gives the scale of their input."""

_HANDS_ON = frozenset(
    {
        *("Softmax", "LogSoftmax", "MaxPool", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice"),
        *("Split", "Gather", "GatherElements"),
    }
)
"""Operators that read fills and do not mind: they take the range of what they read, or that of their result."""


def kept_in_float(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    """The nodes of a folded model's main graph that are never quantized, whatever the target."""
    fills = find_fills(graph)
    filled = fills.constants | fills.reached
    types = _types(graph)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    stored = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    inside = {name for node in graph.node for name in set(reads(node)) - set(node.input)}

    def must_stay(node: onnx.NodeProto) -> bool:
        if not is_standard(node):
            return node.op_type in _known_operators()
        if node.op_type in ("Softmax", "LogSoftmax"):
            return types.get(node.output[0], _FLOAT) not in (_FLOAT, _FLOAT16)
        if node.op_type in ("Relu", "Clip") and node.input[0] in inside:
            return True
        if node.op_type in _SHARES_SCALE and node.input[0] in stored:
            return True
        if node.op_type == "Clip":
            return not _holds_zero(node, constants)
        return node.op_type not in _HANDS_ON and any(name in filled for name in node.input)

    return [node for node in graph.node if must_stay(node)]


_FLOAT, _FLOAT16 = 1, 10
"""TensorProto.FLOAT and TensorProto.FLOAT16."""


def _types(graph: onnx.GraphProto) -> dict[str, int]:
    values = (*graph.value_info, *graph.output, *graph.input)
    return {value.name: value.type.tensor_type.elem_type for value in values}


def _holds_zero(clip: onnx.NodeProto, constants: dict[str, onnx.TensorProto]) -> bool:
    """Whether 0 lies within a Clip's bounds, all of them constants."""
    from onnx import numpy_helper

    for position, sign in ((1, -1), (2, 1)):
        name = clip.input[position] if len(clip.input) > position else ""
        if not name:
            continue
        if name not in constants:
            return False
        value = numpy_helper.to_array(constants[name])
        if value.size != 1 or value.item() * sign < 0:
            return False
    return True


def _known_operators() -> frozenset[str]:
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    return frozenset(QDQRegistry) | frozenset(QLinearOpsRegistry)
