"""Bias correction: the mean error that INT8 weights add to each channel is taken out of the bias.

Nagel et al., Data-free quantization through weight equalization and bias correction (ICCV 2019, arXiv 1906.04721),
section 4.2, its empirical form; Banner et al., Post training 4-bit quantization (NeurIPS 2019, arXiv 1810.05723).

1. One pass finds the mean of every Conv's and Gemm's output, per channel, in the float model.
2. In a copy whose weights are those that the quantizer will write, back in float, the same means are found level by
   level, each after all earlier biases were corrected.
3. bias -= mean with quantized weights - mean in float. The weights of what is written are the float ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.external import save_with_links
from onnxptq.methods import METHODS, Method
from onnxptq.quantization._inference import load_graph
from onnxptq.quantization.grids import stock_grids
from onnxptq.quantization.level_by_level import Samples, rewrite_level_by_level
from onnxptq.quantization.moments import TensorMoments, collect_moments
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS, WeightTransform
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.recipe import Recipe, Step

NAME = "bias-correction"

_LAYERS = ("Conv", "Gemm")
"""Operators with a bias of their own. ConvTranspose is left alone: its channels are another axis of its weight."""

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Layer:
    """A Conv or Gemm whose bias can be corrected.

    Attributes:
        output: the tensor that it computes, channels on axis 1.
        weight: name of its weight initializer.
        bias: its bias, as it counts: float32, (C,).
        beta: what a Gemm multiplies its third input by.
    """

    output: str
    weight: str
    bias: _Floats
    beta: float


def correct_biases(model: Path, samples: Samples, output: Path, *, settings: QuantizerSettings) -> None:
    """Writes the float model with corrected biases. See the module.

    Layers that stay in float, whose weight is no constant or whose bias is not one number a channel are left as they
    are.

    Args:
        model: the folded FP32 model.
        samples: (id, feeds), the same at each iteration.
        output: the file to write.
        settings: what the quantizer will be told: they decide what becomes of the weights.

    Raises:
        DataError: as `collect_moments`.
    """
    proto = load_graph(model)
    weights = quantized_weights(model, settings)
    layers = {layer.output: layer for layer in _layers(proto.graph, model.parent, weights)}
    if layers:
        corrections = _corrections(model, samples, layers, weights)
        for name, layer in layers.items():
            _set_bias(proto.graph, layer, layer.bias - corrections[name])
    save_with_links(proto, model, output)


def quantized_weights(model: Path, settings: QuantizerSettings) -> Mapping[str, _Floats]:
    """What the weights of each Conv and Gemm are worth after quantization, as float32, by initializer."""
    return {name: grid.worth(integers) for name, (grid, integers) in stock_grids(model, settings, _LAYERS).items()}


def _layers(graph: Any, folder: Path, weights: Mapping[str, _Floats]) -> list[_Layer]:
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    layers = []
    for node in graph.node:
        if node.op_type not in _LAYERS or node.input[1] not in weights or node.input[1] not in constants:
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        beta = attributes["beta"].f if "beta" in attributes else 1.0
        by_rows = node.op_type == "Conv" or ("transB" in attributes and attributes["transB"].i)
        channels = weights[node.input[1]].shape[0 if by_rows else 1]
        bias = np.zeros(channels, np.float32)
        if len(node.input) > 2 and node.input[2]:
            if node.input[2] not in constants:
                continue
            given = numpy_helper.to_array(constants[node.input[2]], str(folder))
            if given.size not in (1, channels) or beta == 0:
                continue
            bias = np.broadcast_to(given.ravel(), channels).astype(np.float32)
        layers.append(_Layer(node.output[0], node.input[1], bias, beta or 1.0))
    return layers


def _corrections(
    model: Path, samples: Samples, layers: Mapping[str, _Layer], weights: Mapping[str, _Floats]
) -> dict[str, _Floats]:
    """What to subtract of each layer's bias, (C,), by output tensor."""
    from onnx import numpy_helper

    axes = dict.fromkeys(layers, 1)
    wanted = collect_moments(model, samples, axes).tensors
    corrections: dict[str, _Floats] = {}

    def rewrite(proto: Any, tensor: str, moments: TensorMoments) -> None:
        error = moments.mean - wanted[tensor].mean
        corrections[tensor] = (error / layers[tensor].beta).astype(np.float32)
        _set_bias(proto.graph, layers[tensor], layers[tensor].bias - corrections[tensor])

    proto = load_graph(model)
    for tensor in proto.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        save_with_links(proto, model, Path(folder) / "weights.onnx")
        rewrite_level_by_level(Path(folder) / "weights.onnx", samples, axes, rewrite)
    return corrections


def _set_bias(graph: Any, layer: _Layer, bias: _Floats) -> None:
    """Gives a layer a bias of its own: nodes may have shared the old one."""
    from onnx import numpy_helper

    node = next(node for node in graph.node if layer.output in node.output)
    name = f"{layer.output}__bias"
    old = [tensor for tensor in graph.initializer if tensor.name == name]
    for tensor in old:
        graph.initializer.remove(tensor)
    graph.initializer.append(numpy_helper.from_array(bias.astype(np.float32), name))
    if len(node.input) > 2:
        node.input[2] = name
    else:
        node.input.append(name)


def _preset(recipe: Recipe) -> Recipe:
    return recipe.changed(weight_transforms=(*recipe.weight_transforms, Step(NAME)), ranges=Step("minmax"))


WEIGHT_TRANSFORMS.register(
    WeightTransform(
        name=NAME,
        summary="Takes the mean error of INT8 weights out of the biases.",
        source="Nagel et al., Data-free quantization, ICCV 2019 (arXiv 1906.04721); Banner et al., NeurIPS 2019",
        apply=correct_biases,
        takes_settings=True,
    )
)

METHODS.register(
    Method(
        name="bias-correction",
        summary="MinMax ranges, and biases from which the mean error of INT8 weights is taken out.",
        source="Nagel et al., Data-free quantization, ICCV 2019 (arXiv 1906.04721); Banner et al., NeurIPS 2019",
        when="weights of few bits, or one scale for a whole tensor, and a calibration set that is not shifted.",
        apply=_preset,
    )
)
