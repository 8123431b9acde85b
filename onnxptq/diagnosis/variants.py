"""Variants: the float graph with some of the INT8 file's Q and DQ put into it, and nothing else changed.

They are put into the float graph, not taken out of the INT8 file: there the quantizer has dropped the Relu before a Q
whose range begins at 0, and without the Q the values below 0 would come back.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from onnxptq.diagnosis.pairs import Pair, node_key

if TYPE_CHECKING:
    import onnx


def make_variant(base: onnx.ModelProto, quantized: onnx.ModelProto, pairs: Iterable[Pair]) -> onnx.ModelProto:
    """A copy of `base` in which the tensors of `pairs` are quantized as they are in `quantized`."""
    import onnx

    pairs = tuple(pairs)
    model = onnx.ModelProto()
    model.CopyFrom(base)
    _import_domains(model, quantized)
    graph = model.graph
    made: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    there = {tensor.name for tensor in graph.initializer}
    outputs = {value.name for value in graph.output}
    for pair in pairs:
        for tensor in pair.constants:
            if tensor.name not in there:
                there.add(tensor.name)
                graph.initializer.append(tensor)
        made[pair.tensor] += _put(graph, pair, is_output=pair.tensor in outputs)
    _place(graph, made)
    _drop_unread(graph)
    return model


def _put(graph: onnx.GraphProto, pair: Pair, *, is_output: bool) -> list[onnx.NodeProto]:
    """Lets the readers of a tensor read it dequantized; gives the nodes that do that."""
    tensor = pair.tensor
    readers = [n for n in graph.node if tensor in n.input and node_key(n) not in pair.float_readers]
    if is_output and pair.at_output and pair.quantize is not None:
        # The output keeps its name, so what computes it takes the one that the quantizer gave it.
        raw = pair.quantize.input[0]
        for node in graph.node:
            _rename(node.output, tensor, raw)
            if node not in readers:
                _rename(node.input, tensor, raw)
        return _nodes(pair, raw, tensor, "")
    if pair.one_each and pair.kind == "activation":
        made = []
        for number, node in enumerate(readers):
            made += _nodes(pair, tensor, f"{tensor}_dequantized_{number}", f"_{number}")
            _rename(node.input, tensor, f"{tensor}_dequantized_{number}")
        return made
    dequantized = pair.dequantize.output[0]
    if dequantized == tensor:  # a bias: the quantizer lets its DequantizeLinear take the name
        dequantized = f"{tensor}_dequantized"
    for node in readers:
        _rename(node.input, tensor, dequantized)
    return _nodes(pair, tensor, dequantized, "")


def _nodes(pair: Pair, raw: str, dequantized: str, ending: str) -> list[onnx.NodeProto]:
    import onnx

    nodes = []
    dequantize = onnx.NodeProto()
    dequantize.CopyFrom(pair.dequantize)
    if pair.quantize is not None:
        quantize = onnx.NodeProto()
        quantize.CopyFrom(pair.quantize)
        quantize.name += ending
        quantize.output[0] += ending
        if pair.kind == "activation":
            quantize.input[0] = raw
        dequantize.input[0] = quantize.output[0]
        nodes.append(quantize)
    dequantize.name += ending
    dequantize.output[0] = dequantized
    return [*nodes, dequantize]


def _place(graph: onnx.GraphProto, made: dict[str, list[onnx.NodeProto]]) -> None:
    """Puts the new nodes where what they read is known: at the front, or after the node that computes it."""
    after: dict[str, list[onnx.NodeProto]] = defaultdict(list)
    computed = {name for node in graph.node for name in node.output}
    front = []
    for nodes in made.values():
        source = nodes[0].input[0] if nodes else ""
        if source in computed:
            after[source] += nodes
        else:
            front += nodes
    ordered = [*front]
    for node in graph.node:
        ordered.append(node)
        for name in node.output:
            ordered += after.get(name, [])
    copies = [_copy(node) for node in ordered]
    del graph.node[:]
    graph.node.extend(copies)


def _copy(node: onnx.NodeProto) -> onnx.NodeProto:
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _drop_unread(graph: onnx.GraphProto) -> None:
    """Removes float constants that nothing reads any more, so that a written file is as small as it can be."""
    from onnxptq.graphs.parts import reads

    read = {name for node in graph.node for name in reads(node)} | {value.name for value in graph.output}
    kept = [tensor for tensor in graph.initializer if tensor.name in read]
    if len(kept) < len(graph.initializer):
        names = {tensor.name for tensor in kept}
        for number in reversed(range(len(graph.initializer))):
            if graph.initializer[number].name not in names:
                del graph.initializer[number]


def _rename(names: object, old: str, new: str) -> None:
    for position, name in enumerate(names):  # type: ignore[arg-type, var-annotated]  # a repeated field of protobuf
        if name == old:
            names[position] = new  # type: ignore[index]


def _import_domains(model: onnx.ModelProto, quantized: onnx.ModelProto) -> None:
    there = {entry.domain for entry in model.opset_import}
    model.opset_import.extend(entry for entry in quantized.opset_import if entry.domain not in there)
