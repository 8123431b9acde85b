"""Targets: what the deployment needs of the graph. A target shapes the file only and never needs the hardware."""

from __future__ import annotations

from dataclasses import dataclass

from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.registry import Registry


@dataclass(frozen=True)
class Target:
    """A preset of the static quantizer.

    Attributes:
        name: as in `--target`.
        summary: one line.
        settings: what the quantizer is told.
        reasons: why, choice by choice.
    """

    name: str
    summary: str
    settings: QuantizerSettings
    reasons: tuple[str, ...]


TARGETS: Registry[Target] = Registry("target", "onnxptq.targets", ("onnxptq.quantization.targets",))

TARGETS.register(
    Target(
        "cpu",
        "QUInt8 activations, QInt8 weights per channel",
        QuantizerSettings(activation_type="QUInt8", weight_type="QInt8", per_channel=True),
        (
            "QUInt8 activations: the CPU provider's fastest kernels are U8S8 (VNNI), and ReLU outputs use all 8 bits",
            "QInt8 weights, one scale a channel: no cost in the CPU kernels, and depthwise layers need it",
        ),
    )
)

_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}

TARGETS.register(
    Target(
        "cuda",
        "symmetric QInt8 activations, QInt8 weights per channel",
        QuantizerSettings("QInt8", "QInt8", per_channel=True, extra_options=_SYMMETRIC),
        (
            "symmetric QInt8: one file for the CUDA and the TensorRT provider, whose INT8 kernels take zero point 0 only",
            "the CUDA provider computes in float between Q and DQ: expect INT8's accuracy there, not its speed",
        ),
    )
)

TARGETS.register(
    Target(
        "tensorrt",
        "symmetric QInt8 activations, QInt8 weights per channel, float bias",
        QuantizerSettings(
            "QInt8",
            "QInt8",
            per_channel=True,
            extra_options={**_SYMMETRIC, "QuantizeBias": False, "AddQDQPairToWeight": True, "DedicatedQDQPair": True},
        ),
        (
            "zero point 0: TensorRT refuses or slows asymmetric Q/DQ (NVIDIA/TensorRT#4698)",
            "bias in float: TensorRT adds it in the accumulator and takes no Q/DQ on it",
            "Q and DQ on the weights, one pair a consumer: how TensorRT's explicit quantization recognises and fuses them",
        ),
    )
)
