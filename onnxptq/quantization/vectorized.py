"""ONNX Runtime's QDQ quantizer, with its loops over channels done by NumPy at once.

What it decides about a graph (which tensors get a pair, names, order) is its own code, unchanged, for every operator.
Replaced is arithmetic alone, each by what gives the same bits, which tests hold against `quantize_static` itself:

1. scale and zero point of each channel of a float32 weight,
2. the integers of each channel,
3. the larger weight scale that a channel's int32 bias may need,
4. the search for a tensor or node by name, from the front of a list.

Where a weight is of a rarer kind (float16, 4 bits, overrides, NaN) its own code runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.quantization.reference_quantizer import Ranges, quiet_quantizer
from onnxptq.quantization.settings import QuantizerSettings

if TYPE_CHECKING:
    import onnx

TRIED_VERSIONS = ("1.31.1",)
"""Versions of ONNX Runtime on which the tests were run. On another one, what this writes is compared with what
`quantize_static` writes."""

_Array = npt.NDArray[Any]


def quantized_model(model: onnx.ModelProto, ranges: Ranges, settings: QuantizerSettings) -> onnx.ModelProto:
    """The QDQ model that `quantize_static` writes, not yet written.

    Args:
        model: the float model with its weights and with inferred shapes (`infer_shapes`). It is of no use afterwards.
        ranges: tensor name -> (lower, upper), for every name of `CalibrationPlan.cached`.
        settings: what else the quantizer is told.
    """
    from onnxruntime.quantization.calibrate import CalibrationMethod, TensorData, TensorsData
    from onnxruntime.quantization.quant_utils import add_infer_metadata
    from onnxruntime.quantization.quantize import check_static_quant_arguments, update_opset_version
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    add_infer_metadata(model)
    arguments = settings.to_kwargs()
    weight_type, activation_type = arguments["weight_type"], arguments["activation_type"]
    options = arguments["extra_options"]
    model = update_opset_version(
        model,
        weight_type,
        activation_type,
        tensor_quant_overrides=options.get("TensorQuantOverrides"),
        block_size=options.get("BlockSize", 0),
    )
    check_static_quant_arguments(arguments["quant_format"], activation_type, weight_type)
    data = {
        name: TensorData(lowest=np.array(low, np.float32), highest=np.array(high, np.float32))
        for name, (low, high) in ranges.items()
    }
    with quiet_quantizer():
        quantizer = _quantizer()(
            model,
            arguments["per_channel"],
            arguments["reduce_range"],
            weight_type,
            activation_type,
            TensorsData(CalibrationMethod.MinMax, data),
            [],
            arguments["nodes_to_exclude"],
            list({*QLinearOpsRegistry, *QDQRegistry}),
            options,
        )
        quantizer.quantize_model()
    quantizer.model.topological_sort()
    written: onnx.ModelProto = quantizer.model.model
    return written


@functools.cache
def _quantizer() -> type[Any]:
    """The class, made when ONNX Runtime's quantizer is imported, which takes a while."""
    from onnxruntime.quantization import qdq_quantizer

    class Vectorized(qdq_quantizer.QDQQuantizer):  # type: ignore[misc]
        tensors_to_quantize: dict[str, Any]
        _add_qdq_nodes_for_initializer = _with(
            qdq_quantizer.QDQQuantizer._add_qdq_nodes_for_initializer,
            quantize_onnx_initializer=functools.partial(_quantized_weight, qdq_quantizer.quantize_onnx_initializer),
        )

        def _calc_initializer_quant_params(self) -> dict[str, Any]:
            marked: dict[str, Any] = self.tensors_to_quantize
            constants = {tensor.name: tensor for tensor in self.model.initializer()}
            found, rest = {}, {}
            for name in marked.keys() & constants.keys():
                parameters = self._of_channels(constants[name], marked[name])
                if parameters is None:
                    rest[name] = marked[name]
                else:
                    found[name] = parameters
            self.tensors_to_quantize = rest
            found |= super()._calc_initializer_quant_params()
            self.tensors_to_quantize = marked
            return found

        def _of_channels(self, tensor: Any, info: Any) -> Any:
            """Scales and zero points of a weight's channels, or None where the class above computes them."""
            if info.axis is None or self.block_size or tensor.name in self.tensor_quant_overrides:
                return None
            is_weight = info.tensor_type is qdq_quantizer.QDQQuantTensorType.WEIGHT
            kind = self.weight_qType if is_weight else self.activation_qType
            found = _channel_parameters(tensor, kind, info.axis, self.reduce_range, self.min_real_range)
            if found is None:
                return None
            zero_point, scale, axis = found
            return qdq_quantizer.QuantizationParams(zero_point=zero_point, scale=scale, quant_type=kind, axis=axis)

        def _adjust_weight_scale_for_int32_bias(
            self, input_scale: _Array, weight_scale: _Array, weight_name: str, bias_tp: Any, is_per_channel: bool
        ) -> tuple[bool, _Array | None]:
            if is_per_channel and weight_scale.ndim == 1 and weight_scale.size:
                bias = qdq_quantizer.tensor_proto_to_array(bias_tp)
                if bias.shape == weight_scale.shape:
                    return _enlarged(input_scale, weight_scale, bias)
            adjusted: tuple[bool, _Array | None] = super()._adjust_weight_scale_for_int32_bias(
                input_scale, weight_scale, weight_name, bias_tp, is_per_channel
            )
            return adjusted

    return Vectorized


def _with(function: Any, **replaced: Callable[..., Any]) -> Any:
    """A function as it is, but for what some of its global names stand for."""
    return FunctionType(
        function.__code__,
        {**function.__globals__, **replaced},
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )


def _whole_types() -> frozenset[int]:
    from onnx import TensorProto

    return frozenset((TensorProto.INT8, TensorProto.UINT8, TensorProto.INT16, TensorProto.UINT16))


def _channel_parameters(
    tensor: Any, kind: int, axis: int, reduce_range: bool, smallest_range: float | None
) -> tuple[_Array, _Array, int] | None:
    """Zero points, scales (C,) and the axis: `compute_data_quant_params` of each channel, symmetric.

    None where the weight is empty, not float32 or not finite, or the type has not 8 or 16 bits.
    """
    from onnx import TensorProto, numpy_helper
    from onnxruntime.quantization.quant_utils import get_qmin_qmax_for_qType

    if tensor.data_type != TensorProto.FLOAT or kind not in _whole_types():
        return None
    weight = numpy_helper.to_array(tensor)
    axis = axis + weight.ndim if axis < 0 else axis
    if not weight.size or not 0 <= axis < weight.ndim:
        return None
    others = tuple(other for other in range(weight.ndim) if other != axis)
    low, high = weight.min(axis=others), weight.max(axis=others)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        return None
    qmin, qmax = get_qmin_qmax_for_qType(kind, reduce_range, symmetric=True)
    low, high = np.minimum(low, np.float32(0)), np.maximum(high, np.float32(0))
    if smallest_range is not None:
        high = np.maximum(high, low + np.asarray(smallest_range, np.float32))
    largest = np.maximum(np.abs(low), np.abs(high)).astype(np.float64)
    scale = (largest + largest) / (np.float64(qmax) - np.float64(qmin))
    middle = np.round((qmin + qmax) / np.array(2.0)).astype(qmin.dtype)
    small = scale < np.finfo(np.float32).tiny
    zero_point = np.where(small, np.zeros((), qmin.dtype), middle).astype(qmin.dtype)
    return zero_point, np.where(small, np.float32(1), scale.astype(np.float32)), axis


def _quantized_weight(
    stock: Callable[..., Any],
    weight: Any,
    quant_type: int,
    zero_point: _Array,
    scale: _Array,
    axis: int | None = None,
    quant_weight_name: str | None = None,
    block_size: int = 0,
) -> Any:
    """`quantize_onnx_initializer` for all channels at once; `stock` is that function, for what is rarer."""
    from onnx import TensorProto, numpy_helper
    from onnxruntime.quantization.quant_utils import TENSOR_NAME_QUANT_SUFFIX, get_qmin_qmax_for_qType

    plain = weight.data_type == TensorProto.FLOAT and scale.dtype == np.float32 and quant_type in _whole_types()
    if axis is None or block_size or not plain:
        return stock(weight, quant_type, zero_point, scale, axis, quant_weight_name, block_size=block_size)
    floats = numpy_helper.to_array(weight)
    shape = [-1 if position == axis else 1 for position in range(floats.ndim)]
    steps = floats / scale.reshape(shape)
    np.rint(steps, out=steps)
    steps += zero_point.reshape(shape)
    low, high = get_qmin_qmax_for_qType(quant_type)
    np.clip(steps, low, high, out=steps)
    name = quant_weight_name or f"{weight.name}{TENSOR_NAME_QUANT_SUFFIX}"
    return numpy_helper.from_array(steps.astype(low.dtype), name)


def _enlarged(input_scale: _Array, weight_scale: _Array, bias: _Array) -> tuple[bool, _Array]:
    """Weight scales under which each channel's bias fits int32, changed in place, and whether any had to be changed."""
    limits = np.iinfo(np.int32)
    span = np.array(limits.max, np.float64) - np.array(limits.min + 1, np.float64)
    smallest = 1.0001 * (2.0 * np.abs(bias)) / span
    exact = weight_scale.astype(np.float64)
    candidate = np.array(input_scale.item(), np.float64) * exact
    small = (candidate < smallest) & (candidate > 0)
    weight_scale[small] = (exact[small] * (smallest[small] / candidate[small])).astype(weight_scale.dtype)
    return bool(small.any()), weight_scale
