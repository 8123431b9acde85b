"""A layer as a matrix product: for chosen positions of its output, the values of the input that it is made of.

A Conv's output at one position is its weight times the patch of the input under the kernel. So a Conv of any rank, with
groups, strides, pads and dilations, a Gemm and a MatMul become the same thing to whoever changes their weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.quantization.layer_graph import LayerGraph, attribute

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class LinearLayer:
    """A Conv, Gemm or MatMul with constant weight and bias.

    Attributes:
        node: the `NodeProto`.
        groups: of a Conv; 1 for the others.
        bias: as it counts, (O,) of all output channels.
        low, high: what an activation right behind cuts the output to: 0 and infinity for a Relu.
    """

    node: Any
    groups: int
    bias: _Floats
    low: float
    high: float

    @property
    def source(self) -> str:
        """The tensor that it reads."""
        return str(self.node.input[0])

    @property
    def weight(self) -> str:
        """Name of its weight."""
        return str(self.node.input[1])

    @property
    def output(self) -> str:
        """The tensor that it computes."""
        return str(self.node.output[0])

    def to_rows(self, weight: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """A weight, or something of its shape, as (groups, outputs of a group, inputs of one output)."""
        if self.node.op_type == "Conv":
            return weight.reshape(self.groups, weight.shape[0] // self.groups, -1)
        return (weight if attribute(self.node, "transB", 0) else weight.T)[None]

    def from_rows(self, rows: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The inverse of `to_rows`."""
        if self.node.op_type == "Conv":
            return rows.reshape(shape)
        matrix: npt.NDArray[Any] = rows[0]
        return matrix if attribute(self.node, "transB", 0) else matrix.T

    def outputs(self, values: _Floats, positions: npt.NDArray[np.int64]) -> _Floats:
        """The output at some positions, without what is cut off: float32, (P, O)."""
        flat = np.moveaxis(values, 1, -1) if self.node.op_type == "Conv" else values
        return flat.reshape(-1, flat.shape[-1])[positions]

    def positions(self, values: _Floats) -> int:
        """How many positions an output has."""
        return values.size // len(self.bias)

    def inputs(self, values: _Floats, weight: _Floats, positions: npt.NDArray[np.int64]) -> _Floats:
        """What the output at some positions is made of: float32, (groups, P, inputs of one output).

        Args:
            values: the layer's input.
            weight: its weight, for the shape alone.
            positions: as `outputs` takes them.
        """
        if self.node.op_type == "Conv":
            return self._patches(values, weight.shape[2:], positions)
        flat = values.T if attribute(self.node, "transA", 0) else values
        rows = flat.reshape(-1, flat.shape[-1])[positions]
        return (rows * np.float32(attribute(self.node, "alpha", 1.0)))[None]

    def _patches(self, values: _Floats, kernel: tuple[int, ...], positions: npt.NDArray[np.int64]) -> _Floats:
        rank = len(kernel)
        strides = attribute(self.node, "strides", [1] * rank)
        dilations = attribute(self.node, "dilations", [1] * rank)
        spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        begins, ends = self._pads(values.shape[2:], spans, strides)
        padded = np.pad(values, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
        windows = np.lib.stride_tricks.sliding_window_view(padded, spans, axis=tuple(range(2, 2 + rank)))
        chosen: Any = (..., *(slice(None, None, step) for step in (*strides, *dilations)))
        windows = windows[chosen]
        batch, *places = np.unravel_index(positions, (windows.shape[0], *windows.shape[2 : 2 + rank]))
        found = windows[(batch, slice(None), *places)]  # (P, C, kernel...): a copy of the chosen patches alone.
        grouped = found.reshape(len(positions), self.groups, -1)
        return np.ascontiguousarray(grouped.transpose(1, 0, 2))

    def _pads(self, shape: tuple[int, ...], spans: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
        """Zeros in front of and behind each axis."""
        rank = len(spans)
        how = attribute(self.node, "auto_pad", b"NOTSET").decode()
        if how == "NOTSET":
            pads = attribute(self.node, "pads", [0] * 2 * rank)
            return list(pads[:rank]), list(pads[rank:])
        if how == "VALID":
            return [0] * rank, [0] * rank
        totals = [
            max((-(-size // stride) - 1) * stride + span - size, 0)
            for size, stride, span in zip(shape, strides, spans, strict=True)
        ]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        return (small, large) if how == "SAME_UPPER" else (large, small)


def linear_layer(graph: LayerGraph, node: Any) -> LinearLayer | None:
    """The layer that a node is; None where its weight is shared or no constant matrix, or its bias not constant."""
    weight = graph.input_constant(node, 1) if node.op_type in ("Conv", "Gemm", "MatMul") else None
    if weight is None or graph.only_reader(node.input[1]) is not node:
        return None
    if node.op_type != "Conv" and weight.ndim != 2:
        return None
    by_rows = node.op_type == "Conv" or attribute(node, "transB", 0)
    channels = weight.shape[0 if by_rows else 1]
    bias = np.zeros(channels, np.float32)
    if len(node.input) > 2 and node.input[2]:
        given = graph.input_constant(node, 2)
        if given is None or given.size not in (1, channels):
            return None
        bias = np.broadcast_to(given.ravel(), channels) * np.float32(attribute(node, "beta", 1.0))
    return LinearLayer(node, attribute(node, "group", 1), bias, *_cut(graph, node))


def _cut(graph: LayerGraph, node: Any) -> tuple[float, float]:
    reader: Any = graph.only_reader(node.output[0])
    operator = reader.op_type if reader is not None else ""
    if operator not in ("Relu", "Clip"):
        return -np.inf, np.inf
    if operator == "Relu":
        return 0.0, np.inf
    limits = [graph.input_constant(reader, position) for position in (1, 2)]
    low, high = (None if limit is None else float(limit.ravel()[0]) for limit in limits)
    return -np.inf if low is None else low, np.inf if high is None else high
