"""A model that is being repaired: its constants, who reads what, and names that nobody has yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.parts import is_standard, reads, subgraphs

if TYPE_CHECKING:
    import onnx


class Editing:
    """The main graph of a model while repairs change it in place.

    Args:
        proto: the model; its external data may be left where they are.
        folder: of the model file, where its external data lie.

    Attributes:
        proto: the model.
    """

    def __init__(self, proto: onnx.ModelProto, folder: Path) -> None:
        self.proto = proto
        self._folder = folder
        self._names = set(_tensor_names(proto.graph))

    @property
    def graph(self) -> onnx.GraphProto:
        """The main graph."""
        return self.proto.graph

    def replace(self, proto: onnx.ModelProto) -> None:
        """Takes another model in the place of this one."""
        self.proto.CopyFrom(proto)
        self._names = set(_tensor_names(self.proto.graph))

    @property
    def names(self) -> frozenset[str]:
        """All names of tensors, those in subgraphs included."""
        return frozenset(self._names)

    @property
    def initializers(self) -> dict[str, onnx.TensorProto]:
        """The dense constants of the main graph by name."""
        return {tensor.name: tensor for tensor in self.graph.initializer}

    @property
    def outputs(self) -> frozenset[str]:
        """Names of the graph's outputs."""
        return frozenset(value.name for value in self.graph.output)

    @property
    def inputs(self) -> frozenset[str]:
        """Names of the graph's inputs."""
        return frozenset(value.name for value in self.graph.input)

    def nodes(self, *operators: str) -> list[onnx.NodeProto]:
        """The nodes of these standard operators, a copy of the list, in the order of the graph."""
        return [node for node in self.graph.node if node.op_type in operators and is_standard(node)]

    def readers(self) -> dict[str, list[tuple[onnx.NodeProto, int]]]:
        """Tensor -> the nodes that read it as an input, and at which place."""
        found: dict[str, list[tuple[onnx.NodeProto, int]]] = {}
        for node in self.graph.node:
            for position, name in enumerate(node.input):
                if name:
                    found.setdefault(name, []).append((node, position))
        return found

    def read_inside(self) -> frozenset[str]:
        """Tensors of the main graph that subgraphs read."""
        return frozenset(name for node in self.graph.node for name in set(reads(node)) - set(node.input))

    def values(self, name: str) -> npt.NDArray[Any] | None:
        """The values of a constant; None where `name` is none."""
        tensor = self.initializers.get(name)
        return None if tensor is None else self.array(tensor)

    def array(self, tensor: onnx.TensorProto) -> npt.NDArray[Any]:
        """The values of a constant of this model, wherever they lie."""
        from onnx import numpy_helper

        return numpy_helper.to_array(tensor, str(self._folder))

    def fresh(self, wanted: str) -> str:
        """A name like `wanted` that no tensor has; it is taken from now on."""
        name, number = wanted, 1
        while name in self._names:
            name, number = f"{wanted}_{number}", number + 1
        self._names.add(name)
        return name

    def constant(self, array: npt.NDArray[Any], wanted: str) -> str:
        """Adds a constant under a name like `wanted`; returns the name."""
        from onnx import numpy_helper

        name = self.fresh(wanted)
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def copy(self, name: str, wanted: str) -> str:
        """Adds a copy of a constant under a name like `wanted`; returns the name. External data are shared."""
        tensor = self.graph.initializer.add()
        tensor.CopyFrom(self.initializers[name])
        tensor.name = fresh = self.fresh(wanted)
        return fresh

    def drop_unread(self) -> None:
        """Removes constants that nothing reads and no output is."""
        used = {name for node in self.graph.node for name in reads(node)} | self.outputs
        kept = [tensor for tensor in self.graph.initializer if tensor.name in used]
        if len(kept) < len(self.graph.initializer):
            del self.graph.initializer[:]
            self.graph.initializer.extend(kept)

    def value_info(self, name: str) -> onnx.ValueInfoProto | None:
        """What the file says about a tensor's type and shape."""
        values = (*self.graph.value_info, *self.graph.output, *self.graph.input)
        return next((value for value in values if value.name == name), None)

    def insert_after(self, node: onnx.NodeProto, new: onnx.NodeProto) -> None:
        """Puts a node behind another."""
        position = next(i for i, other in enumerate(self.graph.node) if other is node or other == node)
        self.graph.node.insert(position + 1, new)


def _tensor_names(graph: onnx.GraphProto) -> Iterator[str]:
    waiting = [graph]
    while waiting:
        graph = waiting.pop()
        for value in (*graph.input, *graph.output, *graph.initializer):
            yield value.name
        yield from (sparse.values.name for sparse in graph.sparse_initializer)
        for node in graph.node:
            yield from (name for name in (*node.input, *node.output) if name)
            waiting.extend(subgraphs(node))


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """The value of an attribute, `default` where the node does not have it."""
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    """Sets an attribute, or removes it where `value` is None."""
    import onnx

    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend(kept)
    if value is not None:
        node.attribute.append(onnx.helper.make_attribute(name, value))
