"""ONNX Runtime's own calibrators, unchanged and quiet."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxptq.errors import DataError, UsageError
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.stock_calibrators import STOCK_METHODS, stock_ranges
from onnxptq.recipe import Step


@pytest.fixture
def ranges(build_graph, calibration):
    path = build_graph("gemm_beta")

    def ranges(method, *names, batch=1, **settings):
        environments = [calibration(path, name) for name in names or ("clean",)]
        return stock_ranges(path, environments, method, QuantizerSettings(**settings), batch)

    return ranges


@pytest.mark.parametrize("method", STOCK_METHODS)
def test_every_method_gives_every_tensor_an_ordered_float32_range(ranges, build_graph, method):
    found = ranges(Step(method))
    graph = onnx.load(build_graph("gemm_beta")).graph
    assert set(found) == {"x", *(name for node in graph.node for name in node.output)}
    for low, high in found.values():
        assert low.dtype == high.dtype == np.float32
        assert low < high


def test_minmax_is_the_extremes_of_the_samples_of_all_environments(ranges, build_graph, calibration):
    values = np.concatenate([feeds["x"] for _, feeds in calibration(build_graph("gemm_beta"))])
    assert ranges(Step("minmax"))["x"] == (values.min(), values.max())
    assert ranges(Step("minmax"), "scale@1")["x"] == (values.min() / 2, values.max() / 2)
    assert ranges(Step("minmax"), "scale@1", "clean")["x"] == (values.min(), values.max())


def test_parameters_reach_the_calibrators(ranges):
    def width(*step, **parameters):
        low, high = ranges(Step.of(*step, **parameters))["x"]
        return high - low

    assert width("percentile", percentile=80.0) < width("percentile", percentile=99.999)
    assert width("entropy", bins=128) == pytest.approx(width("minmax"), rel=0.3)
    # A real search finds another threshold than the single candidate of 128 bins.
    assert width("entropy", bins=1024) != width("entropy", bins=128)


def test_ranges_are_symmetric_where_the_settings_ask_for_it(ranges):
    for low, high in ranges(Step("minmax"), extra_options={"CalibTensorRangeSymmetric": True}).values():
        assert low == -high


def test_a_batch_of_samples_gives_the_extremes_of_single_ones(ranges):
    one, four = ranges(Step("minmax")), ranges(Step("minmax"), batch=4)
    for name in one:
        np.testing.assert_allclose(four[name], one[name], rtol=1e-5)


def test_nothing_is_printed(ranges, capfd):
    for method in STOCK_METHODS:
        ranges(Step(method))
    assert capfd.readouterr().out == ""


def test_a_method_of_ours_is_refused(ranges):
    with pytest.raises(UsageError, match=r"no range method 'mse'.*It has minmax, entropy, percentile"):
        ranges(Step("mse"))


def test_a_value_that_the_calibrator_refuses_is_the_inputs_fault(ranges):
    with pytest.raises(DataError, match="ONNX Runtime's percentile calibrator failed"):
        ranges(Step.of("percentile", percentile=200.0))


def test_samples_that_do_not_fit_the_model_are_the_inputs_fault(build_graph, calibration):
    samples = calibration(build_graph("depthwise_clip"))
    with pytest.raises(DataError, match="ONNX Runtime's minmax calibrator failed"):
        stock_ranges(build_graph("gemm_beta"), [samples], Step("minmax"), QuantizerSettings(), 1)
