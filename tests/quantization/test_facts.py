"""Eight things that ONNX Runtime's calibrators get wrong (numbers as in our notes on them), and that ours do not."""

from __future__ import annotations

import itertools
import weakref

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxptq.api import method_warnings
from onnxptq.cache import Cache
from onnxptq.calibrators.methods import RANGE_METHODS, QuantizationType
from onnxptq.calibrators.statistics import merge
from onnxptq.errors import DataError
from onnxptq.graphs import load_model
from onnxptq.quantization.collect import collect
from onnxptq.quantization.plan import plan_calibration
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.static import quantize_folded
from onnxptq.quantization.targets import TARGETS
from onnxptq.recipe import Recipe, Step


def ranges(statistics, method, **parameters):
    chosen = RANGE_METHODS.get(method)
    return {
        t: chosen.range(statistics.per_environment(t), QuantizationType(), **parameters) for t in statistics.tensors
    }


@pytest.fixture
def one_number(tmp_path):
    """x, (N, 1) -> Relu -> y."""
    value, floats = onnx.helper.make_tensor_value_info, onnx.TensorProto.FLOAT
    node = onnx.helper.make_node("Relu", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "one", [value("x", floats, ["N", 1])], [value("y", floats, ["N", 1])])
    path = tmp_path / "one.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def numbers(*values):
    return [(str(v), {"x": np.array([[v]], np.float32)}) for v in values]


def test_1_entropy_without_a_search_is_said_to_be_minmax_and_a_real_search_is_offered(build_graph, draw):
    path = build_graph("depthwise_clip")
    statistics = collect(path, draw(path, 16), plan_calibration(path, QuantizerSettings()).observed)
    minmax = ranges(statistics, "minmax", symmetric=True)
    for tensor, (low, high) in ranges(statistics, "entropy").items():
        assert max(abs(low), abs(high)) == pytest.approx(minmax[tensor][1], rel=1e-6)
    searched = ranges(statistics, "entropy", bins=2048)
    assert any(max(abs(low), abs(high)) < 0.95 * minmax[tensor][1] for tensor, (low, high) in searched.items())
    (warning,) = method_warnings(Recipe(ranges=Step("entropy")))
    assert "same ranges as minmax" in warning and "2048" in warning
    assert method_warnings(Recipe(ranges=Step.of("entropy", bins=2048))) == ()


def test_2_no_sample_is_thrown_away(one_number):
    """The option CalibMaxIntermediateOutputs=2 makes [3, 3] of these five."""
    seen = collect(one_number, numbers(10, 20, 1, 2, 3), ("y",)).environments[""]["y"]
    assert (seen.minimum, seen.maximum, seen.count) == (1, 20, 5)


def test_3_no_activation_outlives_its_sample(build_graph, draw, monkeypatch):
    path = build_graph("conv_relu")
    made, alive = [], []
    run = onnxruntime.InferenceSession.run

    def remembered(*arguments, **options):
        outputs = run(*arguments, **options)
        made.extend(weakref.ref(array) for array in outputs)
        return outputs

    def watched():
        for sample_id, feeds in draw(path, count=8):
            alive.append(sum(array() is not None for array in made))
            yield sample_id, feeds

    monkeypatch.setattr(onnxruntime.InferenceSession, "run", remembered)
    collect(path, watched(), ("relu1",), workers=2)
    assert len(made) >= 8
    assert max(alive) <= 2, "one at each worker"


@pytest.mark.parametrize("method", RANGE_METHODS.names())
def test_4_samples_of_any_shape_go_through_every_method(build_graph, method):
    path = build_graph("attention")
    rng = np.random.default_rng(0)
    samples = [(str(n), {"x": rng.standard_normal((1, n, 8)).astype(np.float32)}) for n in (3, 9, 5)]
    tensors = plan_calibration(path, QuantizerSettings()).observed
    for low, high in ranges(collect(path, samples, tensors), method).values():
        assert low < high


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("histograms", [True, False], ids=["all methods", "minmax"])
def test_5_what_is_not_finite_is_refused_with_tensor_and_sample(build_graph, draw, bad, histograms):
    path = build_graph("conv_relu")
    samples = draw(path)
    samples[3][1]["x"][0, 1, 2, 3] = bad
    with pytest.raises(DataError, match=r"tensor 'x' .* sample 'sample-003'"):
        collect(path, samples, ("x", "relu1"), histograms=histograms)


@pytest.mark.parametrize("method", RANGE_METHODS.names())
def test_6_ranges_do_not_depend_on_the_order_of_the_parts(one_number, method):
    parts = [collect(one_number, numbers(*values), ("x",)) for values in ((10, 20), (1, -2), (300, 0.5, 7))]
    found = {ranges(merge(*order), method)["x"] for order in itertools.permutations(parts)}
    assert len(found) == 1


def test_7_what_is_kept_is_never_used_for_another_model_set_or_parameter(build_graph, calibration, tmp_path):
    empty_cache = Cache(tmp_path / "room")
    paths = [build_graph("gemm_beta"), tmp_path / "other.onnx"]
    model = onnx.load(paths[0])
    weight = model.graph.initializer[0]
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight) * 2, weight.name))
    onnx.save(model, paths[1])
    cases = itertools.product(paths, ("clean", "clean+scale@1"), (80.0, 99.999))

    def write(path, name, percentile, where):
        recipe = Recipe(ranges=Step.of("percentile", percentile=percentile))
        quantize_folded(load_model(path), path, calibration(path, name), recipe, tmp_path / "int8.onnx", cache=where)
        return (tmp_path / "int8.onnx").read_bytes()

    files = {case: write(*case, empty_cache) for case in cases}
    assert len(set(files.values())) == len(files) == 8
    for case, written in files.items():
        assert write(*case, empty_cache) == write(*case, None) == written


@pytest.mark.parametrize("engine", ["one-pass", "one-pass-fast", "stock"])
@pytest.mark.parametrize("target", TARGETS.names())
def test_8_nothing_is_printed(build_graph, calibration, write, capfd, engine, target):
    path = build_graph("depthwise_clip")
    samples = calibration(path)
    capfd.readouterr()
    write(path, samples, engine=engine, target=target, ranges=Step("percentile"))
    assert capfd.readouterr().out == ""
