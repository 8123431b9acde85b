"""Parts of a graph: what a node reads, what a tensor needs, and models made of some of the nodes."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx


def opset_of(proto: onnx.ModelProto) -> int:
    """The version of the default operator domain."""
    version: int = next(entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx"))
    return version


def reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in graph.node:
                yield from reads(inner)
            # What a branch hands on may be a tensor from outside.
            yield from (value.name for value in graph.output)


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
