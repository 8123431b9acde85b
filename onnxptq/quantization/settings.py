"""What ONNX Runtime's static quantizer is told: everything but the ranges."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from onnxptq.calibrators.methods import QuantizationType
from onnxptq.errors import UsageError, did_you_mean

OVERRIDES = "TensorQuantOverrides"
"""ONNX Runtime's extra option for the types, scales and zero points of single tensors."""


@dataclass(frozen=True)
class QuantizerSettings:
    """The arguments of `onnxruntime.quantization.quantize_static` that shape the QDQ graph.

    Attributes:
        activation_type: name of a `QuantType`, "QUInt8" or "QInt8".
        weight_type: name of a `QuantType`, normally "QInt8".
        per_channel: one weight scale an output channel instead of one a tensor.
        extra_options: as `quantize_static` takes them, for example `{"ActivationSymmetric": True}`.
        nodes_to_exclude: names of nodes that stay in float.
        reduce_range: 7-bit weights, for x86 CPUs without VNNI.
    """

    activation_type: str = "QUInt8"
    weight_type: str = "QInt8"
    per_channel: bool = False
    extra_options: Mapping[str, Any] = field(default_factory=dict)
    nodes_to_exclude: tuple[str, ...] = ()
    reduce_range: bool = False

    @property
    def quantization(self) -> QuantizationType:
        """What activations become: the type that range methods are asked to choose a range for.

        Raises:
            UsageError: the activation type is not one of ONNX Runtime's integer types.
        """
        bits = {"QInt8": 8, "QUInt8": 8, "QInt16": 16, "QUInt16": 16, "QInt4": 4, "QUInt4": 4}
        if self.activation_type not in bits:
            hint = did_you_mean(self.activation_type, bits)
            raise UsageError(f"unknown activation type {self.activation_type!r}. {hint}")
        return QuantizationType(
            bits=bits[self.activation_type],
            signed=not self.activation_type.startswith("QUInt"),
            symmetric=bool(self.extra_options.get("ActivationSymmetric", False)),
        )

    def to_kwargs(self) -> dict[str, Any]:
        """Keyword arguments for `quantize_static`, a fresh copy at every call because it changes what it is given.

        Raises:
            UsageError: a type that ONNX Runtime does not know.
        """
        from onnxruntime.quantization import QuantFormat, QuantType

        for name in (self.activation_type, self.weight_type):
            if name not in QuantType.__members__:
                raise UsageError(f"unknown quantization type {name!r}. {did_you_mean(name, QuantType.__members__)}")
        return {
            "quant_format": QuantFormat.QDQ,
            "activation_type": QuantType[self.activation_type],
            "weight_type": QuantType[self.weight_type],
            "per_channel": self.per_channel,
            "reduce_range": self.reduce_range,
            "nodes_to_exclude": list(self.nodes_to_exclude),
            "extra_options": dict(self.extra_options),
        }
