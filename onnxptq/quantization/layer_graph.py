"""A float graph as methods that change weights see it: who makes a tensor, who reads it, what is constant."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.parts import reads
from onnxptq.quantization._inference import load_graph

_Floats = npt.NDArray[np.float32]


class LayerGraph:
    """A model whose constants can be read and replaced. Nodes are never added or removed.

    Args:
        path: the float model; its external data are read where a constant is asked for.

    Attributes:
        proto: the `ModelProto`, without its external data.
        producers: the node that computes each tensor.
        readers: the nodes that read each tensor; a node that reads it twice stands there twice, and one whose subgraph
            does stands there too.
        outputs: the graph's outputs.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.proto = load_graph(path)
        graph = self.proto.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self.producers = {name: node for node in graph.node for name in node.output if name}
        self.readers: dict[str, list[Any]] = defaultdict(list)
        for node in graph.node:
            for name in reads(node):
                self.readers[name].append(node)
        self.outputs = {value.name for value in graph.output}

    @property
    def nodes(self) -> list[Any]:
        """In the order of the graph, in which each stands behind those that it reads of."""
        return list(self.proto.graph.node)

    def constant(self, name: str) -> _Floats | None:
        """The value of a float32 initializer, a copy; None where there is no such one."""
        import onnx

        tensor = self._constants.get(name)
        if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
            return None
        return onnx.numpy_helper.to_array(tensor, str(self._path.parent)).copy()

    def input_constant(self, node: Any, position: int) -> _Floats | None:
        """The value of a node's constant input; None where there is none."""
        return self.constant(node.input[position]) if len(node.input) > position else None

    def only_reader(self, name: str) -> Any:
        """The one node that reads a tensor; None where there are several, or it is an output of the graph."""
        readers = self.readers[name]
        return readers[0] if len(readers) == 1 and name not in self.outputs else None

    def replace(self, node: Any, position: int, values: _Floats, suffix: str) -> str:
        """Gives a node another constant: in place where it is the only reader, else under a name of its own.

        Returns:
            The name of the constant.
        """
        from onnx import numpy_helper

        old = node.input[position]
        if self.only_reader(old) is node:
            self._constants[old].CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), old))
            return str(old)
        name = f"{node.output[0]}__{suffix}"
        self.proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values, np.float32), name))
        self._constants[name] = self.proto.graph.initializer[-1]
        self.readers[old].remove(node)
        self.readers[name].append(node)
        node.input[position] = name
        return name

    def save(self, output: Path) -> None:
        """Writes the model as it is now, beside links to its external data."""
        save_with_links(self.proto, self._path, output)


def attribute(node: Any, name: str, default: Any) -> Any:
    """A node's attribute as a Python value, or the default."""
    import onnx

    return next((onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name), default)


def title(node: Any) -> str:
    """How a node is called in a message: by its name, or by its output where it has none."""
    return str(node.name or node.output[0])


def listed(names: list[str], most: int = 3) -> str:
    """The first names of a list, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
