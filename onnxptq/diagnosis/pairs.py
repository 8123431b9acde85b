"""What a QDQ file quantizes: each tensor with its Q and DQ, paired with the float tensor of the same name.

1. A tensor is read from the file and never from its maker: any QDQ file will do, as long as names are kept.
2. An activation is what a QuantizeLinear reads; at a graph output it is what the DequantizeLinear gives, since the
   quantizer renames the float tensor there.
3. A constant is what the DequantizeLinear gives, or its integers' name without the quantizer's ending.
4. What has no partner in the float graph is said, not guessed: it counts as quantized in no variant.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from onnxptq.errors import ModelError

if TYPE_CHECKING:
    import onnx

Kind = Literal["activation", "constant"]

_INTEGERS, _DEQUANTIZED = "_quantized", "_DequantizeLinear_Output"
"""Endings that ONNX Runtime's quantizer gives the integers of a constant and the output of its DequantizeLinear."""


@dataclass(frozen=True)
class Pair:
    """One quantized tensor.

    Attributes:
        tensor: its name in the float graph.
        kind: "activation", or "constant" (weights, biases).
        quantize: the QuantizeLinear, or None where the file holds integers.
        dequantize: the DequantizeLinear.
        constants: what the two read besides: scale, zero point, integers.
        float_readers: names (`node_key`) of nodes that read the float tensor beside the pair.
        at_output: the dequantized tensor is a graph output.
        one_each: each reader has a pair of its own.
    """

    tensor: str
    kind: Kind
    quantize: onnx.NodeProto | None
    dequantize: onnx.NodeProto
    constants: tuple[onnx.TensorProto, ...]
    float_readers: frozenset[str] = frozenset()
    at_output: bool = False
    one_each: bool = False

    @property
    def range(self) -> tuple[float, float] | None:
        """The lowest and the highest value that the integers can hold; None where scales differ by channel."""
        import onnx

        values = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in self.constants}
        scale, zero = (values.get(name) for name in (*self.dequantize.input[1:3], "")[:2])
        if scale is None or scale.size != 1 or zero is None or zero.size != 1 or zero.dtype.kind not in "iu":
            return None
        limits = np.iinfo(zero.dtype)
        step, offset = float(scale.item()), int(zero.item())
        return (int(limits.min) - offset) * step, (int(limits.max) - offset) * step


@dataclass(frozen=True)
class PairedFile:
    """The pairs of a QDQ file in the order in which the float graph computes their tensors.

    Attributes:
        pairs: what has a partner in the float graph.
        unpaired: one line for each tensor that has none.
    """

    pairs: tuple[Pair, ...]
    unpaired: tuple[str, ...]


def node_key(node: onnx.NodeProto) -> str:
    """What a node is known by: its name, or its first output where it has none."""
    return str(node.name or node.output[0])


def read_pairs(base: onnx.ModelProto, quantized: onnx.ModelProto) -> PairedFile:
    """Pairs the quantized tensors of `quantized` with the float tensors of `base`.

    Raises:
        ModelError: `quantized` has no DequantizeLinear.
    """
    graph = quantized.graph
    constants = _constants(graph)
    known, base_constants = _tensors(base.graph), {tensor.name: tensor for tensor in base.graph.initializer}
    quantizers = {node.output[0]: node for node in graph.node if node.op_type == "QuantizeLinear"}
    readers = defaultdict(list)
    for node in graph.node:
        for name in node.input:
            readers[name].append(node)
    outputs = {value.name for value in graph.output}
    found: dict[str, list[Pair]] = defaultdict(list)
    unpaired = []
    for node in graph.node:
        if node.op_type != "DequantizeLinear":
            continue
        quantize = quantizers.get(node.input[0])
        raw = quantize.input[0] if quantize is not None else node.input[0]
        if quantize is None and raw not in constants:
            unpaired.append(f"{node.output[0]}: its integers come from {raw}, not from a QuantizeLinear")
            continue
        tensor = next((name for name in _names(raw, node.output[0], quantize is not None) if name in known), None)
        kind: Kind = "constant" if raw in constants else "activation"
        if tensor is None or (kind == "constant") != (tensor in base_constants):
            unpaired.append(f"{raw}: the float model has no such {kind}")
            continue
        if kind == "constant" and tuple(constants[raw].dims) != tuple(base_constants[tensor].dims):
            unpaired.append(f"{raw}: its shape is not that of {tensor} in the float model")
            continue
        read = [*(quantize.input if quantize is not None else ()), *node.input]
        missing = [name for name in read[1:] if name and name not in constants and name != node.input[0]]
        if missing:
            unpaired.append(f"{raw}: its scale {missing[0]} is computed while the model runs")
            continue
        beside = frozenset(node_key(n) for n in readers[raw] if n.op_type != "QuantizeLinear") if quantize else ()
        found[tensor].append(
            Pair(
                tensor=tensor,
                kind=kind,
                quantize=quantize,
                dequantize=node,
                constants=tuple(constants[name] for name in dict.fromkeys(read) if name in constants),
                float_readers=frozenset(beside),
                at_output=node.output[0] in outputs,
            )
        )
    if not found and not unpaired:
        raise ModelError(
            "the INT8 model has no DequantizeLinear, so there is nothing to take apart. Expected a QDQ model: quantize "
            "with `onnxptq quantize`, or with ONNX Runtime's quant_format=QuantFormat.QDQ."
        )
    merged = [_merge(pairs) for pairs in found.values()]
    return PairedFile(tuple(sorted(merged, key=lambda pair: known[pair.tensor])), tuple(unpaired))


def _merge(pairs: list[Pair]) -> Pair:
    """One pair for a tensor that has several, one for each reader (or for a reader and the graph's output)."""
    output = next((pair for pair in pairs if pair.at_output), pairs[0])
    return replace(output, one_each=len({pair.dequantize.output[0] for pair in pairs}) > 1)


def _names(raw: str, dequantized: str, is_pair: bool) -> list[str]:
    if is_pair:
        return [raw, dequantized]
    return [dequantized, raw.removesuffix(_INTEGERS), dequantized.removesuffix(_DEQUANTIZED)]


def _constants(graph: onnx.GraphProto) -> dict[str, Any]:
    """Constants by name, whether they are initializers or made by Constant nodes."""
    import onnx

    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            tensor = onnx.TensorProto()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            found[tensor.name] = tensor
    return found


def _tensors(graph: onnx.GraphProto) -> Mapping[str, float]:
    """Every tensor of the main graph with its place: constants stand just before the node that reads them first."""
    places: dict[str, float] = {value.name: -1.0 for value in graph.input}
    constants = {tensor.name for tensor in graph.initializer}
    for number, node in enumerate(graph.node):
        for name in node.input:
            if name in constants:
                places.setdefault(name, number - 0.5)
        for name in node.output:
            places[name] = float(number)
    return places
