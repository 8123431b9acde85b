"""Grids of weights: which integers a weight may become, and how the static quantizer is held to them.

A transform that chose the integers itself hands over floats that lie exactly on a grid. The quantizer would compute
another one, since it takes the scale from the largest weight, which rounding may have moved. So the grid goes with the
weights, as ONNX Runtime's extra option `TensorQuantOverrides`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.external import load_with_weights
from onnxptq.graphs.view import GraphView
from onnxptq.quantization._template import build_template
from onnxptq.quantization.settings import OVERRIDES, QuantizerSettings

if TYPE_CHECKING:
    import onnx

WEIGHTED = ("Conv", "Gemm", "MatMul")
"""Operators whose second input the quantizer makes integers of."""

_Floats = npt.NDArray[np.float32]
_Integers = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Grid:
    """What the integers of a weight are worth: (integer - zero point) * scale.

    Attributes:
        scale: float32, () for one scale, (C,) for one a channel.
        zero_point: int32, of the same shape.
        type: name of a `QuantType`, "QInt8".
        axis: of the channels; None where there is one scale.
    """

    scale: _Floats
    zero_point: _Integers
    type: str
    axis: int | None

    def limits(self, settings: QuantizerSettings) -> tuple[int, int]:
        """The smallest and the largest integer that the quantizer would use."""
        from onnxruntime.quantization import QuantType
        from onnxruntime.quantization.quant_utils import get_qmin_qmax_for_qType

        symmetric = not self.zero_point.any() and not self.type.startswith("QUInt")
        low, high = get_qmin_qmax_for_qType(QuantType[self.type].tensor_type, settings.reduce_range, symmetric)
        return int(low), int(high)

    def aligned(self, values: npt.NDArray[Any], rank: int) -> npt.NDArray[Any]:
        """Scales or zero points in the shape in which they meet a weight of this rank."""
        if self.axis is None:
            return values
        return values.reshape([-1 if position == self.axis % rank else 1 for position in range(rank)])

    def steps(self, weight: _Floats) -> _Floats:
        """The weight in units of the grid, before rounding."""
        scale, zero = (self.aligned(values, weight.ndim) for values in (self.scale, self.zero_point))
        steps: _Floats = (weight / scale + zero).astype(np.float32)
        return steps

    def worth(self, integers: npt.NDArray[Any]) -> _Floats:
        """What integers are worth, bit for bit as DequantizeLinear computes it."""
        scale, zero = (self.aligned(values, integers.ndim) for values in (self.scale, self.zero_point))
        worth: _Floats = (integers.astype(np.int32) - zero).astype(np.float32) * scale
        return worth


def pinned(settings: QuantizerSettings, grids: Mapping[str, Grid]) -> QuantizerSettings:
    """Settings under which the quantizer keeps to the grids, beside what it was told already."""
    if not grids:
        return settings
    overrides = {**settings.extra_options.get(OVERRIDES, {}), **{name: _override(grids[name]) for name in grids}}
    return replace(settings, extra_options={**settings.extra_options, OVERRIDES: overrides})


def _override(grid: Grid) -> list[dict[str, Any]]:
    from onnxruntime.quantization import QuantType

    entries: list[dict[str, Any]] = [
        {"scale": scale, "zero_point": zero, "quant_type": QuantType[grid.type]}
        for scale, zero in zip(np.atleast_1d(grid.scale), np.atleast_1d(grid.zero_point), strict=True)
    ]
    return entries if grid.axis is None else [{**entry, "axis": grid.axis} for entry in entries]


def stock_grids(
    model: Path, settings: QuantizerSettings, operators: Collection[str] = WEIGHTED
) -> dict[str, tuple[Grid, _Integers]]:
    """The grid that the quantizer gives each weight of these operators, and its integers on it, by initializer.

    The stock quantizer is asked, so its rules of symmetry, channels and exclusion need not be known here.

    Raises:
        ModelError: as `build_template`.
    """
    return read_grids(build_template(model, settings).model.graph, operators)


def read_grids(graph: Any, operators: Collection[str] = WEIGHTED) -> dict[str, tuple[Grid, _Integers]]:
    """Grids and integers of the weights of a quantized graph, by the name of the float initializer."""
    view = GraphView.of(graph)
    found: dict[str, tuple[Grid, _Integers]] = {}
    for node in graph.node:
        dequantize = view.dequantize(node.input[1]) if node.op_type in operators else None
        grid = _grid(view, dequantize) if dequantize is not None else None
        if dequantize is None or grid is None:
            continue
        quantize = view.quantize_before(dequantize)
        if (stored := view.constant(dequantize.input[0])) is not None:
            integers = _array(stored).astype(np.int32)
            found[dequantize.input[0].removesuffix("_quantized")] = grid, integers
        elif quantize is not None and (weight := view.constant(quantize.input[0])) is not None:  # As for TensorRT.
            found[quantize.input[0]] = grid, _rounded(_array(weight), grid)
    return found


def _grid(view: GraphView, dequantize: onnx.NodeProto) -> Grid | None:
    from onnxruntime.quantization import QuantType

    scale, zero = (view.constant(name) for name in dequantize.input[1:3])
    if scale is None or zero is None:
        return None
    kind = next((kind.name for kind in QuantType if kind.tensor_type == zero.data_type), None)
    values = _array(scale).astype(np.float32)
    if kind is None or values.ndim > 1:  # Of 8-bit floats, or of blocks.
        return None
    axis = next((attribute.i for attribute in dequantize.attribute if attribute.name == "axis"), 1)
    return Grid(values, _array(zero).astype(np.int32), kind, axis if values.ndim else None)


def _rounded(weight: _Floats, grid: Grid) -> _Integers:
    """QuantizeLinear, as ONNX defines it: the type's whole range is used."""
    bits = int("".join(filter(str.isdigit, grid.type)))
    low = 0 if grid.type.startswith("QUInt") else -(1 << (bits - 1))
    scale, zero = (grid.aligned(values, weight.ndim) for values in (grid.scale, grid.zero_point))
    integers: _Integers = np.clip(np.rint(weight / scale) + zero, low, low + (1 << bits) - 1).astype(np.int32)
    return integers


def moved_grids(written: Path, grids: Mapping[str, Grid]) -> tuple[str, ...]:
    """Those of `grids` that the quantizer did not keep to in the model that it wrote, by initializer.

    It enlarges a scale where a bias would not fit int32 otherwise, which happens to channels whose weights are all but
    zero.
    """
    if not grids:
        return ()
    found = read_grids(load_with_weights(written).graph)
    return tuple(
        name
        for name, grid in grids.items()
        if name not in found
        or not np.array_equal(found[name][0].scale, grid.scale)
        or not np.array_equal(found[name][0].zero_point, grid.zero_point)
    )


def _array(tensor: Any) -> npt.NDArray[Any]:
    from onnx import numpy_helper

    return numpy_helper.to_array(tensor)
