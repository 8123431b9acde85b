"""AdaRound: of the two integers beside each weight the one is taken that keeps the layer's output.

Nagel et al., Up or down? Adaptive rounding for post-training quantization (ICML 2020, arXiv 2004.10568).

1. Each Conv, Gemm and MatMul keeps the grid that the quantizer would give its weight, but for the scale, which is
   shrunk to where rounding to nearest costs the least squared error.
2. Layer by layer, level by level: positions of its output are drawn from each sample, with the float net's output there
   and the input in the net whose earlier weights are rounded already. `learned_rounding` chooses the integers.
3. The weights become what the integers are worth, and the grid is pinned.

Activations stay in float while this is done: their ranges come later, from the rounded model.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, UsageError
from onnxptq.methods import METHODS, Method
from onnxptq.progress import Progress, silent
from onnxptq.quantization._inference import load_graph
from onnxptq.quantization.grids import Grid, stock_grids
from onnxptq.quantization.layer_graph import LayerGraph, listed, title
from onnxptq.quantization.layer_rows import LinearLayer, linear_layer
from onnxptq.quantization.learned_rounding import RoundingProblem, learn_rounding, require_torch
from onnxptq.quantization.level_by_level import LevelWalk
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS, Changed, WeightTransform
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.recipe import Recipe, Step
from onnxptq.signature import Feeds

NAME = "adaround"

ROW_BYTES = 32 << 20
"""Input rows of one layer that are held. A Conv of 64 channels and 3 by 3 pixels gets 14,000 of them."""

_SHRINK = np.linspace(0.4, 1.0, 31, dtype=np.float32)
"""Scales that are tried, in parts of the quantizer's own."""

_Floats = npt.NDArray[np.float32]


def round_adaptively(
    model: Path,
    samples: Any,
    output: Path,
    *,
    settings: QuantizerSettings,
    bits: int = 8,
    iterations: int = 1000,
    seed: int = 0,
    progress: Progress = silent,
) -> Changed:
    """Writes the float model with rounded weights. See the module.

    Args:
        model: the folded FP32 model.
        samples: (id, feeds), the same at each iteration, with a length.
        output: the file to write.
        settings: what the quantizer will be told.
        bits: of the weights, 8 or 4.
        iterations: steps of gradient descent a layer; 0 rounds to nearest on the same grid, without PyTorch.
        seed: of the positions and rows that are drawn.
        progress: called with layers done and their number.

    Returns:
        The grids, and which layers were passed over.

    Raises:
        UsageError: another number of bits or iterations; PyTorch is missing.
        DataError: a sample does not fit the model, or gives NaN or infinity.
    """
    if bits not in (4, 8):
        raise UsageError(f"adaround rounds to 8 or 4 bits, got bits={bits}.")
    if iterations < 0:
        raise UsageError(f"adaround's iterations must not be negative, got {iterations}.")
    if iterations:
        require_torch()
    graph = LayerGraph(model)
    kind = "QUInt" if settings.weight_type.startswith("QUInt") else "QInt"
    settings = replace(settings, weight_type=f"{kind}{bits}")
    stock = {name: grid for name, (grid, _) in stock_grids(model, settings).items()}
    readers = [node for node in graph.nodes if len(node.input) > 1 and node.input[1] in stock]
    layers = {layer.output: layer for layer in (linear_layer(graph, node) for node in readers) if layer}
    passed = [title(node) for node in readers if node.output[0] not in layers]
    grids = {layer.weight: _shrunk(graph, layer, stock[layer.weight], settings) for layer in layers.values()}
    rounding = _Rounding(graph, grids, settings, iterations, seed)
    if iterations:
        _learn(model, samples, rounding, layers, progress)
    else:
        for layer in layers.values():
            rounding.set_nearest(layer)
    graph.save(output)
    return Changed(grids, _notes(bits, passed))


def _notes(bits: int, passed: list[str]) -> tuple[str, ...]:
    notes = []
    if passed:
        notes.append(
            f"adaround left {len(passed)} layers to the quantizer, because their weight is shared or their bias is not "
            f"constant ({listed(passed)})."
        )
    if bits == 4:
        notes.append("the CPU provider computes layers with 4-bit weights in float: accuracy can be judged, not speed.")
    return tuple(notes)


def _shrunk(graph: LayerGraph, layer: LinearLayer, stock: Grid, settings: QuantizerSettings) -> Grid:
    """The grid of the least squared error among those of smaller scales."""
    weight = graph.input_constant(layer.node, 1)
    assert weight is not None  # `linear_layer` looked.
    low, high = stock.limits(settings)
    axes = tuple(axis for axis in range(weight.ndim) if stock.axis is None or axis != stock.axis % weight.ndim)
    errors = []
    for factor in _SHRINK:
        grid = replace(stock, scale=stock.scale * factor)
        worth = grid.worth(np.clip(np.rint(grid.steps(weight)), low, high))
        errors.append(np.square(worth - weight, dtype=np.float64).sum(axis=axes))
    return replace(stock, scale=np.asarray(stock.scale * _SHRINK[np.argmin(errors, axis=0)], np.float32))


@dataclass(frozen=True)
class _Rounding:
    """What all layers are rounded with."""

    graph: LayerGraph
    grids: Mapping[str, Grid]
    settings: QuantizerSettings
    iterations: int
    seed: int

    def set_nearest(self, layer: LinearLayer) -> None:
        weight, grid = self.weight(layer), self.grids[layer.weight]
        self._set(layer, np.clip(np.rint(grid.steps(weight)), *grid.limits(self.settings)))

    def set_learned(self, layer: LinearLayer, inputs: _Floats, wanted: _Floats, seed: int) -> None:
        weight, grid = self.weight(layer), self.grids[layer.weight]
        scale, zero = (
            layer.to_rows(np.broadcast_to(grid.aligned(values, weight.ndim), weight.shape)).astype(np.float32)
            for values in (grid.scale, grid.zero_point)
        )
        problem = RoundingProblem(
            steps=np.ascontiguousarray(layer.to_rows(grid.steps(weight))),
            zero_point=zero,
            scale=scale,
            limits=grid.limits(self.settings),
            inputs=inputs,
            wanted=wanted,
            bias=layer.bias,
            low=layer.low,
            high=layer.high,
        )
        self._set(layer, layer.from_rows(learn_rounding(problem, self.iterations, seed), weight.shape))

    def weight(self, layer: LinearLayer) -> _Floats:
        weight = self.graph.input_constant(layer.node, 1)
        assert weight is not None  # `linear_layer` looked.
        return weight

    def _set(self, layer: LinearLayer, integers: _Floats) -> None:
        self.graph.replace(layer.node, 1, self.grids[layer.weight].worth(integers), "weight")


def _learn(
    model: Path, samples: Any, rounding: _Rounding, layers: Mapping[str, LinearLayer], progress: Progress
) -> None:
    """Rounds level by level, with the float net and the rounded one side by side."""
    exact = LevelWalk(load_graph(model), model, samples, layers)
    rounded = LevelWalk(rounding.graph.proto, model, samples, layers)
    order = {name: number for number, name in enumerate(layers)}
    done = 0
    progress("rounding", done, len(layers))
    for level, names in enumerate(exact.levels, 1):
        here = [layers[name] for name in names]
        rows = [
            _Rows(layer, rounding.weight(layer), len(samples), (rounding.seed, order[layer.output])) for layer in here
        ]
        exact.run(level, names, _each(rows, _Rows.take_output))
        rounded.run(level, list(dict.fromkeys(layer.source for layer in here)), _each(rows, _Rows.take_input))
        for layer, found in zip(here, rows, strict=True):
            inputs, wanted = found.joined()
            rounding.set_learned(layer, inputs, wanted, rounding.seed)
            done += 1
            progress("rounding", done, len(layers))


def _each(rows: Sequence[_Rows], take: Any) -> Any:
    def all_layers(values: dict[str, npt.NDArray[Any]], sample_id: str) -> None:
        for one in rows:
            take(one, values, sample_id)

    return all_layers


class _Rows:
    """Rows of one layer, at positions that the seed draws from each sample.

    Args:
        layer: the layer.
        weight: its weight.
        samples: how many there are; together they give `ROW_BYTES`.
        seed: of the positions.
    """

    def __init__(self, layer: LinearLayer, weight: _Floats, samples: int, seed: Iterable[int]) -> None:
        self._layer, self._weight, self._seed = layer, weight, tuple(seed)
        self._most = max(1, ROW_BYTES // (4 * layer.to_rows(weight)[:, 0].size * max(samples, 1)))
        self._positions: list[npt.NDArray[np.int64]] = []
        self._wanted: list[_Floats] = []
        self._inputs: list[_Floats] = []

    def take_output(self, values: Feeds, sample_id: str) -> None:
        """Draws positions of a sample, and keeps the float net's output there."""
        output = values[self._layer.output]
        generator = np.random.default_rng((*self._seed, len(self._positions)))
        count = self._layer.positions(output)
        self._positions.append(np.sort(generator.permutation(count)[: self._most]))
        self._wanted.append(self._layer.outputs(output, self._positions[-1]))
        if not np.isfinite(self._wanted[-1]).all():
            raise DataError(
                f"the tensor {self._layer.output!r} is not finite for the sample {sample_id!r}. Repair the sample or "
                "leave it out."
            )

    def take_input(self, values: Feeds, sample_id: str) -> None:
        """Keeps the rounded net's input at the same positions."""
        positions = self._positions[len(self._inputs)]
        self._inputs.append(self._layer.inputs(values[self._layer.source], self._weight, positions))

    def joined(self) -> tuple[_Floats, _Floats]:
        """Inputs, (G, R, K), and outputs, (R, O). Raises DataError without samples."""
        if not sum(map(len, self._wanted)):
            raise DataError(f"the calibration set is empty, or gives the tensor {self._layer.output!r} no value.")
        return np.concatenate(self._inputs, axis=1), np.concatenate(self._wanted)


def _preset(recipe: Recipe, bits: int = 8, iterations: int = 1000) -> Recipe:
    step = Step.of(NAME, bits=bits, iterations=iterations)
    return recipe.changed(weight_transforms=(*recipe.weight_transforms, step), ranges=Step("minmax"))


PARAMETERS = {"bits": 8, "iterations": 1000, "seed": 0}

WEIGHT_TRANSFORMS.register(
    WeightTransform(
        name=NAME,
        summary="Rounds each weight up or down so that its layer keeps its output, and pins the grid.",
        source="Nagel et al., Up or down? Adaptive rounding, ICML 2020 (arXiv 2004.10568)",
        apply=round_adaptively,
        parameters=PARAMETERS,
        takes_settings=True,
        takes_progress=True,
        libraries=("torch",),
    )
)

METHODS.register(
    Method(
        name="adaround",
        summary="MinMax ranges, and weights that were rounded up or down so that each layer keeps its output.",
        source="Nagel et al., Up or down? Adaptive rounding, ICML 2020 (arXiv 2004.10568)",
        when="weights of 4 bits, one scale a channel; at 8 bits there is little to gain. Needs PyTorch, and time.",
        apply=_preset,
        parameters={key: PARAMETERS[key] for key in ("bits", "iterations")},
    )
)
