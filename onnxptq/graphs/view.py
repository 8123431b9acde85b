"""A graph as everything asks that reads it: who computes, who reads, what is constant, which Q and DQ belong together.

What changes a graph works on the protobuf messages (`graphs/repair/editing.py`, `quantization/layer_graph.py`), since
files have to stay equal to the stock quantizer's byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError
from onnxptq.graphs.parts import STANDARD_DOMAINS, is_quantized, reads

if TYPE_CHECKING:
    import onnx

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
"""Operators whose INT8 kernels are what quantization is for."""

MICROSOFT = "com.microsoft"


@dataclass(frozen=True)
class Parameters:
    """How one QuantizeLinear or DequantizeLinear maps between floats and integers.

    Attributes:
        scale: float64, () or (C,) or blocked; None where it is computed at run time or lies in external data.
        zero_point: int64, as `scale`; zero where the node has none; None where it is not known.
        type: `TensorProto.DataType` of the quantized side, 0 where it is not known.
        axis: of the scale, where there are several.
        constant: scale and zero point are constants, whether or not they were read.
    """

    scale: npt.NDArray[Any] | None
    zero_point: npt.NDArray[Any] | None
    type: int
    axis: int
    constant: bool

    @property
    def per_channel(self) -> bool:
        """Whether there is more than one scale."""
        return self.scale is not None and self.scale.size > 1


class GraphView:
    """One graph of a model: the main one, a subgraph of a node, or a function.

    Args:
        name: "" for the main graph.
        nodes: its nodes.
        constants: its initializers by name. External data is never read.
        inputs, outputs: names.
        opset: version of the default domain.
        functions: (domain, name) of the functions that the model itself defines.
        outer: the graph around a subgraph, whose tensors it may read.

    Attributes:
        model_is_quantized: some graph of the model, a subgraph or a function, computes with integers.
    """

    def __init__(
        self,
        name: str,
        nodes: Iterable[onnx.NodeProto],
        constants: Mapping[str, onnx.TensorProto],
        inputs: Iterable[str],
        outputs: Iterable[str],
        opset: int,
        functions: frozenset[tuple[str, str]] = frozenset(),
        outer: GraphView | None = None,
    ) -> None:
        self.name = name
        self.nodes = list(nodes)
        _check_names(self.nodes)
        self.inputs = frozenset(inputs)
        self.outputs = frozenset(outputs)
        self.opset = opset
        self.functions = functions
        self.model_is_quantized = False
        self._outer = outer
        self._constants = {key: tensor for key, tensor in constants.items() if key not in self.inputs}
        self._constants |= {node.output[0]: node.attribute[0].t for node in self.nodes if _is_constant(node)}
        self._producers = {output: node for node in self.nodes for output in node.output if output}
        self._readers: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.nodes:
            for position, tensor in enumerate(node.input):
                self._readers.setdefault(tensor, []).append((node, position))
            for tensor in set(reads(node)) - set(node.input):
                self._readers.setdefault(tensor, []).append((node, -1))

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> GraphView:
        """A main graph without its subgraphs, for the quantizer, which takes every initializer for a constant."""
        constants = {tensor.name: tensor for tensor in graph.initializer}
        return cls(
            "",
            graph.node,
            constants,
            (value.name for value in graph.input if value.name not in constants),
            (value.name for value in graph.output),
            opset=0,
        )

    @cached_property
    def quantizes(self) -> list[onnx.NodeProto]:
        """The QuantizeLinear nodes, of ONNX or of com.microsoft."""
        return [node for node in self.nodes if is_quantize(node)]

    @cached_property
    def dequantizes(self) -> list[onnx.NodeProto]:
        """The DequantizeLinear nodes, of ONNX or of com.microsoft."""
        return [node for node in self.nodes if is_dequantize(node)]

    @cached_property
    def weighted(self) -> list[onnx.NodeProto]:
        """The Conv, ConvTranspose, Gemm and MatMul nodes."""
        return [node for node in self.nodes if node.op_type in WEIGHTED and node.domain in STANDARD_DOMAINS]

    def producer(self, tensor: str) -> onnx.NodeProto | None:
        """The node that computes `tensor`; None for inputs and initializers."""
        node = self._producers.get(tensor)
        return self._outer.producer(tensor) if node is None and self._outer is not None else node

    def readers(self, tensor: str) -> list[tuple[onnx.NodeProto, int]]:
        """The nodes that read `tensor` with the position of the input, -1 where a subgraph of the node reads it."""
        return self._readers.get(tensor, [])

    def constant(self, tensor: str) -> onnx.TensorProto | None:
        """The `TensorProto` behind a name: an initializer that no caller can override, or a Constant."""
        found = self._constants.get(tensor)
        return self._outer.constant(tensor) if found is None and self._outer is not None else found

    def weight(self, tensor: str) -> onnx.TensorProto | None:
        """The constant that becomes `tensor`, directly, through DQ or through Q and DQ."""
        for _ in range(3):
            found = self.constant(tensor)
            node = self.producer(tensor)
            if found is not None or node is None or not (is_quantize(node) or is_dequantize(node)):
                return found
            tensor = node.input[0]
        return None

    def dequantize(self, tensor: str) -> onnx.NodeProto | None:
        """The DequantizeLinear that produces `tensor`, if one does."""
        node = self.producer(tensor)
        return node if node is not None and is_dequantize(node) else None

    def quantize_before(self, dequantize: onnx.NodeProto) -> onnx.NodeProto | None:
        """The QuantizeLinear of a pair."""
        node = self.producer(dequantize.input[0])
        return node if node is not None and is_quantize(node) else None

    def parameters(self, node: onnx.NodeProto) -> Parameters:
        """Scale, zero point, type and axis of a Q or a DQ."""
        has_zero = len(node.input) > 2 and bool(node.input[2])
        names = [node.input[1]] + ([node.input[2]] if has_zero else [])
        scale = self.values(node.input[1])
        zero = self.values(node.input[2]) if has_zero else np.zeros_like(scale, np.int64) if scale is not None else None
        return Parameters(
            scale=scale,
            zero_point=zero,
            type=self._type(node, has_zero),
            axis=int(attribute(node, "axis", 1)),
            constant=all(self.constant(name) is not None for name in names),
        )

    def values(self, tensor: str) -> npt.NDArray[Any] | None:
        """The values of a constant; None for what is computed, and for external data, which is not read."""
        from onnx import numpy_helper
        from onnx.external_data_helper import uses_external_data

        found = self.constant(tensor)
        if found is None or uses_external_data(found):
            return None
        try:
            array = numpy_helper.to_array(found)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise ModelError(f"the tensor {tensor!r} of the model is damaged: {error}. Export it again.") from error
        if array.dtype.kind in "iu":
            return array.astype(np.int64)
        try:  # Also types that NumPy does not know itself: int4, float8, bfloat16.
            return array.astype(np.float64)
        except (TypeError, ValueError):
            return None

    def parametrised(self) -> Iterator[tuple[onnx.NodeProto, Parameters]]:
        """Every Q and DQ with its parameters; a DQ that shares those of the Q before it is left out."""
        for node in self.quantizes + self.dequantizes:
            quantize = None if is_quantize(node) else self.quantize_before(node)
            if quantize is None or list(quantize.input[1:]) != list(node.input[1:]):
                yield node, self.parameters(node)

    def label(self, node: onnx.NodeProto) -> str:
        """The node as a reader finds it in a viewer."""
        name = node.name or (node.output[0] if node.output else "")
        return f"{self.name}/{node.op_type} {name}".lstrip("/") if self.name else f"{node.op_type} {name}"

    def _type(self, node: onnx.NodeProto, has_zero: bool) -> int:
        from onnx import TensorProto

        if has_zero and (zero := self.constant(node.input[2])) is not None:
            return int(zero.data_type)
        if is_quantize(node):
            return int(attribute(node, "output_dtype", 0)) or (0 if has_zero else TensorProto.UINT8)
        if (source := self.constant(node.input[0])) is not None:
            return int(source.data_type)
        quantize = self.quantize_before(node)
        return self.parameters(quantize).type if quantize is not None else 0


def views(model: onnx.ModelProto) -> Iterator[GraphView]:
    """The main graph of an ONNX `ModelProto`, its subgraphs and its functions."""
    functions = frozenset((function.domain, function.name) for function in model.functions)
    for view in _graph_views("", model.graph, _opset(model.opset_import), functions, None):
        view.model_is_quantized = is_quantized(model)
        yield view
    for function in model.functions:
        opset = _opset(function.opset_import)
        view = GraphView(function.name, function.node, {}, function.input, function.output, opset, functions)
        yield view
        yield from _subgraph_views(view)


def is_quantize(node: onnx.NodeProto) -> bool:
    """Whether it is a QuantizeLinear, of ONNX or of com.microsoft."""
    return node.op_type == "QuantizeLinear" and (node.domain in STANDARD_DOMAINS or node.domain == MICROSOFT)


def is_dequantize(node: onnx.NodeProto) -> bool:
    """Whether it is a DequantizeLinear, of ONNX or of com.microsoft."""
    return node.op_type == "DequantizeLinear" and (node.domain in STANDARD_DOMAINS or node.domain == MICROSOFT)


def attribute(node: onnx.NodeProto, name: str, default: float) -> float:
    """A number among the attributes of a node."""
    from onnx import AttributeProto

    for entry in node.attribute:
        if entry.name == name:
            return float(entry.f) if entry.type == AttributeProto.FLOAT else int(entry.i)
    return default


def _graph_views(
    name: str, graph: onnx.GraphProto, opset: int, functions: frozenset[tuple[str, str]], outer: GraphView | None
) -> Iterator[GraphView]:
    view = GraphView(
        name,
        graph.node,
        {tensor.name: tensor for tensor in graph.initializer},
        (value.name for value in graph.input),
        (value.name for value in graph.output),
        opset,
        functions,
        outer,
    )
    yield view
    yield from _subgraph_views(view)


def _subgraph_views(view: GraphView) -> Iterator[GraphView]:
    for node in view.nodes:
        for entry in node.attribute:
            for graph in ([entry.g] if entry.HasField("g") else []) + list(entry.graphs):
                name = f"{view.name}/{node.name or node.op_type}.{entry.name}".lstrip("/")
                yield from _graph_views(name, graph, view.opset, view.functions, view)


def _check_names(nodes: list[onnx.NodeProto]) -> None:
    """Raises ModelError for names that are no UTF-8: protobuf hands them on as bytes, which no rule expects."""
    for node in nodes:
        for text in (node.op_type, node.domain, node.name, *node.input, *node.output):
            if not isinstance(text, str):
                raise ModelError(f"a name in the model is no UTF-8 text ({text!r}). Export or copy it again.")


def _is_constant(node: onnx.NodeProto) -> bool:
    return node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].HasField("t")


def _opset(imports: Iterable[onnx.OperatorSetIdProto]) -> int:
    return next((int(entry.version) for entry in imports if entry.domain in STANDARD_DOMAINS), 0)
