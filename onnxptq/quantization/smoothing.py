"""SmoothQuant: the scales of outlying channels move from activations into the weights that read them.

Xiao et al., SmoothQuant: Accurate and efficient post-training quantization for large language models (ICML 2023, arXiv
2211.10438), section 4.

1. One pass finds the largest magnitude of every channel (last axis) of each tensor that only MatMul and Gemm with
   constant weights read.
2. s_j = max|X_j|^alpha / max|W_j|^(1 - alpha) for channel j, over the weights of all readers together.
3. The readers' weights are multiplied by s, row by row, and what makes the tensor is divided by it: scale and bias of a
   normalisation, or the weights of another MatMul or Gemm, through additions of constants and Relu.

Nothing is added to the graph: where no constant in front can take the factor (behind an activation function, at the
model's input, after attention), the tensor is left as it is, and a note says so. The float function stays, up to
rounding.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, UsageError
from onnxptq.methods import METHODS, Method
from onnxptq.quantization._inference import load_graph
from onnxptq.quantization.layer_graph import LayerGraph, attribute, listed
from onnxptq.quantization.level_by_level import LevelWalk
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS, Changed, WeightTransform
from onnxptq.recipe import Recipe, Step
from onnxptq.signature import Feeds

NAME = "smoothquant"

ALPHA = 0.5
"""The paper's for most models: half of the difficulty moves."""

_NORMALIZATIONS = ("LayerNormalization", "SimplifiedLayerNormalization", "RMSNormalization")
"""The second input is their scale, the third their bias."""

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Place:
    """A constant that can be divided by s.

    Attributes:
        node: reads it.
        position: which of the node's inputs it is.
        axis: of the channels within it.
    """

    node: Any
    position: int
    axis: int


def smooth(model: Path, samples: Iterable[tuple[str, Feeds]], output: Path, alpha: float = ALPHA) -> Changed:
    """Writes the float model with smoothed activations. See the module.

    Args:
        model: the folded FP32 model.
        samples: (id, feeds), the same at each iteration.
        output: the file to write.
        alpha: from 0 (nothing moves but the weights' own differences) to 1 (all that activations differ moves).

    Returns:
        How many tensors were smoothed, and which could not be.

    Raises:
        UsageError: alpha is not between 0 and 1.
        DataError: a sample does not fit the model or gives NaN or infinity; there is none.
    """
    if not 0 <= alpha <= 1:
        raise UsageError(f"smoothquant's alpha must be between 0 and 1, got {alpha}.")
    graph = LayerGraph(model)
    places: dict[str, list[_Place]] = {}
    stuck: list[str] = []
    for tensor, channels in _candidates(graph).items():
        found = _places(graph, tensor, channels)
        if found:
            places[tensor] = found
        else:
            stuck.append(tensor)
    largest = _largest(model, samples, list(places)) if places else {}
    factors = [_smooth(graph, tensor, places[tensor], magnitudes, alpha) for tensor, magnitudes in largest.items()]
    graph.save(output)
    return Changed(notes=_notes(factors, stuck))


def _notes(factors: list[_Floats], stuck: list[str]) -> tuple[str, ...]:
    notes = []
    if factors:
        most = max(float(factor.max()) for factor in factors)
        notes.append(f"smoothquant smoothed {len(factors)} tensors; channels were divided by up to {most:.3g}.")
    else:
        notes.append("smoothquant changed nothing: no MatMul or Gemm reads what a constant in front could scale.")
    if stuck:
        notes.append(
            f"smoothquant left {len(stuck)} inputs of MatMul and Gemm as they are, because nothing in front of them "
            f"can take the scale ({listed(stuck)})."
        )
    return tuple(notes)


def _candidates(graph: LayerGraph) -> dict[str, int]:
    """Inputs of MatMul and Gemm with constant weights, and their channels, in the order of the graph."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        weight = graph.input_constant(node, 1) if node.op_type in ("MatMul", "Gemm") else None
        if weight is not None and weight.ndim == 2 and not attribute(node, "transA", 0):
            found.setdefault(node.input[0], weight.shape[_input_axis(node)])
    return found


def _input_axis(node: Any) -> int:
    """The axis of a weight along which it meets the channels that its node reads."""
    return 1 if node.op_type == "Gemm" and attribute(node, "transB", 0) else 0


def _places(graph: LayerGraph, tensor: str, channels: int) -> list[_Place]:
    """All constants that have to be divided so that a tensor is; empty where that is not possible."""
    if tensor in graph.outputs:
        return []
    for node in graph.readers[tensor]:
        weight = graph.input_constant(node, 1) if node.op_type in ("MatMul", "Gemm") else None
        once = node.input[0] == tensor and list(node.input).count(tensor) == 1
        reads_it_as_rows = once and not attribute(node, "transA", 0)
        # A weight of several nodes would be scaled for each of them.
        own = graph.only_reader(node.input[1]) is node if weight is not None else False
        if weight is None or weight.ndim != 2 or not reads_it_as_rows or not own:
            return []
    return _behind(graph, tensor, channels) or []


def _behind(graph: LayerGraph, tensor: str, channels: int) -> list[_Place] | None:
    """The constants that make a tensor's channels as large as they are; None where something else does."""
    node = graph.producers.get(tensor)
    if node is None or node.output[0] != tensor:
        return None
    if node.op_type in _NORMALIZATIONS:
        axis = attribute(node, "axis", -1)
        constants = [_vector(graph, node, position, channels) for position in range(1, len(node.input))]
        if None in constants or (axis not in (-1, None) and not _is_last(graph, node, axis)):
            return None
        return [place for place in constants if place]
    if node.op_type in ("MatMul", "Gemm"):
        return _of_linear(graph, node, channels)
    if node.op_type == "Relu":
        return _further(graph, node.input[0], channels)
    if node.op_type in ("Add", "Mul"):
        return _of_arithmetic(graph, node, channels)
    return None


def _further(graph: LayerGraph, tensor: str, channels: int) -> list[_Place] | None:
    """The same for a tensor in between, which nothing else may read."""
    return None if graph.only_reader(tensor) is None else _behind(graph, tensor, channels)


def _of_arithmetic(graph: LayerGraph, node: Any, channels: int) -> list[_Place] | None:
    """An addition of, or a multiplication by, a constant vector: an exporter's bias, or a decomposed normalisation."""
    for position in (0, 1):
        place = _vector(graph, node, position, channels)
        if place and node.op_type == "Mul":
            return [place]
        rest = _further(graph, node.input[1 - position], channels) if place else None
        if place and rest:
            return [place, *rest]
    return None


def _of_linear(graph: LayerGraph, node: Any, channels: int) -> list[_Place] | None:
    weight = graph.input_constant(node, 1)
    if weight is None or weight.ndim != 2 or graph.only_reader(node.input[1]) is not node:
        return None
    places = [_Place(node, 1, 1 - _input_axis(node))]
    if len(node.input) > 2 and node.input[2]:
        bias = _vector(graph, node, 2, channels)
        return [*places, bias] if bias else None
    return places


def _vector(graph: LayerGraph, node: Any, position: int, channels: int) -> _Place | None:
    """A constant with one number a channel, on its last axis."""
    constant = graph.input_constant(node, position)
    if constant is None or constant.size != channels or not constant.ndim or constant.shape[-1] != channels:
        return None
    return _Place(node, position, constant.ndim - 1)


def _is_last(graph: LayerGraph, node: Any, axis: int) -> bool:
    """Whether a normalisation over one axis counted from the front is one over the last."""
    for value in graph.proto.graph.value_info:
        if value.name == node.input[0]:
            return bool(axis == len(value.type.tensor_type.shape.dim) - 1)
    return False


def _largest(model: Path, samples: Iterable[tuple[str, Feeds]], tensors: list[str]) -> dict[str, _Floats]:
    """The largest magnitude of each channel over all samples, (C,), in one pass."""
    found: dict[str, _Floats] = {}

    def take(values: dict[str, npt.NDArray[Any]], sample_id: str) -> None:
        for tensor in tensors:
            array = values[tensor]
            if not array.size:
                continue
            magnitudes = np.abs(array.reshape(-1, array.shape[-1])).max(axis=0)
            if not np.isfinite(magnitudes).all():
                raise DataError(
                    f"the tensor {tensor!r} is not finite for the sample {sample_id!r}. Repair the sample or leave it "
                    "out."
                )
            found[tensor] = np.maximum(found.get(tensor, 0), magnitudes)

    walk = LevelWalk(load_graph(model), model, samples, ())
    walk.run(1, tensors, take)
    if len(found) < len(tensors):
        raise DataError("the calibration set is empty, so no activation is known. Give more samples.")
    return found


def smoothing_factors(activations: _Floats, weights: _Floats, alpha: float) -> _Floats:
    """s of the paper's equation 4; 1 for channels that are zero on either side.

    Args:
        activations: largest magnitude of each channel, (C,).
        weights: largest magnitude of the weights that read it, (C,).
        alpha: migration strength, 0 to 1.
    """
    alive = (activations > 0) & (weights > 0)
    x, w = (np.where(alive, values, 1).astype(np.float64) for values in (activations, weights))
    factors: _Floats = (x**alpha / w ** (1 - alpha)).astype(np.float32)
    return factors


def _smooth(graph: LayerGraph, tensor: str, places: list[_Place], activations: _Floats, alpha: float) -> _Floats:
    """Moves the scales of one tensor; what its channels were divided by, (C,)."""
    readers = [(node, graph.input_constant(node, 1), _input_axis(node)) for node in graph.readers[tensor]]
    by_channel = [np.abs(weight).max(axis=1 - axis) for _, weight, axis in readers if weight is not None]
    factors = smoothing_factors(activations, np.max(by_channel, axis=0), alpha)
    for node, weight, axis in readers:
        if weight is not None:
            graph.replace(node, 1, weight * _along(factors, axis, 2), "weight")
    for place in places:
        constant = graph.input_constant(place.node, place.position)
        if constant is not None:
            factor = _along(factors, place.axis, constant.ndim)
            graph.replace(place.node, place.position, constant / factor, f"smooth{place.position}")
    return factors


def _along(factors: _Floats, axis: int, rank: int) -> _Floats:
    return factors.reshape([-1 if position == axis else 1 for position in range(rank)])


def _preset(recipe: Recipe, alpha: float = ALPHA) -> Recipe:
    step = Step.of(NAME, alpha=alpha)
    return recipe.changed(weight_transforms=(*recipe.weight_transforms, step), ranges=Step("minmax"))


WEIGHT_TRANSFORMS.register(
    WeightTransform(
        name=NAME,
        summary="Moves the scales of outlying channels of activations into the weights that read them.",
        source="Xiao et al., SmoothQuant, ICML 2023 (arXiv 2211.10438)",
        apply=smooth,
        parameters={"alpha": ALPHA},
    )
)

METHODS.register(
    Method(
        name="smoothquant",
        summary="MinMax ranges, and activations whose outlying channels were moved into the weights.",
        source="Xiao et al., SmoothQuant, ICML 2023 (arXiv 2211.10438)",
        when="transformers with outlying channels behind a normalisation. Elsewhere it finds nothing, and says so.",
        apply=_preset,
        parameters={"alpha": ALPHA},
    )
)
