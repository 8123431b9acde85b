"""What stays in float, in FP16: for runtimes that compute each operator in the type that the graph gives it.

TensorRT 11 has no flag for FP16 any more (docs/targets.md). The graph is converted by ONNX Runtime's own
`onnxruntime.transformers.float16`: constants, scales and operators become FP16, inputs and outputs stay FP32. Scales
are FP16 from opset 19 on. One below FP16's smallest normal number would lose digits; its Q and DQ stay in FP32.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxptq.cache import Cache
from onnxptq.calibrators import CalibrationSamples
from onnxptq.errors import ModelError, UsageError
from onnxptq.graphs.external import has_external_data
from onnxptq.graphs.modernize import in_opset
from onnxptq.graphs.order import sort_model
from onnxptq.graphs.parts import opset_of
from onnxptq.quantization.passes import observe

if TYPE_CHECKING:
    import onnx

REMAINDERS = ("fp32", "fp16")

TARGETS_OF_FP16 = ("tensorrt11",)
"""Targets for which a remainder in FP16 means something: strongly typed ones."""

_LARGEST = float(np.finfo(np.float16).max)
_MARGIN = 2.0
"""Values may be so many times those of the calibration samples before FP16 overflows."""

_SMALLEST = float(np.finfo(np.float16).smallest_normal)

_FIRST_OPSET = 19
"""From here on QuantizeLinear and DequantizeLinear take scales in FP16."""

_OPSET = 21


def check_remainder(remainder: str, target: str) -> None:
    """Raises UsageError for an unknown remainder, or one that the target has no use for."""
    if remainder not in REMAINDERS:
        raise UsageError(f"the remainder is {' or '.join(REMAINDERS)}, got {remainder!r}.")
    if remainder == "fp16" and target not in TARGETS_OF_FP16:
        raise UsageError(
            f"a remainder in FP16 is for the target {', '.join(TARGETS_OF_FP16)}, whose runtime computes in the type "
            f"that the graph gives; the target here is {target}. Leave it out: other runtimes choose FP16 by an option."
        )


def nodes_beyond_fp16(source: Path, samples: CalibrationSamples, cache: Cache | None) -> tuple[str, ...]:
    """Names of the nodes of a float model that read or give values of which twice are more than FP16 holds.

    Found on the calibration samples, by one pass that keeps the extremes of every float tensor.
    """
    import onnx

    graph = onnx.shape_inference.infer_shapes(onnx.load(str(source))).graph
    floats = {one.name for one in graph.value_info if one.type.tensor_type.elem_type == onnx.TensorProto.FLOAT}
    made = sorted(floats & {name for node in graph.node for name in node.output})
    if not made:
        return ()
    seen = observe(source, {"": samples}, made, histograms=False, cache=cache)
    ranges = {name: seen.per_environment(name)[0] for name in made}
    large = {name for name, one in ranges.items() if _MARGIN * max(-one.minimum, one.maximum) > _LARGEST}
    return tuple(node.name for node in graph.node if large & {*node.input, *node.output})


def remainder_in_fp16(path: Path, beyond: Sequence[str] = ()) -> tuple[str, ...]:
    """Converts what a QDQ file computes in float to FP16, in place; returns notes.

    Args:
        path: the file.
        beyond: names of nodes that stay in FP32, since FP16 does not hold their values.

    Raises:
        ModelError: the graph cannot be brought to an opset with scales in FP16, or holds more than a file can.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    if has_external_data(path):
        raise ModelError(f"{path.name} keeps weights in files of their own, which are not converted to FP16.")
    model = onnx.load(str(path))
    if opset_of(model) < _FIRST_OPSET:
        remedy = f"Scales may be FP16 from {_FIRST_OPSET} on: export the model in that opset or later."
        model = in_opset(model, _OPSET, path, remedy)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"unnamed_{number}"  # What stays in FP32 is said by name.
    small = _with_small_scales(model)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        converted = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=[*small, *beyond]
        )
    _join_casts(converted.graph, {*small, *beyond})
    sort_model(converted)
    onnx.checker.check_model(converted)
    onnx.save(converted, str(path))
    cut = sum("truncated" in str(one.message) for one in said)
    notes: tuple[str, ...] = (
        "what is not quantized is FP16 in the file. The CPU provider computes it in FP32, so what is judged here shows "
        "neither the rounding nor an overflow of FP16: judge the engine on the device, too.",
    )
    if beyond:
        notes += (f"{len(beyond)} nodes whose values FP16 might not hold stay in FP32, such as {beyond[0]}.",)
    if cut:
        notes += (f"{cut} constants have values that FP16 cannot hold, which were cut to what it can.",)
    if small:
        notes += (f"{len(small)} Q and DQ with scales below {_SMALLEST:.1e} stay in FP32, such as {small[0]}.",)
    return notes


def _join_casts(graph: onnx.GraphProto, in_fp32: set[str]) -> None:
    """Takes out what is cast to FP16 and back between two nodes that stay in FP32: FP16 need not hold it."""
    from onnx import TensorProto

    casts = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    to = {name: next(one.i for one in node.attribute if one.name == "to") for name, node in casts.items()}
    kept = {name for node in graph.node if node.name in in_fp32 for name in node.output}
    back = {
        name: casts[node.input[0]].input[0]
        for name, node in casts.items()
        if to[name] == TensorProto.FLOAT
        and to.get(node.input[0]) == TensorProto.FLOAT16
        and casts[node.input[0]].input[0] in kept
    }
    for node in graph.node:
        for position, name in enumerate(node.input):
            node.input[position] = back.get(name, name)
    read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    unread = [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read]
    while unread:
        for node in unread:
            graph.node.remove(node)
        read = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
        unread = [node for node in graph.node if node.op_type == "Cast" and node.output[0] not in read]


def _with_small_scales(model: onnx.ModelProto) -> list[str]:
    """Names of Q and DQ nodes with a scale that FP16 holds with fewer digits, or not at all."""
    from onnx import numpy_helper

    constants = {one.name: one for one in model.graph.initializer}
    found = []
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[1] in constants:
            scale: Any = numpy_helper.to_array(constants[node.input[1]])
            if (np.abs(scale) < _SMALLEST).any():
                found.append(node.name)
    return found
