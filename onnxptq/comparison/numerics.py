"""Numbers of one run against another on the same samples: how far apart the outputs are, and in which way."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxptq.evaluation import Predictions
from onnxptq.evaluation.paired import share_changed
from onnxptq.evaluation.report import sqnr_db
from onnxptq.evaluation.run import against

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Difference:
    """How far the outputs of a run are from those of another.

    Attributes:
        equal: every output value is the same, bit for bit in float32; None where outputs were too large to keep.
        sqnr_db: 10 log10(signal / error), in decibel, where the other run is the signal; None where the outputs are
            equal or were too large to keep.
        largest: the largest absolute difference, in units of the output; None where outputs were too large to keep.
        one_step_apart: of the values of an INT8 output, the share that is one quantization step away; None where the
            output is not quantized.
        further_apart: the share that is more than one step away.
        flip_rate: share of samples with another prediction.
    """

    equal: bool | None
    sqnr_db: float | None
    largest: float | None
    one_step_apart: float | None
    further_apart: float | None
    flip_rate: float


def difference(base: Predictions, run: Predictions, step: float | None = None) -> Difference:
    """Compares two runs over the same samples.

    Args:
        base: the run to compare with.
        run: the other one.
        step: the quantization step of the outputs (`output_step`), or None.
    """
    flip_rate = share_changed(base, run)
    one, two = base.outputs, run.outputs
    if one is None or two is None or one.shape != two.shape:
        return Difference(None, None, None, None, None, flip_rate)
    apart = np.abs(one.astype(np.float64) - two)
    largest = float(apart.max(initial=0.0))
    steps = np.rint(apart / step) if step else None
    return Difference(
        equal=largest == 0.0,
        sqnr_db=sqnr_db(against(base, run)),
        largest=largest,
        one_step_apart=None if steps is None else float((steps == 1).mean()),
        further_apart=None if steps is None else float((steps > 1).mean()),
        flip_rate=flip_rate,
    )


def output_step(model: Path) -> float | None:
    """The quantization step of a model's outputs: 1 for integers, the scale of a DequantizeLinear that makes them.

    None where they are not quantized, or several outputs have different steps.
    """
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    makers = {name: node for node in graph.node for name in node.output}
    steps = {_step(value, makers.get(value.name), graph) for value in graph.output}
    return next(iter(steps)) if len(steps) == 1 else None


def _step(value: onnx.ValueInfoProto, maker: onnx.NodeProto | None, graph: onnx.GraphProto) -> float | None:
    import onnx

    if value.type.tensor_type.elem_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8):
        return 1.0
    if maker is None or maker.op_type != "DequantizeLinear":
        return None
    scale = next((tensor for tensor in graph.initializer if tensor.name == maker.input[1]), None)
    if scale is None or scale.external_data:
        return None
    values = onnx.numpy_helper.to_array(scale)
    return float(values.reshape(-1)[0]) if values.size == 1 else None
