"""A model in float16 is quantized as one of float32, with the inputs and outputs that it had."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq


def half_model(path, *, cast: bool) -> None:
    """Conv, Relu, Gemm with float16 weights; with `cast` the inputs and outputs are float32, cast inside."""
    rng = np.random.default_rng(0)
    shapes = {"w": (8, 3, 3, 3), "b": (8,), "v": (4, 8), "d": (4,)}
    weights = [
        numpy_helper.from_array((0.3 * rng.standard_normal(shape)).astype(np.float16), name)
        for name, shape in shapes.items()
    ]
    ends = TensorProto.FLOAT if cast else TensorProto.FLOAT16
    nodes = [
        helper.make_node("Conv", ["h", "w", "b"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flat"),
        helper.make_node("Gemm", ["f", "v", "d"], ["z"], name="gemm", transB=1),
    ]
    kind = "Cast" if cast else "Identity"
    to = ({"to": TensorProto.FLOAT16}, {"to": TensorProto.FLOAT}) if cast else ({}, {})
    nodes = [
        helper.make_node(kind, ["x"], ["h"], name="in", **to[0]),
        *nodes,
        helper.make_node(kind, ["z"], ["y"], name="out", **to[1]),
    ]
    inputs = [helper.make_tensor_value_info("x", ends, ["N", 3, 8, 8])]
    outputs = [helper.make_tensor_value_info("y", ends, ["N", 4])]
    graph = helper.make_graph(nodes, "half", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.mark.parametrize("cast", [False, True], ids=["float16 ends", "float32 ends"])
def test_a_float16_model_becomes_an_int8_one_with_the_same_ends(tmp_path, cast):
    half_model(tmp_path / "half.onnx", cast=cast)
    dtype = np.float32 if cast else np.float16
    x = np.random.default_rng(1).standard_normal((48, 3, 8, 8)).astype(dtype)
    np.savez(tmp_path / "data.npz", x=x)
    made = onnxptq.quantize(
        tmp_path / "half.onnx", data=str(tmp_path / "data.npz"), calib_size=16,
        corruptions=["clean"], output=tmp_path / "int8.onnx",
    )  # fmt: skip
    sessions = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (tmp_path / "half.onnx", made.output)
    ]
    exact, quantized = (session.run(None, {"x": x})[0] for session in sessions)
    assert quantized.dtype == exact.dtype == dtype
    error = np.abs(exact.astype(np.float64) - quantized).max()
    assert error < 0.05 * np.abs(exact.astype(np.float64)).max()
    operators = [node.op_type for node in onnx.load(made.output).graph.node]
    assert operators.count("QuantizeLinear") >= 2
