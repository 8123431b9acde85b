"""A bias that does not fit int32 with the scales as they are, behind a tensor that shares its input's scale."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.quantization.collect import collect
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.writer import FastWriter

BIAS = np.array([-0.7, -0.4, 0.8], np.float32)

# What stands between a tensor of shape (N, 4, 8, 8) with values of 1e-7 and the Gemm: nodes, number of features.
BETWEEN = {
    "Flatten": ([("Flatten", ["a"], {})], 256),
    "Reshape": ([("Reshape", ["a", "rows"], {})], 256),
    "MaxPool, Flatten": ([("MaxPool", ["a"], {"kernel_shape": [8, 8]}), ("Flatten", ["t0"], {})], 4),
    "Transpose, Flatten": ([("Transpose", ["a"], {"perm": [0, 2, 3, 1]}), ("Flatten", ["t0"], {})], 256),
    "Slice, Flatten": ([("Slice", ["a", "from", "to"], {}), ("Flatten", ["t0"], {})], 64),
}


def small_activations(path, between, features):
    rng = np.random.default_rng(0)
    constants = {
        "w": (rng.standard_normal((4, 4, 3, 3)) * 1e-8).astype(np.float32),
        "hw": (rng.standard_normal((3, features)) * 0.5).astype(np.float32),
        "hb": BIAS,
        "rows": np.array([0, -1]),
        "from": np.array([0, 0, 0, 0]),
        "to": np.array([9, 4, 4, 4]),
    }
    nodes = [helper.make_node("Conv", ["x", "w"], ["a"], name="conv", pads=[1] * 4)]
    for i, (operator, inputs, attributes) in enumerate(between):
        nodes.append(helper.make_node(operator, inputs, [f"t{i}"], name=f"n{i}", **attributes))
    nodes.append(helper.make_node("Gemm", [nodes[-1].output[0], "hw", "hb"], ["y"], name="fc", transB=1))
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.mark.parametrize("between", BETWEEN)
@pytest.mark.parametrize("per_channel", [True, False])
def test_the_weight_scale_is_enlarged_so_that_the_bias_is_not_clipped(tmp_path, between, per_channel):
    model = small_activations(tmp_path / "m.onnx", *BETWEEN[between])
    x = np.random.default_rng(1).standard_normal((8, 4, 8, 8)).astype(np.float32)
    writer = FastWriter(model, QuantizerSettings(per_channel=per_channel))
    observed = collect(model, [(str(i), {"x": x[i : i + 1]}) for i in range(8)], writer.plan.observed)
    minmax = RANGE_METHODS.get("minmax")
    ranges = {
        name: minmax.range(observed.per_environment(name), QuantizerSettings().quantization)
        for name in writer.plan.observed
    }
    writer.write(ranges, tmp_path / "i.onnx")
    wanted, got = (
        onnxruntime.InferenceSession(tmp_path / name).run(None, {"x": x[:1]})[0] for name in ("m.onnx", "i.onnx")
    )
    assert np.abs(wanted - BIAS).max() < 1e-4  # The activations tell nothing: the bias is the answer.
    assert np.abs(got - wanted).max() < 0.01
