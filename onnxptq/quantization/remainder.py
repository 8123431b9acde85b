"""What stays in float, in FP16: for runtimes that compute each operator in the type that the graph gives it.

TensorRT 11 has no flag for FP16 any more (docs/targets.md). The graph is converted by ONNX Runtime's own
`onnxruntime.transformers.float16`: constants, scales and operators become FP16, inputs and outputs stay FP32. Scales
are FP16 from opset 19 on. One below FP16's smallest normal number would lose digits; its Q and DQ stay in FP32.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxptq.errors import ModelError, UsageError
from onnxptq.graphs.external import has_external_data
from onnxptq.graphs.order import sort_model
from onnxptq.graphs.parts import opset_of

if TYPE_CHECKING:
    import onnx

REMAINDERS = ("fp32", "fp16")

TARGETS_OF_FP16 = ("tensorrt11",)
"""Targets for which a remainder in FP16 means something: strongly typed ones."""

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


def remainder_in_fp16(path: Path) -> tuple[str, ...]:
    """Converts what a QDQ file computes in float to FP16, in place; returns notes.

    Raises:
        ModelError: the graph cannot be brought to an opset with scales in FP16, or holds more than a file can.
    """
    import onnx
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST, convert_float_to_float16

    if has_external_data(path):
        raise ModelError(f"{path.name} keeps weights in files of their own, which are not converted to FP16.")
    model = _raised(onnx.load(str(path)), path)
    small = _with_small_scales(model)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        converted = convert_float_to_float16(
            model, keep_io_types=True, op_block_list=DEFAULT_OP_BLOCK_LIST, node_block_list=small
        )
    sort_model(converted)
    onnx.checker.check_model(converted)
    onnx.save(converted, str(path))
    cut = sum("truncated" in str(one.message) for one in said)
    notes: tuple[str, ...] = ("what is not quantized computes in FP16; inputs and outputs stay FP32.",)
    if cut:
        notes += (f"{cut} constants have values that FP16 cannot hold, which were cut to what it can.",)
    if small:
        notes += (f"{len(small)} Q and DQ with scales below {_SMALLEST:.1e} stay in FP32, such as {small[0]}.",)
    return notes


def _raised(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    import onnx

    if opset_of(model) >= _FIRST_OPSET:
        return model
    try:
        return onnx.version_converter.convert_version(model, _OPSET)
    except Exception as error:  # the converter raises bare RuntimeErrors, and others
        raise ModelError(
            f"{path.name} cannot be brought to opset {_OPSET} (scales may be FP16 from {_FIRST_OPSET} on): {error}. "
            f"Export the model in opset {_FIRST_OPSET} or later."
        ) from error


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
