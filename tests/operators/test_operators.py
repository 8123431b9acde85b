"""Every operator that ONNX Runtime's static quantizer knows, alone behind a Conv: the file is stock's, or says why not.

For each operator and opset: identical to `quantize_static` on the same folded model, byte for byte but for metadata, or
different for a reason that stands in `DIFFERENT`; never a crash; the same again from a cache that was used.
"""

from __future__ import annotations

import contextlib
import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_static
from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.graphs import load_model
from onnxptq.graphs.fold import fold
from onnxptq.inputs import DataOptions

pytestmark = pytest.mark.operators

TENSORS = DataOptions(task="tensor")
OPSETS = (13, 17, 21)
R = np.random.default_rng(0)


def floats(*shape):
    return (0.5 * R.standard_normal(shape)).astype(np.float32)


def whole(*values):
    return np.array(values, np.int64)


# Operator: (constant inputs behind the first one, attributes, outputs). The first input is (N, 4, 8, 8).
ALONE = {
    "Add": ([floats(1, 4, 1, 1)], {}, 1),
    "ArgMax": ([], {"axis": 1}, 1),
    "AveragePool": ([], {"kernel_shape": [2, 2]}, 1),
    "BatchNormalization": ([np.abs(floats(4)) + 1, floats(4), floats(4), np.abs(floats(4)) + 1], {}, 1),
    "Clip": ([np.float32(-0.5), np.float32(0.7)], {}, 1),
    "Conv": ([floats(6, 4, 3, 3), floats(6)], {}, 1),
    "ConvTranspose": ([floats(4, 3, 2, 2), floats(3)], {"strides": [2, 2]}, 1),
    "Concat": ([floats(1, 4, 8, 8)], {"axis": 0}, 1),
    "CumSum": ([np.int64(1)], {}, 1),
    "Flatten": ([], {}, 1),
    "Gather": ([whole(0, 2)], {"axis": 1}, 1),
    "GatherElements": ([np.zeros((1, 4, 8, 8), np.int64)], {"axis": 1}, 1),
    "GlobalAveragePool": ([], {}, 1),
    "InstanceNormalization": ([floats(4), floats(4)], {}, 1),
    "LayerNormalization": ([floats(8), floats(8)], {}, 1),
    "LeakyRelu": ([], {"alpha": 0.2}, 1),
    "MatMul": ([floats(8, 5)], {}, 1),
    "MaxPool": ([], {"kernel_shape": [2, 2]}, 1),
    "Mul": ([floats(1, 4, 1, 1)], {}, 1),
    "Pad": ([whole(0, 0, 1, 1, 0, 0, 1, 1)], {}, 1),
    "Relu": ([], {}, 1),
    "Reshape": ([whole(0, -1)], {}, 1),
    "Resize": ([np.array([], np.float32), np.array([1, 1, 2, 2], np.float32)], {"mode": "nearest"}, 1),
    "Sigmoid": ([], {}, 1),
    "Slice": ([whole(0), whole(2), whole(1)], {}, 1),
    "Softmax": ([], {"axis": 1}, 1),
    "Split": ([whole(1, 3)], {"axis": 1}, 2),
    "Squeeze": ([whole(4)], {}, 1),
    "TopK": ([whole(2)], {"axis": 1}, 2),
    "Transpose": ([], {"perm": [0, 2, 3, 1]}, 1),
    "Unsqueeze": ([whole(1)], {}, 1),
}
SPECIAL = {"Gemm", "Where", "EmbedLayerNormalization"}
"""Built by hand, or (the last) an operator that only ONNX Runtime's own fusions make, which come after quantization."""

SINCE = {"LayerNormalization": 17}

DIFFERENT: dict[str, str] = {}
"""Operator and why the file is not stock's. Empty: with ONNX Runtime 1.31 every one is."""


def node_of(operator, names, outputs):
    _, attributes, _ = ALONE[operator]
    return helper.make_node(operator, names, outputs, name=f"the_{operator}", **attributes)


def model_of(operator, opset):
    """Conv, the operator, and where it leaves numbers an Add, so that something reads what it made."""
    weights = {"cw": floats(4, 3, 3, 3), "cb": floats(4)}
    nodes = [helper.make_node("Conv", ["x", "cw", "cb"], ["c"], name="conv", pads=[1, 1, 1, 1])]
    kind = TensorProto.FLOAT
    if operator == "Gemm":
        weights |= {"gw": floats(5, 256), "gb": floats(5)}
        nodes += [
            helper.make_node("Flatten", ["c"], ["f"], name="flat"),
            helper.make_node("Gemm", ["f", "gw", "gb"], ["y"], name="gemm", transB=1),
        ]
    elif operator == "Where":
        weights |= {"other": floats(1, 4, 8, 8), "zero": np.float32(0)}
        nodes += [
            helper.make_node("Greater", ["c", "zero"], ["yes"], name="greater"),
            helper.make_node("Where", ["yes", "c", "other"], ["y"], name="where"),
        ]
    else:
        constants, _, count = ALONE[operator]
        names = ["c"]
        if operator == "Squeeze":
            nodes.append(helper.make_node("Unsqueeze", ["c", "last"], ["c5"], name="five"))
            weights["last"] = whole(4)
            names = ["c5"]
        for number, value in enumerate(constants):
            weights[f"k{number}"] = np.asarray(value)
            names.append(f"k{number}")
        nodes.append(node_of(operator, names, ["y", "z"][:count]))
        kind = TensorProto.INT64 if operator == "ArgMax" else TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", kind, None)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, operator, inputs, outputs, tensors)
    ir = 10 if opset > 19 else 8
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
    return onnx.shape_inference.infer_shapes(model)  # The output has its shape, as an exporter would write it.


def without_metadata(path):
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("onnxptq.")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model.SerializeToString(deterministic=True)


CASES = [
    (operator, opset) for operator in (*ALONE, "Gemm", "Where") for opset in OPSETS if opset >= SINCE.get(operator, 0)
]


def test_every_operator_of_the_quantizer_is_tried():
    assert {*QDQRegistry, *QLinearOpsRegistry} <= {*ALONE, *SPECIAL}


@pytest.mark.parametrize(("operator", "opset"), CASES)
def test_the_file_is_stock_s_or_says_why_not(operator, opset, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(model_of(operator, opset), path)
    np.savez(tmp_path / "data.npz", x=R.standard_normal((24, 3, 8, 8)).astype(np.float32))
    options = {"data": str(tmp_path / "data.npz"), "options": TENSORS, "calib_size": 8}
    made = []
    for attempt in ("fresh", "used"):
        output = tmp_path / f"{attempt}.onnx"
        made.append(onnxptq.quantize(path, **options, output=output, evaluate=False))
    assert made[0].output.read_bytes() == made[1].output.read_bytes()
    options["size"] = options.pop("calib_size")
    reader = onnxptq.draw_calibration(path, **options).reader()
    with contextlib.redirect_stdout(io.StringIO()):
        quantize_static(
            fold(load_model(path), user_cache()),
            tmp_path / "stock.onnx",
            reader,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
    same = without_metadata(made[0].output) == without_metadata(tmp_path / "stock.onnx")
    assert same or operator in DIFFERENT, f"{operator} at opset {opset} differs from stock without a reason"
    assert not (same and operator in DIFFERENT), f"{operator} is stock's again: {DIFFERENT[operator]}"
