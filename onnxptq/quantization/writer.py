"""Quantized models from ranges: through ONNX Runtime's quantizer, or by rewriting what it built once."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.graphs.external import has_external_data
from onnxptq.quantization._template import Template, build_template, quantization_parameters
from onnxptq.quantization.grids import OVERRIDES
from onnxptq.quantization.plan import CalibrationPlan
from onnxptq.quantization.reference_quantizer import Ranges, quantize_with_ranges
from onnxptq.quantization.settings import QuantizerSettings

__all__ = ["FastWriter", "Ranges", "quantize_with_ranges", "writer_for"]

_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class _Bias:
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


class _Unsupported(Exception):
    """The fast way does not apply; the message says why."""


class FastWriter:
    """Writes many range sets of one model and one setting, each file byte for byte what `quantize_static` writes.

    The graph is built once. Per range set only activation scales and zero points change, and what follows from
    them: int32 biases and their scales. Where more would change (a weight's scale that the quantizer enlarges
    because a bias would not fit int32, overrides of activations, external data) the reference writes instead,
    and `fallbacks` says why.

    Args:
        model_path: the float model; it must stay where it is.
        settings: what else the quantizer is told.
        external: keep the weights of what is written in `<output>.data`; only the reference can.

    Attributes:
        plan: what to observe and what ranges to give.
        written: number of files written.
        fallbacks: one reason for every file that the reference wrote.

    Raises:
        ModelError: there is nothing to quantize.
    """

    def __init__(self, model_path: str | Path, settings: QuantizerSettings, *, external: bool = False) -> None:
        self._model_path = Path(model_path)
        self._settings = settings
        self._external = external
        self._template = build_template(model_path, settings)
        self._initializers = {tensor.name: tensor for tensor in self._template.model.graph.initializer}
        self.plan = CalibrationPlan(self._template.observed, self._template.cached, self._template.shared)
        self.written = 0
        self.fallbacks: list[str] = []
        self._compared = False
        self._never = ""
        self._biases: list[_Bias] = []
        try:
            if external:
                raise _Unsupported("the weights go to a file of their own")
            _check_supported(self._model_path, settings)
            self._biases = _find_biases(self._model_path, self._template)
        except _Unsupported as reason:
            self._never = str(reason)

    def write(self, ranges: Ranges, output: str | Path) -> str | None:
        """Writes the model quantized with `ranges`, in place: give a temporary name.

        The first file is compared with the reference; where they differ the reference stands, and writes all that
        follow.

        Args:
            ranges: tensor name -> (lower, upper), for every name of `plan.observed` at least.
            output: where the model goes.

        Returns:
            Why the reference wrote this file, or None where the fast way did.

        Raises:
            UsageError: a range is missing.
        """
        missing = [name for name in self.plan.observed if name not in ranges]
        if missing:
            raise UsageError(f"no range for {', '.join(map(repr, missing[:3]))}; give one for each of `plan.observed`")
        output = Path(output)
        self.written += 1
        try:
            if self._never:
                raise _Unsupported(self._never)
            self._rewrite(ranges)
            data = self._template.model.SerializeToString()
        except _Unsupported as reason:
            self.fallbacks.append(str(reason))
            self._reference(ranges, output)
            return str(reason)
        if self._compared:
            output.write_bytes(data)
            return None
        self._reference(ranges, output)
        self._compared = True
        if output.read_bytes() == data:
            return None
        self._never = "the first file differed from the reference"
        self.fallbacks.append(self._never)
        return self._never

    def _reference(self, ranges: Ranges, output: Path) -> None:
        complete = self.plan.complete(ranges)
        quantize_with_ranges(self._model_path, complete, output, self._settings, external=self._external)

    def _rewrite(self, ranges: Ranges) -> None:
        scales: dict[str, npt.NDArray[Any]] = {}
        for scale_name, source in self._template.sites.items():
            zero, scale = quantization_parameters(*ranges[source], self._settings)
            scales[scale_name] = scale
            self._set_scalar(scale_name, scale)
            self._set_scalar(scale_name.removesuffix("_scale") + "_zero_point", zero)
        for bias in self._biases:
            scale = scales.get(bias.input_scale)
            self._set_bias(bias, self._constant(bias.input_scale) if scale is None else scale)

    def _constant(self, name: str) -> npt.NDArray[Any]:
        from onnx import numpy_helper

        return numpy_helper.to_array(self._initializers[name])

    def _set_scalar(self, name: str, value: npt.NDArray[Any]) -> None:
        from onnx import helper

        tensor = self._initializers[name]
        # The same call as the quantizer's, so that the value lands in the same field of the protobuf.
        tensor.CopyFrom(helper.make_tensor(name, tensor.data_type, value.shape, value.ravel().tolist()))

    def _set_bias(self, bias: _Bias, input_scale: npt.NDArray[Any]) -> None:
        from onnx import numpy_helper

        if not self._settings.extra_options.get("QDQDisableWeightAdjustForInt32Bias", False):
            _check_bias_fits(bias, input_scale)
        scale = input_scale * bias.weight_scale * bias.beta
        integers = np.asarray(bias.values, np.float64) / np.asarray(scale, np.float64)
        integers = np.clip(integers.round(), float(_INT32.min), float(_INT32.max)).astype(np.int32)
        tensor = numpy_helper.from_array(np.asarray(integers, np.int32).reshape(bias.values.shape), bias.quantized)
        self._initializers[bias.quantized].CopyFrom(tensor)
        flat = np.asarray(scale, dtype=bias.values.dtype).reshape(-1)
        self._initializers[bias.scale].CopyFrom(numpy_helper.from_array(flat, bias.scale))


@dataclass(frozen=True)
class _Written:
    """What a writer is for. Settings hold dicts, so they are compared by what they say."""

    model_path: Path
    changed: int
    said: str
    external: bool
    settings: QuantizerSettings = field(compare=False)


def writer_for(model_path: Path, settings: QuantizerSettings, *, external: bool = False) -> FastWriter:
    """The writer of this process for the model file as it is now: a sweep builds and compares each graph once.

    The last four are kept, so that the targets of one model can take turns.

    Args:
        model_path, settings, external: as `FastWriter` takes them.

    Raises:
        ModelError: there is nothing to quantize.
    """
    return _kept(_Written(model_path, model_path.stat().st_mtime_ns, repr(settings), external, settings))


@lru_cache(maxsize=4)  # Each holds a quantized model.
def _kept(written: _Written) -> FastWriter:
    return FastWriter(written.model_path, written.settings, external=written.external)


def _check_bias_fits(bias: _Bias, input_scale: npt.NDArray[Any]) -> None:
    """Refuses a bias for whose sake the quantizer would enlarge the weight's scale (`qdq_quantizer.py`)."""
    candidate = np.float64(input_scale) * bias.weight_scale.astype(np.float64)
    magnitude = np.abs(bias.values.astype(np.float64))
    largest = magnitude if bias.weight_scale.ndim else magnitude.max(initial=0.0)
    smallest = 1.0001 * (2.0 * largest) / (float(_INT32.max) - float(_INT32.min + 1))
    # A margin, because the quantizer computes part of this in float32: the reference is never wrong, only slower.
    if np.any(candidate < smallest * (1 + 1e-6)):
        raise _Unsupported(f"the bias {bias.quantized} needs a larger weight scale to fit int32")


def _check_supported(model_path: Path, settings: QuantizerSettings) -> None:

    # An override of a weight is in the template already; one of an activation changes how ranges become scales.
    if set(settings.extra_options.get(OVERRIDES, ())) - _constants(model_path):
        raise _Unsupported("the settings override single activations")
    if settings.activation_type not in ("QInt8", "QUInt8") or settings.weight_type not in ("QInt8", "QUInt8"):
        raise _Unsupported("the types are not 8-bit integers")
    if has_external_data(model_path):
        raise _Unsupported("the weights lie in files of their own")


def _constants(model_path: Path) -> set[str]:
    import onnx

    return {tensor.name for tensor in onnx.load(str(model_path), load_external_data=False).graph.initializer}


def _find_biases(model_path: Path, template: Template) -> list[_Bias]:
    """Every int32 bias of the template, with the float values and the scales that it is made of."""
    import onnx
    from onnx import TensorProto, numpy_helper

    original = onnx.load(model_path).graph
    floats = {tensor.name: tensor for tensor in original.initializer}
    graph = template.model.graph
    quantized = {tensor.name: tensor for tensor in graph.initializer}
    dequantized = {node.output[0]: node for node in graph.node if node.op_type == "DequantizeLinear"}
    sources = {node.input[2]: node for node in original.node if len(node.input) > 2}
    # A bias of two nodes was copied under a new name; the node's name leads back to it.
    named = {node.name: node for node in original.node if node.name}
    found = []
    for node in graph.node:
        bias = dequantized.get(node.input[2]) if len(node.input) > 2 else None
        if bias is None or quantized.get(bias.input[0], TensorProto()).data_type != TensorProto.INT32:
            continue
        source = sources.get(bias.output[0]) or named.get(node.name)
        if source is None or source.op_type != node.op_type or source.input[2] not in floats:
            raise _Unsupported(f"the bias {bias.output[0]} is not one of the float model")
        inputs = [dequantized.get(name) for name in node.input[:2]]
        if inputs[0] is None or inputs[1] is None:
            raise _Unsupported(f"{node.name or node.op_type} has a quantized bias and a float input")
        found.append(
            _Bias(
                quantized=bias.input[0],
                scale=bias.input[1],
                values=numpy_helper.to_array(floats[source.input[2]]),
                input_scale=inputs[0].input[1],
                weight_scale=numpy_helper.to_array(quantized[inputs[1].input[1]]),
                beta=next((a.f for a in source.attribute if a.name == "beta"), 1.0),
            )
        )
    return found
