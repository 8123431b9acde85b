"""Numbers of a model that are no data: what hides in a mask or fills a border, -inf, -3.4e38, -1e9.

In a range they leave nothing for the data: one step of an 8-bit scale is then larger than all of them. A model holds
them as constants that a Where chooses, an Add or a Mul brings in, a Pad fills with; what reads them (a Softmax, a
maximum) asks for small and not for exact. So

1. nodes that read such a constant stay in float (`quantization.kept_in_float`),
2. in tensors that they reach, calibration looks at the other numbers (`Fills.without`); INT8 then holds a fill as the
   range's end, which in front of a Softmax lies `MARGIN` below the least real score.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.parts import is_standard

if TYPE_CHECKING:
    import onnx

FILL = 1e9
"""From here on a constant's magnitude is no data: TensorFlow's masks are -1e9, PyTorch's the least float or -inf."""

_LOWEST_FLOAT16 = 65504.0

_LARGEST_MASK = 1 << 24
"""Numbers of a constant that is looked at: a mask of 4,096 tokens. What is larger is a table of embeddings."""

MARGIN = 8.0
"""exp(-8) is 0.0003: a hundred hidden scores together weigh 3 % of the least real one."""

_BRINGING = frozenset({"Where", "Add", "Sub", "Mul", "Pad", "Concat", "Max", "Min", "ScatterND", "ScatterElements"})
"""Operators through which a fill comes among data, or is scaled into being one ((1 - mask) * -3.4e38)."""

_MOVING = frozenset(
    {
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Expand", "Tile", "Slice", "Gather", "Identity"),
        *("Cast", "Split", "Trilu", "GatherElements", "GatherND", "MaxPool", "ReduceMax", "ReduceMin", "Neg"),
    }
)
"""Operators that hand on what they read."""

_SOFTMAX = ("Softmax", "LogSoftmax")


def is_fill(values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Which numbers of an array are fills; NaN is none."""
    magnitude = np.abs(values.astype(np.float32) if values.dtype == np.float16 else values)
    return np.asarray((magnitude >= FILL) | (magnitude == _LOWEST_FLOAT16), np.bool_)


@dataclass(frozen=True)
class Fills:
    """Where fills are in a graph.

    Attributes:
        constants: names of constants that hold a fill.
        reached: names of the computed tensors that can hold one.
        softmax: those of them that a Softmax reads.
    """

    constants: frozenset[str] = frozenset()
    reached: frozenset[str] = field(default_factory=frozenset)
    softmax: frozenset[str] = field(default_factory=frozenset)

    def without(self, name: str, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The values of a tensor with 0, which every range holds, in the place of fills.

        In front of a Softmax it is what lies `MARGIN` below the least real score, so that what is hidden stays hidden.
        """
        if name not in self.reached or not np.issubdtype(values.dtype, np.floating):
            return values
        filled = is_fill(values)
        if not filled.any():
            return values
        real = values[~filled & ~np.isnan(values)]
        low = float(real.min()) - MARGIN if name in self.softmax and real.size else 0.0
        return np.where(filled, values.dtype.type(low), values)


def find_fills(graph: onnx.GraphProto) -> Fills:
    """The fills of a folded model's main graph. Constants in files of their own are not looked at: they are weights."""
    constants = frozenset(_filled_constants(graph))
    reached: set[str] = set()
    for node in graph.node:
        if not is_standard(node):
            continue
        bringing = node.op_type in _BRINGING and any(name in constants or name in reached for name in node.input)
        moving = node.op_type in _MOVING and any(n in reached or n in constants for n in node.input[:1])
        made = node.op_type == "ConstantOfShape" and any(
            a.HasField("t") and is_fill(_array(a.t)).any() for a in node.attribute
        )
        if bringing or moving or made:
            reached.update(name for name in node.output if name)
    read = {node.input[0] for node in graph.node if node.op_type in _SOFTMAX}
    return Fills(constants, frozenset(reached), frozenset(reached & read))


def _filled_constants(graph: onnx.GraphProto) -> Iterable[str]:
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
    weights = weights_of(graph)
    for tensor in graph.initializer:
        plain = tensor.data_type in floats and not tensor.external_data and math.prod(tensor.dims) <= _LARGEST_MASK
        if plain and tensor.name not in weights and is_fill(_array(tensor)).any():
            yield tensor.name


WEIGHT_INPUTS: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (0, 1, 2),
    "MatMul": (0, 1),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "BatchNormalization": (1, 2, 3, 4),
}
"""Where operators read weights, which are numbers to compute with and no fills."""


def weights_of(graph: onnx.GraphProto) -> set[str]:
    """Names of the constants, and of other tensors, that operators of the main graph compute with as weights."""
    return {
        node.input[position]
        for node in graph.node
        for position in WEIGHT_INPUTS.get(node.op_type, ())
        if position < len(node.input)
    }


def _array(tensor: onnx.TensorProto) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)
