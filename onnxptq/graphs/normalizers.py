"""Normalizers inside a graph: the first nodes behind an input, where they only move and stretch it by constants.

Exporters put them there in several forms: Sub and Div, Mul and Add, BatchNormalization on the input, and the Scaler of
ai.onnx.ml. They say how the training data was distributed. Where ONNX Runtime's quantizer quantizes them (all but Sub
and Div), one scale serves columns of different units, and small columns are lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.view import GraphView
from onnxptq.signature import Normalizer

if TYPE_CHECKING:
    import onnx

Array = npt.NDArray[Any]

LARGEST = 1 << 16
"""Numbers of a constant up to which it may be one of a normalizer; weights of a layer are not read."""

_PASSING = ("Identity", "Dropout", "Cast")


@dataclass(frozen=True)
class InputChain:
    """The first nodes behind one input.

    Attributes:
        input: its name.
        nodes: those that only move and stretch it, in the order of the graph.
        output: the tensor behind them; the input itself where there are none.
        normalizer: what they subtract and divide by, or None where they do not standardize.
    """

    input: str
    nodes: tuple[Any, ...]
    output: str
    normalizer: Normalizer | None


def input_chains(graph: onnx.GraphProto) -> tuple[InputChain, ...]:
    """The chain behind every input of a main graph, in the order of the inputs."""
    view = GraphView.of(graph)
    given = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in given]
    return tuple(_chain(view, value.name, len(value.type.tensor_type.shape.dim)) for value in inputs)


UNITS = 100.0
"""Ratio of the largest to the smallest weights of a layer's input columns from which their units differ: behind a
normalizer, weights of trained layers differed by at most 5 on the table nets at hand."""


COLUMNS = 256
"""Columns up to which weights are taken to tell units: a flattened picture has more, and its corners weigh nothing."""


@dataclass(frozen=True)
class MixedUnits:
    """A place where one scale would serve columns of different units.

    Attributes:
        input: of the model.
        tensor: the one that holds such columns.
        nodes: those that read it, or standardize it; quantized, they lose the small columns.
        ratio: of the largest unit to the smallest.
    """

    input: str
    tensor: str
    nodes: tuple[Any, ...]
    ratio: float

    @property
    def quantizable(self) -> tuple[Any, ...]:
        """Those of the nodes that ONNX Runtime's quantizer would give one scale for all columns."""
        return tuple(node for node in self.nodes if node.op_type in _ONE_SCALE)


_ONE_SCALE = ("Mul", "Add", "BatchNormalization", "Gemm", "MatMul")


def mixed_units(graph: onnx.GraphProto) -> tuple[MixedUnits, ...]:
    """Inputs whose columns or channels differ by `UNITS`, as a normalizer's constants or the first layer's weights say.

    A layer that was trained on standardized columns and reads them raw, as after folding the normalizer into it, has
    weights in inverse proportion to their units. Columns without weight do not count.
    """
    view, found = GraphView.of(graph), []
    for chain in input_chains(graph):
        if chain.normalizer is not None:
            ratio = max(chain.normalizer.deviation) / min(chain.normalizer.deviation)
            if ratio >= UNITS:
                found.append(MixedUnits(chain.input, chain.input, chain.nodes, ratio))
            continue
        tensor = _joined(view, chain.output)
        layers = [(node, _column_weights(view, node, tensor)) for node, _ in view.readers(tensor)]
        ratios = [float(w.max() / w.min()) for _, w in layers if w is not None and len(w) > 1]
        if ratios and max(ratios) >= UNITS:
            found.append(MixedUnits(chain.input, tensor, tuple(n for n, w in layers if w is not None), max(ratios)))
    return tuple(found)


def _joined(view: GraphView, tensor: str) -> str:
    """The tensor behind the operators that only join or reshape columns."""
    while len(readers := view.readers(tensor)) == 1 and readers[0][0].op_type in ("Concat", "Flatten", "Reshape"):
        tensor = readers[0][0].output[0]
    return tensor


def _column_weights(view: GraphView, node: onnx.NodeProto, tensor: str) -> Array | None:
    """The size of a linear layer's weights of each column of its input, those of none left out; None for others."""
    if node.op_type not in ("Gemm", "MatMul") or node.input[0] != tensor or node.domain not in ("", "ai.onnx"):
        return None
    flags = {attribute.name: attribute.i for attribute in node.attribute}
    weight = view.constant(node.input[1])
    if weight is None or len(weight.dims) != 2 or flags.get("transA"):
        return None
    values = _numbers(weight, LARGEST)
    if values is None:
        return None
    sizes = np.linalg.norm(values.astype(np.float64), axis=1 if not flags.get("transB") else 0)
    return np.asarray(sizes[sizes > 0]) if len(sizes) <= COLUMNS else None


@dataclass
class _Affine:
    """gain * x + shift, elementwise, as far as a chain was read; and the statistics of a BatchNormalization in it."""

    gain: Array
    shift: Array
    moved: bool = False
    stretched: bool = False
    mean: Array | None = None
    deviation: Array | None = None


def _chain(view: GraphView, name: str, rank: int) -> InputChain:
    state = _Affine(np.ones(1), np.zeros(1))
    nodes: list[Any] = []
    tensor = name
    while len(readers := view.readers(tensor)) == 1 and tensor not in view.outputs:
        ((node, position),) = readers
        if position < 0 or not _step(view, node, tensor, rank, state):
            break
        nodes.append(node)
        tensor = node.output[0]
    return InputChain(name, tuple(nodes), tensor, _normalizer(state, rank))


def _step(view: GraphView, node: onnx.NodeProto, tensor: str, rank: int, state: _Affine) -> bool:
    """Takes one node into the affine map; False where it is none."""
    if node.op_type in _PASSING and node.domain in ("", "ai.onnx"):
        return True
    if node.op_type == "BatchNormalization" and node.domain in ("", "ai.onnx"):
        return _batch_normalization(view, node, tensor, rank, state)
    if node.op_type == "Scaler" and node.domain == "ai.onnx.ml":
        given = {attribute.name: np.asarray(attribute.floats, np.float64) for attribute in node.attribute}
        gain = given.get("scale", np.ones(1))
        _apply(state, gain, -given.get("offset", np.zeros(1)) * gain, moved=True, stretched=True)
        return True
    if node.op_type not in ("Add", "Sub", "Mul", "Div") or node.domain not in ("", "ai.onnx"):
        return False
    first, second = node.input
    value = _value(view.constant(second if first == tensor else first), rank)
    if value is None or first == second:
        return False
    if node.op_type == "Add":
        _apply(state, np.ones(1), value, moved=True)
    elif node.op_type == "Sub":
        swapped = second == tensor
        _apply(state, np.full(1, -1.0 if swapped else 1.0), value if swapped else -value, moved=True)
    elif node.op_type == "Mul":
        _apply(state, value, np.zeros(1), stretched=True)
    elif second == tensor or not np.all(value):  # A constant over the input is no normalizer.
        return False
    else:
        _apply(state, 1 / value, np.zeros(1), stretched=True)
    return True


def _batch_normalization(view: GraphView, node: onnx.NodeProto, tensor: str, rank: int, state: _Affine) -> bool:
    parameters = [_value(view.constant(name), 1) for name in node.input[1:5]]
    if node.input[0] != tensor or len(parameters) < 4 or any(value is None for value in parameters):
        return False
    epsilon = next((attribute.f for attribute in node.attribute if attribute.name == "epsilon"), 1e-5)
    shape = (-1, *(1,) * (rank - 2))
    gamma, beta, mean, variance = (np.asarray(value).reshape(shape) for value in parameters)
    deviation = np.sqrt(np.maximum(variance + epsilon, 1e-12))
    if np.all(state.gain):
        # Its moments are those of what it reads: gain * x + shift.
        state.mean, state.deviation = (mean - state.shift) / state.gain, deviation / np.abs(state.gain)
    _apply(state, gamma / deviation, beta - gamma * mean / deviation, moved=True, stretched=True)
    return True


def _apply(state: _Affine, gain: Array, shift: Array, *, moved: bool = False, stretched: bool = False) -> None:
    state.gain, state.shift = state.gain * gain, state.shift * gain + shift
    state.moved |= moved
    state.stretched |= stretched


def _normalizer(state: _Affine, rank: int) -> Normalizer | None:
    if not (state.moved and state.stretched):
        return None
    mean, deviation = state.mean, state.deviation
    if mean is None or deviation is None:
        if not np.all(state.gain):
            return None
        mean, deviation = -state.shift / state.gain, 1 / np.abs(state.gain)
    mean, deviation = np.broadcast_arrays(mean, deviation)
    if not (np.isfinite(mean).all() and np.isfinite(deviation).all() and (deviation > 0).all()):
        return None
    varying = [axis for axis, size in enumerate(mean.shape) if size > 1]
    if len(varying) > 1:
        return None
    axis = varying[0] - mean.ndim if varying else -1
    return Normalizer(tuple(map(float, mean.ravel())), tuple(map(float, deviation.ravel())), axis)


def _numbers(tensor: Any, most: int) -> Array | None:
    """The numbers of a constant, None where it has none, more than `most`, or they lie in another file."""
    from onnx import external_data_helper, numpy_helper

    if tensor is None or external_data_helper.uses_external_data(tensor) or np.prod(tensor.dims, dtype=int) > most:
        return None
    try:
        value = numpy_helper.to_array(tensor)
    except ValueError:  # It is malformed, which is said where the model is checked or run.
        return None
    return value if np.issubdtype(value.dtype, np.number) and value.size else None


def _value(tensor: Any, rank: int) -> Array | None:
    """The numbers of a small constant, without a batch axis of size 1; None where it is none of a normalizer."""
    value = _numbers(tensor, LARGEST)
    if value is None:
        return None
    if value.ndim == rank and value.shape[0] == 1:
        value = value[0]
    if value.ndim >= max(rank, 2):
        return None
    return np.atleast_1d(value.astype(np.float64))
