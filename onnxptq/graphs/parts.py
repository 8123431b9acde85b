"""Parts of a graph: what a node reads, what a tensor needs, and models made of some of the nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


STANDARD_DOMAINS = ("", "ai.onnx")
"""Two spellings of the domain of ONNX's own operators."""


def is_standard(node: onnx.NodeProto) -> bool:
    """Whether a node is one of ONNX's own operators, and not one of another domain with the same name."""
    return node.domain in STANDARD_DOMAINS


QUANTIZED_OPERATORS = frozenset({"QuantizeLinear", "DequantizeLinear", "ConvInteger", "MatMulNBits"})
QUANTIZED_PREFIXES = ("QLinear", "QGemm", "QAttention", "MatMulInteger", "DynamicQuantize")
"""Operators that only a quantized graph has, by name and by the beginning of the name."""

NO_OPSET = 13
"""Said of a model that uses no standard operators and imports none (`ai.onnx.ml` alone): any version would be true."""


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the default operator domain."""
    return next((entry.version for entry in proto.opset_import if entry.domain in STANDARD_DOMAINS), NO_OPSET)


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs in a node's attributes, those inside of them not included."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs take from outside included.

    A stack and no recursion of generators, whose cost grows with the square of the depth.
    """
    yield from (name for name in node.input if name)
    waiting = list(subgraphs(node))
    while waiting:
        graph = waiting.pop()
        for inner in graph.node:
            yield from (name for name in inner.input if name)
            waiting.extend(subgraphs(inner))
        # What a branch hands on may be a tensor from outside.
        yield from (value.name for value in graph.output)


def is_quantized(proto: onnx.ModelProto) -> bool:
    """Whether a model computes with integers: in its graph, a subgraph or a local function.

    A DequantizeLinear of a constant alone tells of a weight that is stored so; all is computed in float.
    """
    nodes = [node for function in proto.functions for node in function.node]
    waiting = [proto.graph]
    constants: set[str] = set()
    while waiting or nodes:
        if not nodes:
            graph = waiting.pop()
            constants |= {tensor.name for tensor in graph.initializer}
            nodes = list(graph.node)
        constants |= {name for node in nodes if node.op_type == "Constant" for name in node.output}
        for node in nodes:
            stored = node.op_type == "DequantizeLinear" and node.input[0] in constants
            if not stored and (node.op_type in QUANTIZED_OPERATORS or node.op_type.startswith(QUANTIZED_PREFIXES)):
                return True
            waiting.extend(subgraphs(node))
        nodes = []
    return False


def needed_nodes(graph: onnx.GraphProto, wanted: Iterable[str], given: Collection[str]) -> list[onnx.NodeProto]:
    """The nodes that compute `wanted` from `given`, in the order of the graph."""
    missing = set(wanted) - set(given)
    nodes = []
    for node in reversed(graph.node):
        if missing & set(node.output):
            nodes.append(node)
            missing |= set(reads(node)) - set(given)
    return nodes[::-1]


def part_of(
    proto: onnx.ModelProto, inputs: Iterable[onnx.ValueInfoProto], outputs: Iterable[onnx.ValueInfoProto]
) -> onnx.ModelProto:
    """A model of the nodes that compute `outputs` from `inputs`, with their weights and nothing else.

    Unlike `onnx.utils.Extractor` it follows what subgraphs take from outside.
    """
    import onnx

    inputs, outputs = list(inputs), list(outputs)
    given = {value.name for value in inputs}
    part = onnx.ModelProto(ir_version=proto.ir_version)
    part.opset_import.extend(proto.opset_import)
    part.functions.extend(proto.functions)
    part.graph.name = proto.graph.name or "part"
    nodes = needed_nodes(proto.graph, [value.name for value in outputs], given)
    part.graph.node.extend(nodes)
    part.graph.input.extend(inputs)
    part.graph.output.extend(outputs)
    read = {name for node in nodes for name in reads(node)} | {value.name for value in outputs}
    part.graph.initializer.extend(t for t in proto.graph.initializer if t.name in read and t.name not in given)
    inside = {name for node in nodes for name in node.output} - {value.name for value in outputs}
    part.graph.value_info.extend(value for value in proto.graph.value_info if value.name in inside)
    return part
