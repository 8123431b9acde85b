"""From a recipe to an INT8 file: both engines write what ONNX Runtime's `quantize_static` writes, and a recipe's parts
come in their order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnxruntime.quantization import CalibrationMethod, QuantType

from onnxptq.calibrators.methods import RANGE_METHODS, RangeMethod
from onnxptq.errors import DataError, UsageError
from onnxptq.graphs import load_model
from onnxptq.quantization.collect import CalibrationPass
from onnxptq.quantization.static import node_names, quantizer_settings
from onnxptq.recipe import Environment, Recipe, Step

CLASSIFIERS = ("depthwise_clip", "gemm_beta", "batch_norm")
PERCENTILE = Step.of("percentile", percentile=99.0)


def scales(data):
    model = onnx.load_from_string(data)
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("_scale")}


@pytest.mark.parametrize("graph", CLASSIFIERS)
@pytest.mark.parametrize(
    ("ranges", "options"),
    [
        (Step("minmax"), {"calibrate_method": CalibrationMethod.MinMax}),
        (Step("entropy"), {"calibrate_method": CalibrationMethod.Entropy}),
        (Step("percentile"), {"calibrate_method": CalibrationMethod.Percentile}),
        (PERCENTILE, {"calibrate_method": CalibrationMethod.Percentile, "extra_options": {"CalibPercentile": 99.0}}),
    ],
    ids=["minmax", "entropy", "percentile", "percentile 99"],
)
def test_the_stock_engine_writes_what_quantize_static_writes(
    graph, ranges, options, build_graph, calibration, write, stock
):
    path = build_graph(graph)
    samples = calibration(path)
    expected = stock(path, list(samples), activation_type=QuantType.QUInt8, per_channel=True, **options)
    assert write(path, samples, ranges=ranges, engine="stock") == expected


@pytest.mark.parametrize("graph", CLASSIFIERS)
@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt"])
def test_for_minmax_both_engines_write_the_same_bytes(graph, target, build_graph, calibration, write):
    path = build_graph(graph)
    samples = calibration(path)
    assert write(path, samples, target=target) == write(path, samples, target=target, engine="stock")


@pytest.mark.parametrize("engine", ["one-pass", "stock"])
def test_environments_are_pooled(engine, build_graph, calibration, write):
    path = build_graph("depthwise_clip")
    samples = calibration(path)

    def input_scale(*environments):
        return float(scales(write(path, samples, environments=environments, engine=engine))["x_scale"])

    plain, small, both = (
        input_scale(*environments)
        for environments in (
            (Environment(),),
            (Environment("scale@1"),),
            (Environment("scale@1"), Environment()),
        )
    )
    assert small == pytest.approx(plain / 2, rel=1e-5)
    assert both == plain
    assert input_scale(Environment("", 1)) < plain


def test_a_range_method_sees_one_statistics_per_environment(build_graph, calibration, write):
    seen = []

    def look(statistics, quantization):
        seen.append([part.count for part in statistics])
        return np.float32(0), np.float32(1)

    RANGE_METHODS.register(RangeMethod("test-look", "x", "x", "x", look))
    try:
        path = build_graph("gemm_beta")
        environments = (Environment(), Environment("scale@2", 2), Environment("scale@4"))
        write(path, calibration(path), ranges=Step("test-look"), environments=environments)
    finally:
        del RANGE_METHODS._entries["test-look"]
    assert [12 * 6, 12 * 2, 12 * 6] in seen  # The input x, 12 numbers a sample.


def test_what_a_recipe_names_and_is_not_there_is_said(build_graph, calibration, write):
    path = build_graph("gemm_beta")
    samples = calibration(path)
    for wrong, message in (
        ({"target": "cpuu"}, "unknown target 'cpuu'.*'cpu'"),
        ({"engine": "stok"}, "unknown engine 'stok'.*'stock'"),
        ({"ranges": Step("minmx")}, "unknown range method 'minmx'.*'minmax'"),
        ({"ranges": Step("mse"), "engine": "stock"}, "no range method 'mse'.* --engine stock cannot use it"),
        ({"float_nodes": ("node_gem0",)}, "no node 'node_gem0' after folding.*'node_gemm0'"),
    ):
        with pytest.raises(UsageError, match=message):
            write(path, samples, **wrong)


def test_excluded_nodes_stay_in_float(build_graph, calibration, write):
    path = build_graph("depthwise_clip")
    samples = calibration(path)

    def float_inputs(**recipe):
        graph = onnx.load_from_string(write(path, samples, **recipe)).graph
        dequantized = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
        return {
            node.name for node in graph.node if node.op_type in ("Conv", "Gemm") and node.input[1] not in dequantized
        }

    convolutions = {name for name in node_names(path) if "conv" in name}
    gemm = {name for name in node_names(path) if "gemm" in name}
    assert float_inputs() == set()
    assert float_inputs(float_nodes=tuple(gemm)) == gemm
    assert float_inputs(float_nodes=("node_conv*",)) == convolutions


def test_a_name_that_looks_like_a_pattern_is_a_name_first(build_graph, tmp_path):
    model = onnx.load(build_graph("gemm_beta"))
    model.graph.node[0].name = "/layers[0]/Gemm"
    onnx.save(model, tmp_path / "brackets.onnx")
    settings = quantizer_settings(Recipe(float_nodes=("/layers[0]/Gemm",)), tmp_path / "brackets.onnx")
    assert settings.nodes_to_exclude == ("/layers[0]/Gemm",)


@pytest.mark.parametrize("engine", ["one-pass", "stock"])
def test_a_model_of_a_fixed_batch_gets_the_ranges_of_its_dynamic_twin(
    engine, save_classifier, calibration, write, tmp_path
):
    dynamic, fixed = save_classifier("dynamic.onnx"), save_classifier("fixed.onnx", batch=4)
    assert [load_model(path).signature.fixed_batch for path in (dynamic, fixed)] == [None, 4]
    samples = calibration(dynamic, count=6)
    twin = replace(samples, task=calibration(dynamic).task)
    found = [scales(write(path, twin, engine=engine)) for path in (dynamic, fixed)]
    assert set(found[0]) == set(found[1])
    for name in found[0]:
        # Kernels may sum in another order where rows come together.
        np.testing.assert_allclose(found[1][name], found[0][name], rtol=1e-5)


def test_progress_counts_every_sample_of_every_environment(build_graph, calibration, write):
    path = build_graph("gemm_beta")
    counted = []
    write(path, calibration(path), counted.append, environments=(Environment(), Environment("scale@1", 2)))
    assert counted == [1] * 8


@pytest.mark.filterwarnings("ignore:All-NaN axis:RuntimeWarning")  # ONNX Runtime's
@pytest.mark.parametrize("engine", ["one-pass", "stock"])
def test_a_tensor_that_is_not_finite_is_named(engine, build_graph, calibration, write, tmp_path):
    model = onnx.load(build_graph("gemm_beta"))
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.full((12, 7), 3e38, np.float32), "w0"))
    onnx.save(model, tmp_path / "huge.onnx")
    path = tmp_path / "huge.onnx"
    with pytest.raises(DataError, match="'gemm0'"):
        write(path, calibration(path), engine=engine)


def test_the_model_that_was_folded_is_left_as_it_was(build_graph, calibration, write):
    path = build_graph("depthwise_clip")
    before, names = path.read_bytes(), {p.name for p in path.parent.iterdir()}
    write(path, calibration(path), float_outputs=True)
    assert path.read_bytes() == before
    assert {p.name for p in path.parent.iterdir()} - names == {"int8.onnx"}


def test_the_cuda_engine_observes_on_the_cuda_provider_and_finds_no_statistics_of_the_cpu(
    build_graph, calibration, write, monkeypatch, tmp_path
):
    """CUDA itself is in test_gpu.py. Here whatever asks for it gets the CPU."""
    from onnxptq.cache import Cache
    from onnxptq.quantization import passes
    from onnxptq.runtimes import probe

    asked = []

    def opened(*arguments, provider, **options):
        asked.append(provider)
        return CalibrationPass(*arguments, **options)

    monkeypatch.setattr(passes, "calibration_pass", opened)
    monkeypatch.setattr("onnxptq.quantization.static.probe", lambda name: probe("cpu"))
    path, empty_cache = build_graph("depthwise_clip"), Cache(tmp_path / "room")
    samples = calibration(path)
    files = {
        write(path, samples, cache=empty_cache, engine=engine) for engine in ("one-pass", "one-pass-cuda", "one-pass")
    }
    assert asked == ["cpu", "cuda"]
    assert len(files) == 1
