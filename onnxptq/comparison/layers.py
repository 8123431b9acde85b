"""The error of each layer, on graphs of their own.

A tensor that is a graph output cannot be fused away, so the graph with all tensors exposed is not the graph that ships:
its errors are those of quantization and of each provider's unfused kernels, layer by layer. That is why they are
measured on copies, and never mixed with the other numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError
from onnxptq.evaluation.report import signal_to_noise_db

if TYPE_CHECKING:
    import onnx

LAYER_SAMPLES = 16
"""Samples that layers are compared on: every tensor of the net is kept in memory for each of them."""


@dataclass(frozen=True)
class LayerError:
    """The error of one tensor.

    Attributes:
        tensor: its name in the FP32 model.
        operator: the operator that makes it there.
        sqnr_db: against FP32 on the reference runtime, in decibel; None where there is no error or no signal.
        largest: the largest absolute difference, in units of the tensor.
    """

    tensor: str
    operator: str
    sqnr_db: float | None
    largest: float


@dataclass(frozen=True)
class Probes:
    """Copies of a reference and a model with the tensors that both have as graph outputs.

    Attributes:
        reference, model: the copies.
        tensors: names in the reference, in its order.
        operators: that make them.
        in_reference, in_model: names of the outputs of the copies, in the order of `tensors`.
    """

    reference: Path
    model: Path
    tensors: tuple[str, ...]
    operators: tuple[str, ...]
    in_reference: tuple[str, ...]
    in_model: tuple[str, ...]


def make_probes(reference: Path, model: Path, folder: Path) -> Probes:
    """Writes the copies into `folder`.

    In a QDQ graph the tensor after its DequantizeLinear is taken, which is what the next layer reads.

    Raises ModelError where the two have no tensor in common.
    """
    import onnx

    base, quantized = (onnx.load(str(path)) for path in (reference, model))
    there = {name for node in quantized.graph.node for name in node.output}
    read_as = _dequantized(quantized.graph)
    common = there & _float_tensors(base)
    made = [(name, node.op_type) for node in base.graph.node for name in node.output if name in common]
    if not made:
        raise ModelError(
            f"{model.name} and {reference.name} have no tensor of the same name, so their layers cannot be compared. "
            "Give the FP32 model that it was made from with --reference."
        )
    tensors = tuple(name for name, _ in made)
    in_model = tuple(read_as.get(name, name) for name in tensors)
    paths = (folder / "layers.fp32.onnx", folder / "layers.onnx")
    for proto, names, path in zip((base, quantized), (tensors, in_model), paths, strict=True):
        _expose(proto, names)
        onnx.save(proto, str(path), save_as_external_data=proto.ByteSize() > 2**30)
    return Probes(*paths, tensors, tuple(operator for _, operator in made), tensors, in_model)


def layer_errors(
    probes: Probes, exact: Mapping[str, npt.NDArray[Any]], outputs: Mapping[str, npt.NDArray[Any]]
) -> tuple[LayerError, ...]:
    """The errors of all tensors, the noisiest first.

    Args:
        probes: what was exposed.
        exact: outputs of the reference's copy by name.
        outputs: outputs of the model's copy by name.
    """
    errors = []
    for tensor, operator, mine, other in zip(
        probes.tensors, probes.operators, probes.in_reference, probes.in_model, strict=True
    ):
        signal, noisy = exact[mine].astype(np.float64), outputs[other].astype(np.float64)
        if signal.shape != noisy.shape:
            continue
        noise = signal - noisy
        ratio = signal_to_noise_db(signal**2, noise**2)
        errors.append(LayerError(tensor, operator, ratio, float(np.abs(noise).max(initial=0.0))))
    return tuple(sorted(errors, key=lambda e: np.inf if e.sqnr_db is None else e.sqnr_db))


def _dequantized(graph: onnx.GraphProto) -> dict[str, str]:
    """For each tensor that is quantized, the one that its DequantizeLinear makes of it."""
    quantized = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "QuantizeLinear"}
    return {
        quantized[node.input[0]]: node.output[0]
        for node in graph.node
        if node.op_type == "DequantizeLinear" and node.input[0] in quantized
    }


def _float_tensors(model: onnx.ModelProto) -> set[str]:
    import onnx

    graph = onnx.shape_inference.infer_shapes(model).graph
    return {
        value.name
        for value in [*graph.value_info, *graph.output]
        if value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    }


def _expose(model: onnx.ModelProto, names: Sequence[str]) -> None:
    import onnx

    there = {value.name for value in model.graph.output}
    for name in names:
        if name not in there:
            there.add(name)
            model.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None))
