"""Targets: what the deployment needs of the graph. A target shapes the file only and never needs the hardware."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onnxptq.graphs.kept_in_float import kept_in_float
from onnxptq.graphs.skeleton import skeleton
from onnxptq.graphs.view import GraphView
from onnxptq.quantization.settings import OVERRIDES, QuantizerSettings
from onnxptq.registry import Registry

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@dataclass(frozen=True)
class Choice:
    """One choice of a preset.

    Attributes:
        setting: what is set, as the quantizer calls it where it has a name for it.
        reason: why.
        source: who says so: a page, an issue, or "measured" (docs/targets.md tells with what).
    """

    setting: str
    reason: str
    source: str


@dataclass(frozen=True)
class Target:
    """A preset of the static quantizer.

    Attributes:
        name: as in `--target`.
        summary: one line.
        settings: what the quantizer is told, whatever the model.
        reasons: why, choice by choice.
        float_nodes: ONNX `GraphProto` of the folded model -> names of the nodes that stay in float.
    """

    name: str
    summary: str
    settings: QuantizerSettings
    reasons: tuple[Choice, ...]
    float_nodes: Callable[[Any], tuple[str, ...]] = field(default=lambda graph: ())


TARGETS: Registry[Target] = Registry("target", "onnxptq.targets", ("onnxptq.quantization.targets",))


def target_settings(name: str, model: str | Path) -> QuantizerSettings:
    """What the quantizer is told for one model: the target's settings, and what follows from the graph.

    Nodes that stay in float: those that the target leaves so, and those of which the quantizer would make something
    else. Weights of one scale: those of a MatMul with three and more axes (see `_one_scale`).

    Args:
        name: of the target.
        model: the folded FP32 model.

    Raises:
        UsageError: there is no such target.
    """
    target = TARGETS.get(name)
    graph = skeleton(Path(model)).graph
    nodes = (*target.float_nodes(graph), *(node.name for node in kept_in_float(graph)))
    settings = replace(target.settings, nodes_to_exclude=(*target.settings.nodes_to_exclude, *dict.fromkeys(nodes)))
    single = _one_scale(graph) if settings.per_channel else []
    if not single:
        return settings
    overrides = {**{key: [{"symmetric": True}] for key in single}, **settings.extra_options.get(OVERRIDES, {})}
    return replace(settings, extra_options={**settings.extra_options, OVERRIDES: overrides})


def _one_scale(graph: Any) -> list[str]:
    """Weights that a MatMul reads and that have more than two axes.

    The quantizer would give them one scale along axis 1, which is not that of the columns: ONNX Runtime's kernel fails
    where it is as long, and computes something else where it is not.
    """
    read = {name for node in graph.node if node.op_type == "MatMul" for name in node.input}
    return [tensor.name for tensor in graph.initializer if tensor.name in read and len(tensor.dims) > 2]


def all_but_weighted(graph: Any) -> tuple[str, ...]:
    """Nodes that need no Q and DQ for TensorRT: all but weighted operators and some additions.

    Q and DQ stand at the inputs of the weighted operators; TensorRT moves them over pooling, reshapes and Concat. The
    identity branch of a residual block is the input of a weighted operator already, and shares its pair with the Add,
    so the Add fuses with the Conv before it. Where neither input of an Add has such a pair (a Conv on both branches),
    the Add is quantized; and where no Conv stands right before it (a Relu does), since it then is a kernel of its own,
    which reads a float branch in float. Nodes without a name cannot be left out, since the quantizer knows nodes by
    name.
    """
    view = GraphView.of(graph)
    pairs = Counter(name for node in graph.node if node.op_type in WEIGHTED for name in node.input[:2])

    def needs_a_pair(node: Any) -> bool:
        if node.op_type != "Add" or any(view.constant(name) is not None for name in node.input):
            return False
        weighted = [(maker := view.producer(name)) is not None and maker.op_type in WEIGHTED for name in node.input]
        # With several weighted readers each has a pair of its own (DedicatedQDQPair), and the Add would have none.
        shared = [pairs[name] == 1 for name in node.input]
        return not any(shared) if any(weighted) else shared.count(True) == 1

    kept = set(WEIGHTED)
    return tuple(n.name for n in graph.node if n.name and n.op_type not in kept and not needs_a_pair(n))


_QUANTIZATION = "https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html"
_TENSORRT = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)
_TENSORRT_11 = "https://docs.nvidia.com/deeplearning/tensorrt/latest/api/migration/tensorrt-10x-to-11x.html"
_OPTIONS = "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/python/tools/quantization/qdq_quantizer.py"
_CUDA = "https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/providers/cuda/tensor/quantize_linear.cc"

_PER_CHANNEL = Choice(
    "QInt8 weights, per_channel",
    "one scale an output channel costs nothing in the kernels, and depthwise layers need it",
    "https://arxiv.org/abs/1806.08342",
)
_FLOAT_OUTPUTS = Choice(
    "OpTypesToExcludeOutputQuantization: Conv, ConvTranspose, Gemm, MatMul, Add",
    "no Q and DQ between an operator and its Relu: they fuse, values are rounded once, logits stay in float",
    _TENSORRT,
)
_SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}
_FLOAT_BIAS = {"QuantizeBias": False, "QDQDisableWeightAdjustForInt32Bias": True}
"""Left to itself, the quantizer enlarges weight scales so that a bias fits int32 even where the bias stays in float:
behind small activations the weights of whole channels become zero for nothing."""
_UNQUANTIZED_OUTPUTS = {"OpTypesToExcludeOutputQuantization": [*WEIGHTED, "Add"]}

TARGETS.register(
    Target(
        "cpu",
        "QUInt8 activations, QInt8 weights per channel",
        QuantizerSettings(activation_type="QUInt8", weight_type="QInt8", per_channel=True),
        (
            Choice(
                "QUInt8 activations, asymmetric",
                "U8S8 kernels are the fastest (VNNI); a Relu vanishes into the zero point, and its output uses all 8 "
                "bits. With signed activations, Adds and shared inputs run in float",
                _QUANTIZATION + "; measured",
            ),
            _PER_CHANNEL,
            Choice(
                "int32 bias (QuantizeBias)",
                "fuses in every version; a float one only since 1.21, and not in a Gemm with float output",
                "https://github.com/microsoft/onnxruntime/pull/22889; measured",
            ),
            Choice(
                "8-bit weights (no reduce_range)",
                "with VNNI, AMX or on ARM nothing saturates; for other x86 CPUs `onnxptq lint` warns",
                "https://github.com/microsoft/onnxruntime/issues/5849",
            ),
            Choice(
                "Q and DQ on every operator that the quantizer knows",
                "ONNX Runtime makes one INT8 kernel of DQ, operator, Q; without the Q a Conv runs in float",
                "measured",
            ),
        ),
    )
)

TARGETS.register(
    Target(
        "cuda",
        "symmetric QInt8 activations, QInt8 weights per channel, float bias",
        QuantizerSettings(
            "QInt8",
            "QInt8",
            per_channel=True,
            extra_options={**_SYMMETRIC, **_FLOAT_BIAS, **_UNQUANTIZED_OUTPUTS},
        ),
        (
            Choice(
                "QInt8 activations, symmetric",
                "the CUDA provider computes in float between Q and DQ: expect INT8's accuracy, not its speed. So the "
                "file is one that TensorRT can take as well",
                "https://github.com/microsoft/onnxruntime/issues/24807",
            ),
            _PER_CHANNEL,
            Choice(
                "float bias (no QuantizeBias)", "there is no int32 DQ kernel for CUDA: it would run on the CPU", _CUDA
            ),
            _FLOAT_OUTPUTS,
        ),
    )
)

_EXPLICIT = Target(
    "tensorrt",
    "symmetric QInt8 activations, QInt8 weights per channel, float bias, Q and DQ at weighted operators only",
    QuantizerSettings(
        "QInt8",
        "QInt8",
        per_channel=True,
        extra_options={
            **_SYMMETRIC,
            **_FLOAT_BIAS,
            "AddQDQPairToWeight": True,
            "DedicatedQDQPair": True,
            **_UNQUANTIZED_OUTPUTS,
        },
    ),
    (
        Choice(
            "QInt8, zero point 0",
            "TensorRT's parser refuses another zero point, and has no unsigned type",
            "https://github.com/NVIDIA/TensorRT/issues/2774",
        ),
        _PER_CHANNEL,
        Choice(
            "float bias (no QuantizeBias)",
            "it is added in the accumulator; an int32 DQ is refused",
            "https://github.com/microsoft/onnxruntime/issues/14229",
        ),
        Choice(
            "Q and DQ on float weights (AddQDQPairToWeight)",
            "explicit quantization finds weights by their pairs; the quantizer offers it for TensorRT",
            _OPTIONS,
        ),
        Choice("one pair a consumer (DedicatedQDQPair)", "a pair between two kernels belongs to one of them", _OPTIONS),
        _FLOAT_OUTPUTS,
        Choice(
            "Q and DQ at Conv, ConvTranspose, Gemm and MatMul only",
            "TensorRT moves them over pooling and Concat; normalisation, Softmax and additions of constants stay exact",
            _TENSORRT,
        ),
        Choice(
            "Add: the identity branch only",
            "the Add then fuses with the Conv; with a Conv on both branches, or a Relu between, both are quantized",
            _TENSORRT,
        ),
    ),
    all_but_weighted,
)

TARGETS.register(_EXPLICIT)

TARGETS.register(
    replace(
        _EXPLICIT,
        name="tensorrt11",
        summary="as tensorrt, for TensorRT 11, which knows explicit Q and DQ only and types as the graph gives them",
        reasons=(
            Choice(
                "explicit Q and DQ only",
                "TensorRT 11 has removed the INT8 flag, calibrators and dynamic ranges: Q and DQ in the graph are the "
                "one way to INT8",
                _TENSORRT_11,
            ),
            Choice(
                "what is not quantized stays in FP32",
                "networks are strongly typed and there is no FP16 flag: NVIDIA's AutoCast makes FP16 of the remainder, "
                "in the file, and that file is judged again (lint says so: QDQ311)",
                _TENSORRT_11,
            ),
            *_EXPLICIT.reasons,
        ),
    )
)

TARGETS.register(
    Target(
        "openvino",
        "symmetric QInt8 activations, QInt8 weights per channel, float bias",
        QuantizerSettings(
            "QInt8",
            "QInt8",
            per_channel=True,
            extra_options={**_SYMMETRIC, **_FLOAT_BIAS, **_UNQUANTIZED_OUTPUTS},
        ),
        (
            Choice(
                "QInt8 activations, symmetric",
                "OpenVINO's own default; with zero points, products of two activations (attention) run in float",
                "https://docs.openvino.ai/latest/pot_compression_algorithms_quantization_default_README.html; measured",
            ),
            _PER_CHANNEL,
            Choice(
                "weights as integers (no AddQDQPairToWeight)",
                "with Q and DQ on the constant of an Add after a Conv or MatMul, OpenVINO 2026.4 fails to compile",
                "measured",
            ),
            Choice(
                "float bias (no QuantizeBias)",
                "it is added in float or int32 as OpenVINO sees fit; nothing is lost to rounding",
                "measured",
            ),
            _FLOAT_OUTPUTS,
        ),
    )
)
