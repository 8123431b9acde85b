"""What the static quantizer builds whatever the ranges are, and where in it each range goes.

Nothing here knows the quantizer's rules (Relu shares its input's parameters, Softmax is [0, 1], Reshape hands on
...). It gives tensor i the range (0, i + 2), lets the quantizer write the model once, and reads from the scales
which range ended where.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError
from onnxptq.graphs.external import external_locations
from onnxptq.graphs.shapes import infer_shapes
from onnxptq.quantization.reference_quantizer import quantize_with_ranges
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.vectorized import quantized_model


@dataclass(frozen=True)
class Bias:
    """One bias that the quantizer turned into int32.

    Attributes:
        quantized: name of the int32 initializer.
        scale: name of its scale.
        values: the float bias.
        input_scale: name of the activation's scale, which is what ranges change.
        weight_scale: scale of the weight, float32, () or (C,).
        beta: factor of a Gemm's bias.
    """

    quantized: str
    scale: str
    values: npt.NDArray[Any]
    input_scale: str
    weight_scale: npt.NDArray[Any]
    beta: float


@dataclass(frozen=True)
class Template:
    """A quantized model with marked ranges.

    Attributes:
        model: the QDQ `ModelProto`, with its weights.
        cached: every name that the quantizer must be given a range for.
        sites: name of a scale initializer -> tensor whose range it follows from. Scales that follow from no range
            (Softmax) are not among them.
        observed: the tensors whose ranges the quantizer reads, sorted.
        shared: tensor -> tensor whose scale it is quantized with (Flatten, MaxPool, Reshape ...). Its own range is
            read all the same, where a bias needs a larger weight scale to fit int32.
        biases: every int32 bias; None where one is not made of constants of the float model.
    """

    model: Any
    cached: tuple[str, ...]
    sites: Mapping[str, str]
    observed: tuple[str, ...]
    shared: Mapping[str, str]
    biases: tuple[Bias, ...] | None


def build_template(model_path: str | Path, settings: QuantizerSettings) -> Template:
    """Quantizes the model once with marked ranges.

    The biases of the template are meaningless, and its weight scales are never enlarged for the sake of a bias.

    Raises:
        ModelError: the model has no float tensor that could be quantized, or the quantizer rejects it.
    """
    import onnx

    path = Path(model_path)
    source = infer_shapes(onnx.load(str(path), load_external_data=False))
    names = _activations(source.graph)
    if not names:
        raise ModelError(f"{path} computes no float32 tensor, so there is nothing to quantize. Check the model.")
    # Above the smallest range that the quantizer would stretch to, else two tensors would have one mark.
    first = 2 + math.ceil(settings.extra_options.get("MinimumRealRange") or 0)
    ranges = {name: (np.float32(0), np.float32(i + first)) for i, name in enumerate(names)}
    marked = replace(settings, extra_options={**settings.extra_options, "QDQDisableWeightAdjustForInt32Bias": True})
    original = _BiasSources.of(source.graph, path)
    if external_locations(source):
        with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
            written = Path(folder) / "template.onnx"
            quantize_with_ranges(path, ranges, written, marked, external=_large(source, path))
            model = onnx.load(written)
    else:
        model = quantized_model(source, ranges, marked)
    sites = _read_sites(model, names, ranges, settings)
    # An override changes how a scale follows from its range, so its mark cannot be read: observe everything.
    overridden = set(names) & set(settings.extra_options.get("TensorQuantOverrides") or ())
    observed = tuple(sorted(names if overridden else set(sites.values())))
    return Template(model, names, sites, observed, _read_shared(model, names, sites), original.biases(model.graph))


def _large(model: Any, path: Path) -> bool:
    """Whether the float model does not fit one protobuf message, whose limit is 2 GiB."""
    return sum((path.resolve().parent / file).stat().st_size for file in external_locations(model)) > 1 << 30


def _activations(graph: Any) -> tuple[str, ...]:
    """Names of all float32 and float16 tensors of a graph that are not constants, in the order of the file."""
    import onnx

    constants = {tensor.name for tensor in graph.initializer}
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
    values = [*graph.input, *graph.value_info, *graph.output]
    names = [value.name for value in values if value.type.tensor_type.elem_type in floats]
    return tuple(dict.fromkeys(name for name in names if name not in constants))


def quantization_parameters(low: np.float32, high: np.float32, settings: QuantizerSettings) -> tuple[Any, Any]:
    """Zero point and scale that the static quantizer computes for one activation: 0-d arrays.

    The arithmetic is ONNX Runtime's own (`quant_utils.py`), called as `QDQQuantizer.calc_quant_params` calls it.
    """
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.quant_utils import (
        compute_scale_zp,
        get_qmin_qmax_for_qType,
        snap_zero_point_to_uint8,
    )

    options = settings.extra_options
    symmetric = bool(options.get("ActivationSymmetric", False))
    smallest = options.get("MinimumRealRange")
    tensor_type = QuantType[settings.activation_type].tensor_type
    qmin, qmax = get_qmin_qmax_for_qType(tensor_type, reduce_range=False, symmetric=symmetric)
    rmin, rmax = np.array(low, np.float32), np.array(high, np.float32)
    zero, scale = compute_scale_zp(rmin, rmax, qmin, qmax, symmetric, smallest)
    if options.get("ActivationRestrictedAsymmetric", False) and settings.activation_type == "QUInt8" and not symmetric:
        zero, scale = snap_zero_point_to_uint8(rmin, rmax, qmin=qmin, qmax=qmax, min_real_range=smallest)
    return zero.squeeze(), scale.squeeze()


def _read_sites(
    model: Any, names: tuple[str, ...], ranges: Mapping[str, tuple[np.float32, np.float32]], settings: QuantizerSettings
) -> dict[str, str]:
    import onnx

    marks = {float(quantization_parameters(*ranges[name], settings)[1]): name for name in names}
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    sites: dict[str, str] = {}
    for name in names:
        scale = scales.get(f"{name}_scale")
        value = onnx.numpy_helper.to_array(scale) if scale is not None else None
        if value is not None and value.ndim == 0 and float(value) in marks:
            sites[f"{name}_scale"] = marks[float(value)]
    return sites


def _read_shared(model: Any, names: tuple[str, ...], sites: Mapping[str, str]) -> dict[str, str]:
    """Tensors that are quantized with the scale of another tensor, and whose."""
    from onnxruntime.quantization.quant_utils import add_quant_input_suffix

    # A graph output's name went to what is dequantized; what the Q node reads has a name of its own.
    originals = {name: name for name in names} | {add_quant_input_suffix(name): name for name in names}
    shared: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear" or node.input[0] not in originals:
            continue
        name, scale = originals[node.input[0]], node.input[1]
        if scale != f"{name}_scale":
            shared[name] = sites.get(scale, scale.removesuffix("_scale"))
    return shared


@dataclass(frozen=True)
class _BiasSources:
    """What biases are made of in the float model, read before the quantizer changes it.

    Attributes:
        nodes: copies of the nodes with a third input.
        floats: their third inputs that are constants.
    """

    nodes: tuple[Any, ...]
    floats: Mapping[str, npt.NDArray[Any]]

    @staticmethod
    def of(graph: Any, path: Path) -> _BiasSources:
        import onnx

        nodes = tuple(_copied(node) for node in graph.node if len(node.input) > 2)
        names = {node.input[2] for node in nodes}
        floats = {
            tensor.name: onnx.numpy_helper.to_array(tensor, str(path.parent))
            for tensor in graph.initializer
            if tensor.name in names
        }
        return _BiasSources(nodes, floats)

    def biases(self, graph: Any) -> tuple[Bias, ...] | None:
        """Every int32 bias of a quantized graph; None where one is not made of what is here."""
        from onnx import TensorProto, numpy_helper

        quantized = {tensor.name: tensor for tensor in graph.initializer}
        dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
        readers = {node.input[2]: node for node in self.nodes}
        # A bias of two nodes was copied under a new name; the node's name leads back to it.
        named = {node.name: node for node in self.nodes if node.name}
        found = []
        for node in graph.node:
            bias = dequantized.get(node.input[2]) if len(node.input) > 2 else None
            if bias is None or quantized.get(bias.input[0], TensorProto()).data_type != TensorProto.INT32:
                continue
            source = readers.get(bias.output[0]) or named.get(node.name)
            inputs = [dequantized.get(name) for name in node.input[:2]]
            if source is None or source.op_type != node.op_type or source.input[2] not in self.floats:
                return None
            if inputs[0] is None or inputs[1] is None or inputs[1].input[1] not in quantized:
                return None
            found.append(
                Bias(
                    quantized=bias.input[0],
                    scale=bias.input[1],
                    values=self.floats[source.input[2]],
                    input_scale=inputs[0].input[1],
                    weight_scale=numpy_helper.to_array(quantized[inputs[1].input[1]]),
                    beta=next((a.f for a in source.attribute if a.name == "beta"), 1.0),
                )
            )
        return tuple(found)


def _copied(node: Any) -> Any:
    import onnx

    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy
