"""What the rules for the CPU provider claim is what ONNX Runtime does."""

from __future__ import annotations

import platform

import numpy as np
import onnx
import onnxruntime
import pytest

from .graphs import IMAGE, Net
from .test_rules import VIOLATIONS, build, clean, gemm

x86 = pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="kernels are chosen otherwise elsewhere")


def session(path, level, optimized=None):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    if optimized is not None:
        options.optimized_model_filepath = str(optimized)
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def operators(path):
    optimized = path.with_suffix(".optimized.onnx")
    session(path, "ORT_ENABLE_ALL", optimized)
    return {node.op_type for node in onnx.load(str(optimized)).graph.node}


def difference(path):
    """Largest difference between the fused graph and the graph as it is written."""
    x = np.random.default_rng(0).standard_normal(IMAGE).astype(np.float32)
    one, other = (session(path, level).run(None, {"x": x})[0] for level in ("ORT_ENABLE_ALL", "ORT_DISABLE_ALL"))
    return float(np.abs(one - other).max())


@x86
def test_the_clean_graph_is_fused_and_right(save):
    path = save(build(clean, "cpu"))
    assert "QLinearConv" in operators(path)
    assert difference(path) < 0.031  # one step of the output


@x86
@pytest.mark.parametrize("name", ["QDQ103", "QDQ104", "QDQ202", "QDQ222", "QDQ223", "QDQ225", "QDQ302"])
def test_what_is_said_to_run_in_float_does(name, save):
    assert operators(save(build(VIOLATIONS[name], "cpu"))) & {"Conv", "FusedConv", "Gemm"}


@x86
def test_a_wrong_axis_is_fused_and_silently_computes_something_else(save):
    path = save(build(VIOLATIONS["QDQ116"], "cpu"))
    assert "QLinearConv" in operators(path)
    assert difference(path) > 0.3


@x86
def test_a_float_weight_between_dq_and_q_is_quantized_when_the_model_is_loaded(save):
    assert "QLinearConv" in operators(save(build(VIOLATIONS["QDQ310"], "cpu")))


@x86
def test_an_activation_per_channel_and_float8_fail(save):
    with pytest.raises(Exception, match="QLinearConv"):
        difference(save(build(VIOLATIONS["QDQ115"], "cpu")))
    with pytest.raises(Exception, match="float8"):
        session(save(build(VIOLATIONS["QDQ105"], "cpu")), "ORT_ENABLE_ALL")


@x86
def test_a_relu_between_pairs_and_a_half_quantized_add_stay_in_float(save):
    assert "Add" in operators(save(build(VIOLATIONS["QDQ203"], "cpu")))
    assert "Tanh" in operators(save(build(VIOLATIONS["QDQ305"], "cpu")))
    net = Net("cpu")
    y = net.pair(net.op("Relu", net.pair(net.conv(net.pair("x")))), zero=np.uint8(128))
    assert "Relu" in operators(save(net.model(y)))


@x86
def test_a_gemm_with_float_bias_is_fused_only_where_its_output_is_quantized(save):
    for quantized in (True, False):
        net = Net("cpu")
        y = gemm(net, net.constant(np.ones(4, np.float32)))
        path = save(net.model(net.pair(y) if quantized else y))
        assert ("QGemm" in operators(path)) == quantized


@pytest.mark.parametrize("name", ["QDQ114", "QDQ117"])
def test_parameters_of_wrong_shape_are_refused(name, save):
    with pytest.raises(Exception, match=r"scale|zero point|zero_point"):
        difference(save(build(VIOLATIONS[name], "cpu")))
