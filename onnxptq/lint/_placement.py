"""Where Q and DQ stand: on biases, beside residual additions, on constants, in pairs, at Concat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from onnxptq.graphs.parts import STANDARD_DOMAINS
from onnxptq.graphs.view import WEIGHTED, GraphView, is_dequantize, is_quantize
from onnxptq.lint._base import Place, everywhere, rule

_PLACEMENT_OF_TENSORRT = (
    "https://docs.nvidia.com/deeplearning/tensorrt/latest/inference-library/quantized-types-explicit-quantization.html"
)
_MEASURED = "measured: ONNX Runtime 1.31.1 and OpenVINO 2026.4 on x86-64 (docs/lint.md)"
_READS_INTEGERS = ("QLinear", "QGemm", "QAttention", "ConvInteger", "MatMulInteger", "Cast")
_KEEPS_VALUES = frozenset({"Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Gather"})


@rule(
    "QDQ201",
    "quantized bias",
    {"tensorrt": "error", "cuda": "warning"},
    why="TensorRT adds a float bias in its accumulator and refuses an int32 DQ; the CUDA provider has no int32 DQ "
    "kernel, so it runs on the CPU with a copy each time.",
    source="https://github.com/microsoft/onnxruntime/issues/14229",
    remedy="Quantize with QuantizeBias=False (onnxptq quantize --target tensorrt or cuda), and load the file with the "
    "session option optimization.disable_specified_optimizers=WeightBiasQuantization: else ONNX Runtime makes int32 of "
    "a float bias again (QDQ210).",
)
def quantized_bias(graph: GraphView, target: str) -> Iterator[Place]:
    """A Conv or Gemm whose bias comes out of a DQ."""
    for node, _ in _biases(graph):
        yield Place(graph.label(node), f"its bias {node.input[2]} is quantized")


@rule(
    "QDQ202",
    "bias scale that is not input scale times weight scale",
    {"cpu": "warning"},
    why="The INT8 kernels add the int32 bias to the products, so it must have their scale; otherwise ONNX Runtime "
    "computes the node in float.",
    source=_MEASURED,
    remedy="Let the quantizer compute the bias, or leave it in float.",
)
def bias_scale(graph: GraphView, target: str) -> Iterator[Place]:
    """A Conv or Gemm whose quantized bias has another scale than its products."""
    for node, bias in _biases(graph):
        others = [graph.dequantize(name) for name in node.input[:2]]
        if None in others:
            continue
        scales = [graph.parameters(dequantize).scale for dequantize in (bias, *others)]
        if any(scale is None for scale in scales):
            continue
        found, of_input, of_weight = scales
        assert found is not None and of_input is not None and of_weight is not None
        try:
            agrees = bool(np.allclose(found, of_input * of_weight.reshape(-1), rtol=1e-3, atol=0))
        except ValueError:
            agrees = False
        if not agrees:
            yield Place(graph.label(node), f"the scale of its bias {bias.input[0]} does not follow from its inputs")


@rule(
    "QDQ203",
    "residual addition with one input in float",
    {"tensorrt": "warning", "cpu": "warning"},
    why="TensorRT fuses Conv and Add into one INT8 kernel when the other input of the Add is quantized; else the "
    "kernel writes floats. The CPU provider adds in float unless both inputs are quantized.",
    source=_PLACEMENT_OF_TENSORRT,
    remedy="Put Q and DQ on the input that is named: onnxptq quantize --target tensorrt (or cpu) does.",
)
def half_quantized_residual(graph: GraphView, target: str) -> Iterator[Place]:
    """An Add of two computed tensors, one behind a DQ, or one behind a weighted operator, and the other in float."""
    for node in _residual_adds(graph):
        quantized = [graph.dequantize(name) is not None for name in node.input]
        weighted = [_behind_weighted(graph, name) for name in node.input]
        if target == "cpu" and quantized.count(True) == 1:
            yield Place(graph.label(node), f"{node.input[quantized.index(False)]} is in float")
        elif target != "cpu" and not any(quantized) and any(weighted):
            yield Place(graph.label(node), f"neither {node.input[0]} nor {node.input[1]} is quantized")
        elif target != "cpu" and quantized.count(True) == 1 and not weighted[quantized.index(False)]:
            yield Place(graph.label(node), f"{node.input[quantized.index(False)]} is in float")


@rule(
    "QDQ204",
    "both inputs of a residual addition quantized",
    {"tensorrt": "note"},
    why="With Q and DQ between the Conv and the Add, TensorRT does not fuse them: the Add is a kernel of its own.",
    source=_PLACEMENT_OF_TENSORRT,
    remedy="Quantize the identity branch only; leave the output of the Conv in float.",
)
def fully_quantized_residual(graph: GraphView, target: str) -> Iterator[Place]:
    """An Add whose inputs are both behind DQ, exactly one of them straight from a weighted operator."""
    for node in _residual_adds(graph):
        pairs = [graph.dequantize(name) for name in node.input]
        sources = [graph.quantize_before(pair) if pair is not None else None for pair in pairs]
        if None in sources:
            continue
        weighted = [source is not None and _behind_weighted(graph, source.input[0]) for source in sources]
        if weighted.count(True) == 1:
            yield Place(graph.label(node), f"{node.input[weighted.index(True)]} comes from a weighted operator")


@rule(
    "QDQ205",
    "quantized value that nobody dequantizes",
    everywhere("warning"),
    why="Q and DQ are recognised in pairs. A Q alone makes integers that are read as numbers, or are not read at all.",
    source=_PLACEMENT_OF_TENSORRT,
    remedy="Add the DQ, or remove the Q.",
)
def quantize_alone(graph: GraphView, target: str) -> Iterator[Place]:
    """A Q that is not read by a DQ, by an integer operator or as an output of the graph."""
    for node in graph.quantizes:
        readers = [reader for reader, _ in graph.readers(node.output[0])]
        if node.output[0] in graph.outputs or any(_takes_integers(reader) for reader in readers):
            continue
        yield Place(graph.label(node), "no DequantizeLinear reads it")


@rule(
    "QDQ206",
    "dequantized value that nobody quantized",
    {"tensorrt": "warning", "openvino": "warning", "cpu": "warning"},
    why="A DQ on what is neither a constant nor behind a Q is not recognised as a pair: what follows runs in float.",
    source=_PLACEMENT_OF_TENSORRT,
    remedy="Keep Q and DQ of one tensor next to each other.",
)
def dequantize_alone(graph: GraphView, target: str) -> Iterator[Place]:
    """A DQ of something computed that is not a Q, an integer operator or an input of the graph."""
    for node in graph.dequantizes:
        source = graph.producer(node.input[0])
        if graph.constant(node.input[0]) is not None or node.input[0] in graph.inputs:
            continue
        if source is None or not (is_quantize(source) or _takes_integers(source) or source.op_type in _KEEPS_VALUES):
            yield Place(graph.label(node), f"{node.input[0]} is not quantized")


@rule(
    "QDQ207",
    "Q and DQ of a pair with different parameters",
    everywhere("warning"),
    why="The pair then scales or shifts the values instead of rounding them.",
    source="https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html",
    remedy="Give Q and DQ the same scale and zero point.",
)
def pair_differs(graph: GraphView, target: str) -> Iterator[Place]:
    """A DQ behind a Q of another scale or zero point."""
    for node in graph.dequantizes:
        quantize = graph.quantize_before(node)
        if quantize is None or list(quantize.input[1:]) == list(node.input[1:]):
            continue
        one, other = graph.parameters(quantize), graph.parameters(node)
        for a, b in ((one.scale, other.scale), (one.zero_point, other.zero_point)):
            if a is not None and b is not None and not np.array_equal(a.reshape(-1), b.reshape(-1)):
                yield Place(graph.label(node), f"it differs from {graph.label(quantize)}")
                break


@rule(
    "QDQ208",
    "Concat of tensors with different scales",
    {"tensorrt": "warning", "openvino": "note"},
    why="The parts have to be requantized to one scale before they can lie in one INT8 tensor: extra kernels, and a "
    "second rounding.",
    source="https://nvidia.github.io/Model-Optimizer/reference/generated/modelopt.onnx.quantization.int8.html",
    remedy="Give all inputs and the output of the Concat one scale, or leave the Concat itself unquantized.",
)
def concat_scales(graph: GraphView, target: str) -> Iterator[Place]:
    """A Concat whose quantized inputs have several scales."""
    for node in graph.nodes:
        if node.op_type != "Concat" or node.domain not in STANDARD_DOMAINS:
            continue
        pairs = [pair for pair in map(graph.dequantize, node.input) if pair is not None]
        found = [(parameters.scale, parameters.zero_point) for parameters in map(graph.parameters, pairs)]
        distinct = {(float(s), float(z)) for s, z in found if s is not None and z is not None and s.size == z.size == 1}
        if len(distinct) > 1:
            yield Place(graph.label(node), f"{len(distinct)} scales and zero points among {len(pairs)} inputs")


@rule(
    "QDQ209",
    "float constant behind Q and DQ outside of a weighted operator",
    {"openvino": "error", "tensorrt": "warning"},
    why="OpenVINO 2026.4 fails to compile an Add of a quantized Conv and such a constant; TensorRT gains nothing.",
    source=_MEASURED,
    remedy="Quantize without AddQDQPairToWeight, or leave additions of constants in float.",
)
def quantized_constant(graph: GraphView, target: str) -> Iterator[Place]:
    """A pair on a float constant that an Add, Mul ... reads."""
    for node in graph.dequantizes:
        quantize = graph.quantize_before(node)
        if quantize is None or graph.constant(quantize.input[0]) is None:
            continue
        for reader, _ in graph.readers(node.output[0]):
            if reader.op_type not in WEIGHTED:
                yield Place(graph.label(reader), f"it reads the constant {quantize.input[0]} through Q and DQ")


@rule(
    "QDQ210",
    "float bias that ONNX Runtime quantizes as it loads the file",
    {"cuda": "note", "tensorrt": "note"},
    why="ONNX Runtime 1.31 turns this bias into int32 and a DQ, whatever provider runs it (its WeightBiasQuantization, "
    "from level basic on). There is no int32 DQ for CUDA, so each of them runs on the CPU with a copy; TensorRT "
    "refuses them.",
    source="https://github.com/microsoft/onnxruntime/blob/main/onnxruntime/core/optimizer/qdq_transformer/"
    "weight_bias_quantization.cc",
    remedy="Load the file with the session option optimization.disable_specified_optimizers=WeightBiasQuantization, as "
    "onnxptq does where it judges on a GPU.",
)
def bias_quantized_at_load(graph: GraphView, target: str) -> Iterator[Place]:
    """A Conv, ConvTranspose or Gemm with a constant float bias, behind a DQ of one scale and on its way to a Q."""
    for node in graph.weighted:
        if node.op_type == "MatMul" or len(node.input) < 3 or graph.constant(node.input[2]) is None:
            continue
        before = graph.dequantize(node.input[0])
        scale = graph.parameters(before).scale if before is not None else None
        if scale is not None and scale.size == 1 and _leads_to_quantize(graph, node):
            yield Place(graph.label(node), f"its bias {node.input[2]}")


def _leads_to_quantize(graph: GraphView, node: Any) -> bool:
    """Whether a Q is the one reader of a node, or of the Relu and Clip behind it."""
    while node.output[0] not in graph.outputs:
        readers = [reader for reader, _ in graph.readers(node.output[0])]
        if len(readers) != 1:
            return False
        (node,) = readers
        if is_quantize(node):
            return True
        if node.op_type not in ("Relu", "Clip"):
            return False
    return False


def _biases(graph: GraphView) -> Iterator[tuple[Any, Any]]:
    for node in graph.weighted:
        dequantize = graph.dequantize(node.input[2]) if len(node.input) > 2 and node.input[2] else None
        if dequantize is not None:
            yield node, dequantize


def _residual_adds(graph: GraphView) -> Iterator[Any]:
    """Additions of two computed tensors in a quantized graph."""
    if not graph.quantizes:
        return
    for node in graph.nodes:
        computed = all(graph.weight(name) is None for name in node.input)
        if node.op_type == "Add" and node.domain in STANDARD_DOMAINS and computed:
            yield node


def _behind_weighted(graph: GraphView, tensor: str) -> bool:
    producer = graph.producer(tensor)
    return producer is not None and producer.op_type in WEIGHTED


def _takes_integers(node: Any) -> bool:
    return is_dequantize(node) or node.op_type.startswith(_READS_INTEGERS) or node.op_type in _KEEPS_VALUES
