"""Cross-layer equalisation: scales of channels are moved between layers, so that one scale a tensor serves them all.

Nagel et al., Data-free quantization through weight equalization and bias correction (ICCV 2019, arXiv 1906.04721),
section 4.1.

1. A pair is a Conv or Gemm, then operators that commute with a positive factor for each channel (Relu, LeakyRelu,
   pooling, Flatten), each read by the next alone, then another Conv or Gemm.
2. r1 is the largest magnitude of the first one's weights for each channel, r2 that of those weights of the second one
   that read the channel. With s = sqrt(r1 / r2) the first one's weights and bias are divided by s and the second
   one's weights multiplied by it; both then have the range sqrt(r1 * r2). A channel whose weights are
   all zero on one side is left alone.
3. All pairs in turn, again and again, until nothing moves: a layer between two others is part of two pairs.

The float function stays, up to rounding. A Clip at a constant does not commute with a factor. It stands in the way
unless `relu6_to_relu` says that it may be made a Relu, which changes the function. Section 4.1.3 (large biases are
absorbed by the next layer) is not done.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.batch_norms import rescale_batch_norms
from onnxptq.methods import METHODS, Method
from onnxptq.quantization.layer_graph import LayerGraph, attribute, listed, title
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS, Changed, WeightTransform
from onnxptq.recipe import Recipe, Step

NAME = "cle"

_COMMUTE = (
    "Relu",
    "LeakyRelu",
    "PRelu",
    "Identity",
    "Dropout",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "GlobalMaxPool",
)
"""f(s * x) = s * f(x) for a positive s of each channel."""

_ROUNDS = 100
"""Of all pairs. Chains of ten layers settle in about twenty."""

_SETTLED = 1e-3
"""A factor this near to 1 moves no integer of 8 bits."""

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Pair:
    """Two layers between which scales can be moved.

    Attributes:
        first, second: the nodes.
        clips: the Clips between them that have to become Relu.
        repeated: inputs of the second for each channel of the first: more than one behind a Flatten.
    """

    first: Any
    second: Any
    clips: tuple[Any, ...]
    repeated: int


def equalize(model: Path, samples: Any, output: Path, relu6_to_relu: bool = False) -> Changed:
    """Writes the float model with equalised layers. See the module.

    Args:
        model: the folded FP32 model.
        samples: not looked at: weights alone decide.
        output: the file to write.
        relu6_to_relu: make a Clip from 0 to a constant a Relu where it stands between two layers of a pair.

    Returns:
        What was done, and which pairs a Clip kept apart.
    """
    graph = LayerGraph(model)
    found = list(_pairs(graph))
    pairs = [pair for pair in found if relu6_to_relu or not pair.clips]
    clips = [clip for pair in pairs for clip in pair.clips]
    for clip in clips:
        _make_relu(clip)
    factors = _settle(graph, pairs)
    rescale_batch_norms(graph.proto, {name: np.reciprocal(factor) for name, factor in factors.items()})
    graph.save(output)
    return Changed(notes=_notes(pairs, [pair for pair in found if pair not in pairs], clips, factors))


def _notes(pairs: list[_Pair], apart: list[_Pair], clips: list[Any], factors: dict[str, _Floats]) -> tuple[str, ...]:
    if not pairs and not apart:
        return ("cle changed nothing: the model has no two Conv or Gemm with only Relu or pooling between them.",)
    largest = max((max(factor.max(), 1 / factor.min()) for factor in factors.values()), default=1.0)
    notes = [f"cle equalised {len(pairs)} pairs of layers; channels moved by up to a factor of {largest:.3g}."]
    if clips:
        notes.append(f"cle made {len(clips)} Clip (Relu6) into Relu, which changes the float function.")
    if apart:
        names = [f"{title(pair.first)} and {title(pair.second)}" for pair in apart]
        notes.append(
            f"cle left {len(apart)} pairs as they are, because a Clip stands between them ({listed(names)}). "
            "cle:relu6_to_relu=1 makes a Relu of it."
        )
    return tuple(notes)


def _pairs(graph: LayerGraph) -> Iterator[_Pair]:
    """Every pair of the graph, in its order."""
    for first in graph.nodes:
        channels = _outputs_of(graph, first)
        if channels is None:
            continue
        tensor, clips, spread = first.output[0], [], False
        while (node := graph.only_reader(tensor)) is not None and node.input[0] == tensor and len(node.output) == 1:
            if _is_relu6(graph, node):
                clips.append(node)
            elif node.op_type == "Flatten" and attribute(node, "axis", 1) == 1:
                spread = True
            elif node.op_type not in _COMMUTE:
                break
            tensor = node.output[0]
        inputs = _inputs_of(graph, node) if node is not None and node.input[0] == tensor else None
        if inputs and inputs % channels == 0 and (inputs == channels or spread):
            yield _Pair(first, node, tuple(clips), inputs // channels)


def _outputs_of(graph: LayerGraph, node: Any) -> int | None:
    """Channels that a layer computes; None where its weight or its bias cannot be scaled."""
    weight = _weight(graph, node)
    if weight is None:
        return None
    channels = int(weight.shape[_output_axis(node)])
    if len(node.input) > 2 and node.input[2]:
        bias = graph.input_constant(node, 2)
        # A Gemm's third input may hold a number for every row too.
        if bias is None or bias.size not in (1, channels):
            return None
    return channels


def _inputs_of(graph: LayerGraph, node: Any) -> int | None:
    """Channels that a layer reads; None where it is none, or its weight cannot be scaled."""
    weight = _weight(graph, node)
    if weight is None:
        return None
    groups, _, inputs, _ = _by_input(node, weight).shape
    return int(groups * inputs)


def _weight(graph: LayerGraph, node: Any) -> _Floats | None:
    """The weight of a Conv or Gemm that is its own."""
    if node.op_type not in ("Conv", "Gemm") or attribute(node, "transA", 0):
        return None
    return graph.input_constant(node, 1) if graph.only_reader(node.input[1]) is node else None


def _output_axis(node: Any) -> int:
    return 0 if node.op_type == "Conv" or attribute(node, "transB", 0) else 1


def _by_input(node: Any, weight: _Floats) -> _Floats:
    """A view of a weight with the channels that it reads on axes 0 and 2 together, (groups, outputs, inputs, rest)."""
    if node.op_type == "Gemm":
        rows = weight if _output_axis(node) == 0 else weight.T
        return rows.reshape(1, *rows.shape, 1)
    groups = attribute(node, "group", 1)
    return weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)


def _settle(graph: LayerGraph, pairs: list[_Pair]) -> dict[str, _Floats]:
    """Equalises all pairs until nothing moves; what each first layer's output was divided by, by its name."""
    factors: dict[str, _Floats] = {}
    for _ in range(_ROUNDS):
        moved = 0.0
        for pair in pairs:
            factor = _equalize(graph, pair)
            name = pair.first.output[0]
            factors[name] = factors.get(name, np.ones_like(factor)) * factor
            moved = max(moved, float(np.abs(factor - 1).max()))
        if moved < _SETTLED:
            break
    return factors


def _equalize(graph: LayerGraph, pair: _Pair) -> _Floats:
    """One pair; what the first one's channels were divided by, (C,)."""
    first, second = (graph.input_constant(node, 1) for node in (pair.first, pair.second))
    assert first is not None and second is not None  # `_pairs` looked.
    axis = _output_axis(pair.first)
    ranges_first = np.abs(first).max(axis=tuple(i for i in range(first.ndim) if i != axis))
    view = _by_input(pair.second, second)
    ranges_second = np.abs(view).max(axis=(1, 3)).reshape(-1, pair.repeated).max(axis=1)
    alive = (ranges_first > 0) & (ranges_second > 0)
    ratio = np.divide(ranges_first, ranges_second, out=np.ones_like(ranges_first), where=alive)
    factor: _Floats = np.sqrt(ratio).astype(np.float32)
    graph.replace(pair.first, 1, first / factor.reshape([-1 if i == axis else 1 for i in range(first.ndim)]), "weight")
    bias = graph.input_constant(pair.first, 2)
    if bias is not None:
        graph.replace(pair.first, 2, np.broadcast_to(bias.ravel(), factor.shape) / factor, "bias")
    view *= np.repeat(factor, pair.repeated).reshape(view.shape[0], 1, view.shape[2], 1)
    graph.replace(pair.second, 1, second, "weight")
    return factor


def _is_relu6(graph: LayerGraph, node: Any) -> bool:
    """Whether a node clips to [0, a constant]."""
    if node.op_type != "Clip" or len(node.input) < 3:
        return False
    low, high = (graph.input_constant(node, position) for position in (1, 2))
    return low is not None and high is not None and low.size == 1 and float(low.ravel()[0]) == 0


def _make_relu(node: Any) -> None:
    node.op_type = "Relu"
    del node.input[1:]


def _preset(recipe: Recipe, relu6_to_relu: int = 0) -> Recipe:
    step = Step.of(NAME, relu6_to_relu=bool(relu6_to_relu))
    return recipe.changed(weight_transforms=(*recipe.weight_transforms, step), ranges=Step("minmax"))


WEIGHT_TRANSFORMS.register(
    WeightTransform(
        name=NAME,
        summary="Moves scales of channels between neighbouring layers until their weights have equal ranges.",
        source="Nagel et al., Data-free quantization, ICCV 2019 (arXiv 1906.04721), section 4.1",
        apply=equalize,
        parameters={"relu6_to_relu": False},
    )
)

METHODS.register(
    Method(
        name="cle",
        summary="MinMax ranges, and weights whose channels were equalised across layers.",
        source="Nagel et al., Data-free quantization, ICCV 2019 (arXiv 1906.04721), section 4.1",
        when="one scale a weight tensor, above all in depthwise nets; with one a channel there is little to gain.",
        apply=_preset,
        parameters={"relu6_to_relu": 0},
    )
)
