"""What the static quantizer builds whatever the ranges are, and where in it each range goes.

Nothing here knows the quantizer's rules (Relu shares its input's parameters, Softmax is [0, 1], Reshape hands on
...). It gives tensor i the range (0, i + 2), lets the quantizer write the model once, and reads from the scales
which range ended where.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.errors import ModelError
from onnxptq.quantization.reference_quantizer import quantize_with_ranges
from onnxptq.quantization.settings import QuantizerSettings


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
    """

    model: Any
    cached: tuple[str, ...]
    sites: Mapping[str, str]
    observed: tuple[str, ...]
    shared: Mapping[str, str]


def build_template(model_path: str | Path, settings: QuantizerSettings) -> Template:
    """Quantizes the model once with marked ranges.

    The biases of the template are meaningless, and its weight scales are never enlarged for the sake of a bias.

    Raises:
        ModelError: the model has no float tensor that could be quantized, or the quantizer rejects it.
    """
    import onnx

    names = activations(model_path)
    if not names:
        raise ModelError(f"{model_path} computes no float32 tensor, so there is nothing to quantize. Check the model.")
    # Above the smallest range that the quantizer would stretch to, else two tensors would have one mark.
    first = 2 + math.ceil(settings.extra_options.get("MinimumRealRange") or 0)
    ranges = {name: (np.float32(0), np.float32(i + first)) for i, name in enumerate(names)}
    marked = QuantizerSettings(
        activation_type=settings.activation_type,
        weight_type=settings.weight_type,
        per_channel=settings.per_channel,
        extra_options={**settings.extra_options, "QDQDisableWeightAdjustForInt32Bias": True},
        nodes_to_exclude=settings.nodes_to_exclude,
        reduce_range=settings.reduce_range,
    )
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        path = Path(folder) / "template.onnx"
        large = _large(model_path)
        quantize_with_ranges(model_path, ranges, path, marked, external=large)
        model = onnx.load(path)
    sites = _read_sites(model, names, ranges, settings)
    # An override changes how a scale follows from its range, so its mark cannot be read: observe everything.
    overridden = set(names) & set(settings.extra_options.get("TensorQuantOverrides") or ())
    observed = tuple(sorted(names if overridden else set(sites.values())))
    return Template(model, names, sites, observed, _read_shared(model, names, sites))


def _large(model_path: str | Path) -> bool:
    """Whether the float model does not fit one protobuf message, whose limit is 2 GiB."""
    folder = Path(model_path).resolve().parent
    import onnx
    from onnx.external_data_helper import ExternalDataInfo, uses_external_data

    graph = onnx.load(model_path, load_external_data=False).graph
    files = {ExternalDataInfo(tensor).location for tensor in graph.initializer if uses_external_data(tensor)}
    return sum((folder / file).stat().st_size for file in files) > 1 << 30


def activations(model_path: str | Path) -> tuple[str, ...]:
    """Names of all float32 and float16 tensors of the main graph that are not constants, in the order of the file."""
    import onnx

    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        inferred = Path(folder) / "inferred.onnx"
        onnx.shape_inference.infer_shapes_path(str(model_path), str(inferred))
        graph = onnx.load(inferred, load_external_data=False).graph
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
