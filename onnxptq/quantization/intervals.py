"""Bounds that no value of a tensor can leave, whatever admissible input the float model is given.

Interval arithmetic over the graph: one rule an operator (`_interval_rules.py`), one interval a tensor, all channels
together. Every rule is sound: it rounds outward by what float32 evaluation may be off. An operator without a rule gives
(-inf, inf), so a bound is never wrong, only wide; behind a few convolutions it is far wider than any real activation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.quantization._interval_rules import EVERYTHING, RULES, Interval, Operator, shared_by_all_outputs

__all__ = ["EVERYTHING", "Interval", "attained", "propagate"]

_ATTAINED = frozenset(
    {
        *("Identity", "Dropout", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "Slice", "Gather"),
        *("Split", "Concat", "Pad", "Add", "Sub", "Mul", "Div", "Neg", "Relu", "Clip", "MaxPool"),
    }
)
"""Operators whose bounds are really reached where those of their input are: what stands between an input and the first
layer. Not those that average, whose ends only a flat input would reach."""


def propagate(model: Path, inputs: Mapping[str, Interval]) -> dict[str, Interval]:
    """The bounds of every tensor of the main graph.

    Args:
        model: the folded float model.
        inputs: bounds of the model's inputs; one that is left out may hold anything.

    Returns:
        name -> (lower, upper) for inputs and for outputs of nodes; infinite where nothing is known.
    """
    graph = _Graph(model)
    found = {name: inputs.get(name, EVERYTHING) for name in graph.inputs}
    for node in graph.nodes:
        found.update(graph.outputs_of(node, found))
    return found


def attained(model: Path, inputs: Mapping[str, Interval]) -> dict[str, Interval]:
    """The bounded inputs, and the tensors that follow from one of them by steps that keep bounds exact.

    Normalisation, layout and padding in front of the first layer are such steps: what comes behind them really takes
    the values at both ends.

    Args:
        model: the folded float model.
        inputs: exact bounds of inputs.
    """
    graph = _Graph(model)
    found = {name: inputs[name] for name in graph.inputs if name in inputs}
    for node in graph.nodes:
        sources = {name for name in node.input if name and name not in graph.constants}
        if (
            node.op_type in _ATTAINED
            and sources
            and sources <= found.keys()
            and (len(sources) == 1 or node.op_type == "Concat")
        ):
            outputs = graph.outputs_of(node, found)
            found.update({name: bound for name, bound in outputs.items() if np.isfinite(bound).all()})
    return found


class _Graph:
    """What the rules look up of a model: constants, shapes, opset."""

    def __init__(self, path: Path) -> None:
        import onnx

        # Weights in files of their own are read one by one, when a rule asks for them.
        proto = onnx.load(str(path), load_external_data=False)
        self.nodes = proto.graph.node
        self._folder = str(path.resolve().parent)
        self.constants: dict[str, Any] = {tensor.name: tensor for tensor in proto.graph.initializer}
        for node in self.nodes:
            if node.op_type == "Constant" and node.attribute[0].HasField("t"):
                self.constants[node.output[0]] = node.attribute[0].t
        self.inputs = [value.name for value in proto.graph.input if value.name not in self.constants]
        values = [*proto.graph.input, *proto.graph.value_info, *proto.graph.output]
        self._shapes = {
            value.name: tuple(_sizes(value)) for value in values if value.type.tensor_type.HasField("shape")
        }

    def outputs_of(self, node: Any, found: Mapping[str, Interval]) -> dict[str, Interval]:
        """The bounds of what a node computes, by name."""
        rule = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        bound = EVERYTHING
        if rule is not None:
            bound = rule(
                Operator(
                    node=node,
                    inputs=tuple(self._bound(name, found) for name in node.input),
                    constant=lambda position: self._value(node.input[position]) if position < len(node.input) else None,
                    shape=self._shapes.get(node.input[0]) if node.input else None,
                )
            )
        every = shared_by_all_outputs(node.op_type)
        return {
            name: bound if position == 0 or every else EVERYTHING
            for position, name in enumerate(node.output)
            if name and name not in self.constants
        }

    def _bound(self, name: str, found: Mapping[str, Interval]) -> Interval:
        if name not in self.constants:
            return found.get(name, EVERYTHING)
        value = self._value(name)
        if value is None or not value.size or not np.issubdtype(value.dtype, np.number) or not np.isfinite(value).all():
            return EVERYTHING
        return float(value.min()), float(value.max())

    def _value(self, name: str) -> npt.NDArray[Any] | None:
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor, self._folder)


def _sizes(value: Any) -> Iterator[int | None]:
    for dimension in value.type.tensor_type.shape.dim:
        yield dimension.dim_value if dimension.HasField("dim_value") else None
