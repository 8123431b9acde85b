"""Quantized models from ranges: the graph is built once, and each file is that graph with other numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.graphs.external import has_external_data
from onnxptq.graphs.shapes import infer_shapes
from onnxptq.quantization._template import Bias, build_template, quantization_parameters
from onnxptq.quantization.plan import CalibrationPlan
from onnxptq.quantization.reference_quantizer import Ranges, quantize_with_ranges
from onnxptq.quantization.settings import OVERRIDES, QuantizerSettings
from onnxptq.quantization.vectorized import TRIED_VERSIONS, quantized_model

__all__ = ["FastWriter", "Ranges", "quantize_with_ranges", "writer_for"]

_INT32 = np.iinfo(np.int32)


class _Anew(Exception):
    """More than numbers changes; the message says why."""


class FastWriter:
    """Writes many range sets of one model and one setting, each file byte for byte what `quantize_static` writes.

    The graph is built once. Per range set only activation scales and zero points change, and what follows from
    them: int32 biases and their scales. Where more would change (a weight's scale that the quantizer enlarges
    because a bias would not fit int32, overrides of activations) the graph is built anew, and `anew` says why. Weights
    in files of their own are left to `quantize_static`.

    Args:
        model_path: the float model; it must stay where it is.
        settings: what else the quantizer is told.
        external: keep the weights of what is written in `<output>.data`.
        compared: compare the first file with that of `quantize_static`. None does so on versions of ONNX Runtime on
            which this was never tried.

    Attributes:
        plan: what to observe and what ranges to give.
        written: number of files written.
        anew: one reason for every file whose graph was built anew.

    Raises:
        ModelError: there is nothing to quantize.
    """

    def __init__(
        self,
        model_path: str | Path,
        settings: QuantizerSettings,
        *,
        external: bool = False,
        compared: bool | None = None,
    ) -> None:
        self._model_path = Path(model_path)
        self._settings = settings
        self._external = external
        self._template = build_template(model_path, settings)
        self._initializers = {tensor.name: tensor for tensor in self._template.model.graph.initializer}
        self.plan = CalibrationPlan(self._template.observed, self._template.cached, self._template.shared)
        self.written = 0
        self.anew: list[str] = []
        self._to_compare = _untried() if compared is None else compared
        self._stock = "the weights go to a file of their own" if external else ""
        if not external and has_external_data(self._model_path):
            self._stock = "the weights lie in files of their own"

    def write(self, ranges: Ranges, output: str | Path) -> str | None:
        """Writes the model quantized with `ranges`, in place: give a temporary name.

        Args:
            ranges: tensor name -> (lower, upper), for every name of `plan.observed` at least.
            output: where the model goes.

        Returns:
            Why `quantize_static` itself wrote this file, or None.

        Raises:
            UsageError: a range is missing.
        """
        missing = [name for name in self.plan.observed if name not in ranges]
        if missing:
            raise UsageError(f"no range for {', '.join(map(repr, missing[:3]))}; give one for each of `plan.observed`")
        output = Path(output)
        self.written += 1
        if self._stock:
            self._quantize_static(ranges, output)
            return self._stock
        data = self._bytes(ranges)
        if self._to_compare:
            self._to_compare = False
            self._quantize_static(ranges, output)
            if output.read_bytes() == data:
                return None
            self._stock = "this version of ONNX Runtime writes another file than the one that onnxptq makes"
            return self._stock
        output.write_bytes(data)
        return None

    def _quantize_static(self, ranges: Ranges, output: Path) -> None:
        complete = self.plan.complete(ranges)
        quantize_with_ranges(self._model_path, complete, output, self._settings, external=self._external)

    def _bytes(self, ranges: Ranges) -> bytes:
        import onnx

        try:
            self._rewrite(ranges)
            data: bytes = self._template.model.SerializeToString()
        except _Anew as reason:
            self.anew.append(str(reason))
            source = infer_shapes(onnx.load(str(self._model_path)))
            data = quantized_model(source, self.plan.complete(ranges), self._settings).SerializeToString()
        return data

    def _rewrite(self, ranges: Ranges) -> None:
        if self._template.biases is None:
            raise _Anew("a bias is not made of constants")
        options = self._settings.extra_options
        if not options.get("QuantizeBias", True) and not options.get("QDQDisableWeightAdjustForInt32Bias", False):
            raise _Anew("the settings enlarge weight scales for biases that stay in float")
        # An override of a weight is in the template already; one of an activation changes how ranges become scales.
        if set(options.get(OVERRIDES, ())) & set(self.plan.cached):
            raise _Anew("the settings override single activations")
        scales: dict[str, npt.NDArray[Any]] = {}
        for scale_name, source in self._template.sites.items():
            zero, scale = quantization_parameters(*ranges[source], self._settings)
            scales[scale_name] = scale
            self._set_scalar(scale_name, scale)
            self._set_scalar(scale_name.removesuffix("_scale") + "_zero_point", zero)
        for bias in self._template.biases:
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

    def _set_bias(self, bias: Bias, input_scale: npt.NDArray[Any]) -> None:
        from onnx import numpy_helper

        if bias.values.dtype != np.float32:
            raise _Anew(f"the bias {bias.quantized} is not float32")
        if not self._settings.extra_options.get("QDQDisableWeightAdjustForInt32Bias", False):
            _check_bias_fits(bias, input_scale)
        scale = input_scale * bias.weight_scale * bias.beta
        integers = np.asarray(bias.values, np.float64) / np.asarray(scale, np.float64)
        integers = np.clip(integers.round(), float(_INT32.min), float(_INT32.max)).astype(np.int32)
        tensor = numpy_helper.from_array(np.asarray(integers, np.int32).reshape(bias.values.shape), bias.quantized)
        self._initializers[bias.quantized].CopyFrom(tensor)
        flat = np.asarray(scale, dtype=bias.values.dtype).reshape(-1)
        self._initializers[bias.scale].CopyFrom(numpy_helper.from_array(flat, bias.scale))


def _untried() -> bool:
    import onnxruntime

    return onnxruntime.__version__ not in TRIED_VERSIONS


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


def _check_bias_fits(bias: Bias, input_scale: npt.NDArray[Any]) -> None:
    """Refuses a bias for whose sake the quantizer may enlarge the weight's scale (`qdq_quantizer.py`)."""
    candidate = np.float64(input_scale) * bias.weight_scale.astype(np.float64)
    magnitude = np.abs(bias.values.astype(np.float64))
    largest = magnitude if bias.weight_scale.ndim else magnitude.max(initial=0.0)
    smallest = 1.0001 * (2.0 * largest) / (float(_INT32.max) - float(_INT32.min + 1))
    # A margin, because the quantizer computes part of this in float32: building anew is never wrong, only slower.
    if np.any(candidate < smallest * (1 + 1e-6)):
        raise _Anew(f"the bias {bias.quantized} needs a larger weight scale to fit int32")
