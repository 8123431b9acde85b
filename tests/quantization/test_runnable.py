from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.quantization.runnable import runnable
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.writer import FastWriter


@pytest.fixture
def averaging(tmp_path):
    """Conv and GlobalAveragePool, (N, 3, 8, 8) to (N, 4, 1, 1)."""
    weight = np.random.default_rng(0).standard_normal((4, 3, 1, 1)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], name="conv"),
        helper.make_node("GlobalAveragePool", ["a"], ["y"], name="pool"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in (("x", ["N", 3, 8, 8]), ("y", None))]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], [numpy_helper.from_array(weight, "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


RANGES = {"x": (np.float32(-4), np.float32(4)), "a": (np.float32(-8), np.float32(8))}


@pytest.mark.parametrize("end", [0, 1e-30, 1e-7, 1e-3])
def test_an_average_near_nothing_gets_a_range_that_the_kernel_runs_with(averaging, tmp_path, end):
    ranges = runnable({**RANGES, "y": (np.float32(-end), np.float32(end))}, averaging)
    assert ranges["y"][1] - ranges["y"][0] == pytest.approx(16 / 128)
    FastWriter(averaging, QuantizerSettings()).write(ranges, tmp_path / "i.onnx")
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 3, 8, 8)).astype(np.float32)}
    wanted, got = (onnxruntime.InferenceSession(p).run(None, feeds)[0] for p in (averaging, tmp_path / "i.onnx"))
    assert np.abs(np.clip(wanted, *ranges["y"]) - got).max() < 0.05


def test_other_ranges_stay_as_they_are(averaging):
    ranges = {**RANGES, "y": (np.float32(-0.1), np.float32(0.5))}
    assert runnable(ranges, averaging) == ranges
