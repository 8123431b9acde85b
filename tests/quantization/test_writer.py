from __future__ import annotations

import os
import shutil

import numpy as np
import onnx
import onnxruntime.quantization
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.errors import UsageError
from onnxptq.quantization.collect import collect
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.targets import TARGETS, target_settings
from onnxptq.quantization.writer import FastWriter, quantize_with_ranges, writer_for

SETTINGS = {
    "uint8": QuantizerSettings(),
    "uint8 per channel": QuantizerSettings(per_channel=True),
    "int8": QuantizerSettings(activation_type="QInt8"),
    "int8 symmetric per channel": QuantizerSettings(
        activation_type="QInt8", per_channel=True, extra_options={"ActivationSymmetric": True}
    ),
}
RARE_SETTINGS = {
    "uint8 symmetric": QuantizerSettings(extra_options={"ActivationSymmetric": True}),
    "uint8 reduced": QuantizerSettings(per_channel=True, reduce_range=True),
    "uint8 weights": QuantizerSettings(weight_type="QUInt8"),
    "restricted": QuantizerSettings(extra_options={"ActivationRestrictedAsymmetric": True, "MinimumRealRange": 0.01}),
    "tensorrt": QuantizerSettings(
        activation_type="QInt8",
        per_channel=True,
        extra_options={"ActivationSymmetric": True, "DedicatedQDQPair": True, "QDQKeepRemovableActivations": True},
    ),
    "float logits": QuantizerSettings(extra_options={"OpTypesToExcludeOutputQuantization": ["Gemm"]}),
}


def reference(path, ranges, writer, options, output):
    complete = writer.plan.complete(ranges)
    quantize_with_ranges(path, complete, output, options)
    return output.read_bytes()


def check_methods(model_path, tmp_path, draw, options):
    writer = FastWriter(model_path, options)
    statistics = collect(model_path, draw(model_path), writer.plan.observed)
    for name in ("minmax", "percentile", "mse"):
        method = RANGE_METHODS.get(name)
        ranges = {
            tensor: method.range(statistics.per_environment(tensor), options.quantization)
            for tensor in writer.plan.observed
        }
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(model_path, ranges, writer, options, tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted
    assert writer.written == 3
    assert writer.anew == []


@pytest.mark.parametrize("target", SETTINGS)
def test_every_method_writes_the_bytes_of_the_reference(model_path, tmp_path, draw, target):
    check_methods(model_path, tmp_path, draw, SETTINGS[target])


@pytest.mark.parametrize("target", RARE_SETTINGS)
@pytest.mark.parametrize("name", ["residual", "depthwise_clip"])
def test_rare_settings_write_the_bytes_of_the_reference(build_graph, tmp_path, draw, target, name):
    check_methods(build_graph(name), tmp_path, draw, RARE_SETTINGS[target])


BOUND = st.floats(-(2.0**100), 2.0**100, width=32)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_ranges_the_bytes_are_those_of_the_reference(build_graph, tmp_path, data):
    path = build_graph("residual")
    writer = FastWriter(path, QuantizerSettings(per_channel=True))
    for _ in range(3):
        ranges = {}
        for name in writer.plan.observed:
            low, high = sorted(data.draw(st.tuples(BOUND, BOUND)))
            ranges[name] = (np.float32(low), np.float32(high))
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(path, ranges, writer, QuantizerSettings(per_channel=True), tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted


def test_a_bias_too_large_for_int32_builds_the_graph_anew_and_is_counted(build_graph, tmp_path):
    for per_channel in (True, False):
        path = build_graph("conv_relu")
        options = QuantizerSettings(per_channel=per_channel)
        writer = FastWriter(path, options)
        wide = {name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}
        tiny = {name: (np.float32(-1e-12), np.float32(1e-12)) for name in writer.plan.observed}
        for ranges in (wide, tiny, wide):
            writer.write(ranges, tmp_path / "fast.onnx")
            wanted = reference(path, ranges, writer, options, tmp_path / "reference.onnx")
            assert (tmp_path / "fast.onnx").read_bytes() == wanted
        assert len(writer.anew) == 1
        assert "needs a larger weight scale" in writer.anew[0]


def test_the_largest_of_a_tensors_biases_decides_whether_its_scale_is_enlarged(builder, tmp_path):
    """Per tensor one scale serves all biases: here only one of them, and not the first, is too large."""
    g = builder(3)
    bias = g.constant(np.array([0, 1e-6, 300, -1e-6], np.float32))
    y = g.add("Gemm", "x", g.weight(6, 4), bias)
    path = g.save(tmp_path / "m.onnx", {"x": ["N", 6]}, {y: ["N", 4]})
    writer = FastWriter(path, QuantizerSettings())
    for width, anew in ((100, 0), (1e-4, 1)):
        ranges = {name: (np.float32(-width), np.float32(width)) for name in writer.plan.observed}
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(path, ranges, writer, QuantizerSettings(), tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted
        assert len(writer.anew) == anew


def test_a_bias_that_no_scale_makes_fit_is_clipped_to_int32(build_graph, tmp_path):
    options = QuantizerSettings(extra_options={"QDQDisableWeightAdjustForInt32Bias": True})
    path = build_graph("conv_relu")
    writer = FastWriter(path, options)
    tiny = {name: (np.float32(-1e-12), np.float32(1e-12)) for name in writer.plan.observed}
    writer.write(tiny, tmp_path / "fast.onnx")
    assert (tmp_path / "fast.onnx").read_bytes() == reference(path, tiny, writer, options, tmp_path / "reference.onnx")
    assert writer.anew == []
    initializers = onnx.load(tmp_path / "fast.onnx").graph.initializer
    (bias,) = (onnx.numpy_helper.to_array(t) for t in initializers if t.name == "w1_quantized")
    assert {np.iinfo(np.int32).min, np.iinfo(np.int32).max} == set(bias.tolist())


def test_a_bias_behind_a_softmax_has_the_scale_that_no_range_changes(builder, tmp_path):
    g = builder(4)
    y = g.add("Gemm", g.add("Softmax", "x"), g.weight(6, 4), g.weight(4))
    path = g.save(tmp_path / "m.onnx", {"x": ["N", 6]}, {y: ["N", 4]})
    writer = FastWriter(path, QuantizerSettings(per_channel=True))
    ranges = {name: (np.float32(-3), np.float32(5)) for name in writer.plan.observed}
    assert not any(name.startswith("softmax") for name in ranges)
    writer.write(ranges, tmp_path / "fast.onnx")
    wanted = reference(path, ranges, writer, QuantizerSettings(per_channel=True), tmp_path / "reference.onnx")
    assert (tmp_path / "fast.onnx").read_bytes() == wanted
    assert writer.anew == []


RARE_TYPES = {
    "16-bit activations": QuantizerSettings(activation_type="QUInt16", per_channel=True),
    "16-bit": QuantizerSettings("QInt16", "QInt16", per_channel=True),
    "4-bit weights": QuantizerSettings(weight_type="QInt4", per_channel=True),
    "unsigned weights": QuantizerSettings(weight_type="QUInt8", per_channel=True),
    "a least range": QuantizerSettings(per_channel=True, extra_options={"MinimumRealRange": 0.5}),
    "float biases": QuantizerSettings("QInt8", per_channel=True, extra_options={"QuantizeBias": False}),
    "another axis": QuantizerSettings(
        per_channel=True, extra_options={"QDQOpTypePerChannelSupportToAxis": {"Gemm": 1, "MatMul": 0}}
    ),
}


@pytest.mark.parametrize("kind", RARE_TYPES)
@pytest.mark.parametrize("name", ["depthwise_clip", "attention"])
def test_whatever_the_types_the_bytes_are_those_of_the_reference(build_graph, tmp_path, kind, name):
    path, options = build_graph(name), RARE_TYPES[kind]
    writer = FastWriter(path, options)
    for width in (3, 1e-9):
        ranges = {name: (np.float32(-width), np.float32(2 * width)) for name in writer.plan.observed}
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(path, ranges, writer, options, tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted


def strange_weights(builder, path):
    """Channels of zeros, of denormal numbers, of one sign, of -0.0, and a weight that two layers share."""
    g = builder(5)
    weight = g.rng.standard_normal((6, 3, 1, 1)).astype(np.float32)
    weight[0], weight[1] = 0, 1e-42
    weight[2], weight[3] = np.abs(weight[2]), -0.0
    shared = g.constant(weight)
    y = g.add("Add", g.add("Conv", "x", shared, g.weight(6)), g.add("Conv", "x", shared, g.weight(6, scale=1e4)))
    y = g.add("Conv", y, g.weight(2, 6, 1, 1))
    return g.save(path, {"x": ["N", 3, 4, 4]}, {y: ["N", 2, 4, 4]})


@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_strange_weights_are_written_as_the_reference_writes_them_for_every_target(builder, tmp_path, target):
    path = strange_weights(builder, tmp_path / "m.onnx")
    options = target_settings(target, path)
    writer = FastWriter(path, options)
    for width in (1, 1e-6):
        ranges = {name: (np.float32(-width), np.float32(width)) for name in writer.plan.observed}
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(path, ranges, writer, options, tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted
    # Only a bias of int32 is a reason to enlarge a weight's scale.
    assert len(writer.anew) == (target == "cpu")


@pytest.mark.parametrize("target", [target.name for target in TARGETS])
def test_every_graph_is_written_as_the_reference_writes_it_for_every_target(model_path, tmp_path, target):
    options = target_settings(target, model_path)
    writer = FastWriter(model_path, options)
    ranges = {name: (np.float32(-1.5), np.float32(2)) for name in writer.plan.observed}
    writer.write(ranges, tmp_path / "fast.onnx")
    wanted = reference(model_path, ranges, writer, options, tmp_path / "reference.onnx")
    assert (tmp_path / "fast.onnx").read_bytes() == wanted


@pytest.mark.parametrize(
    ("tensor", "anew"), [("w0", []), ("x", ["the settings override single activations"])], ids=["weight", "input"]
)
def test_overrides_of_single_activations_build_the_graph_anew(tensor, anew, build_graph, tmp_path):
    path = build_graph("conv_relu")
    overrides = {tensor: [{"rmin": np.float32(-3), "rmax": np.float32(3)}]}
    options = QuantizerSettings(per_channel=tensor == "x", extra_options={"TensorQuantOverrides": overrides})
    writer = FastWriter(path, options)
    for width in (1, 2):
        ranges = {name: (np.float32(-width), np.float32(width)) for name in writer.plan.observed}
        writer.write(ranges, tmp_path / "fast.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == reference(path, ranges, writer, options, tmp_path / "ref.onnx")
    assert writer.anew == anew * 2


def test_float16_is_written_as_the_reference_writes_it(builder, tmp_path):
    g = builder(6)
    weights = [g.constant((g.rng.standard_normal(shape) * 0.3).astype(np.float16)) for shape in ((6, 4), (4,))]
    y = g.add("Gemm", "x", *weights)
    g.save(tmp_path / "m.onnx", {"x": ["N", 6]}, {y: ["N", 4]}, check=False)
    model = onnx.load(tmp_path / "m.onnx")
    for value in (model.graph.input[0], model.graph.output[0]):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    onnx.save(model, tmp_path / "m.onnx")
    options = QuantizerSettings(per_channel=True)
    writer = FastWriter(tmp_path / "m.onnx", options)
    for width in (1, 1e-9):
        ranges = {name: (np.float32(-width), np.float32(width)) for name in writer.plan.observed}
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(tmp_path / "m.onnx", ranges, writer, options, tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted


def test_a_weight_that_the_reference_refuses_is_refused(build_graph, tmp_path):
    path = build_graph("conv_relu")
    model = onnx.load(path)
    weight = onnx.numpy_helper.to_array(model.graph.initializer[0]).copy()
    weight[1, 0, 0, 0] = np.nan
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, model.graph.initializer[0].name))
    onnx.save(model, path)
    with pytest.raises(AssertionError, match="scale issue"):
        FastWriter(path, QuantizerSettings(per_channel=True))


def test_external_data_is_left_to_the_reference(build_graph, tmp_path):
    path = tmp_path / "apart.onnx"
    onnx.save_model(onnx.load(build_graph("conv_relu")), path, save_as_external_data=True, size_threshold=0)
    writer = FastWriter(path, QuantizerSettings())
    ranges = {name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}
    assert writer.write(ranges, tmp_path / "out.onnx") == "the weights lie in files of their own"
    onnx.checker.check_model(tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx").read_bytes() == reference(path, ranges, writer, QuantizerSettings(), tmp_path / "r")


def test_what_is_written_can_keep_its_weights_in_a_file_of_their_own(build_graph, tmp_path):
    path = build_graph("batch_norm")
    writer = writer_for(path, QuantizerSettings(), external=True)
    assert writer_for(path, QuantizerSettings()) is not writer
    writer.write({name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}, tmp_path / "out.onnx")
    model = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    assert any(tensor.external_data for tensor in model.graph.initializer)
    assert (tmp_path / "out.onnx.data").stat().st_size > 0
    onnx.checker.check_model(tmp_path / "out.onnx")


def test_a_first_file_that_differs_is_replaced_and_ends_the_fast_way(build_graph, tmp_path, monkeypatch):
    path = build_graph("conv_relu")
    monkeypatch.setattr("onnxptq.quantization.writer.TRIED_VERSIONS", ("1.0.0",))
    writer = FastWriter(path, QuantizerSettings())
    writer._template.model.producer_name = "not the quantizer"
    ranges = {name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}
    for _ in range(2):
        reason = writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(path, ranges, writer, QuantizerSettings(), tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted
        assert "this version of ONNX Runtime writes another file" in reason


@pytest.mark.parametrize("versions", [(onnxruntime.__version__,), ("1.0.0",)])
def test_the_stock_quantizer_runs_once_at_most_and_only_where_its_version_was_never_tried(
    build_graph, tmp_path, monkeypatch, versions
):
    calls = []
    stock = onnxruntime.quantization.quantize_static
    monkeypatch.setattr(onnxruntime.quantization, "quantize_static", lambda *a, **k: calls.append(1) or stock(*a, **k))
    monkeypatch.setattr("onnxptq.quantization.writer.TRIED_VERSIONS", versions)
    writer = FastWriter(build_graph("depthwise_clip"), QuantizerSettings())
    for width in (1, 2, 3):
        ranges = {name: (np.float32(-width), np.float32(width)) for name in writer.plan.observed}
        assert writer.write(ranges, tmp_path / "out.onnx") is None
    assert len(calls) == (versions == ("1.0.0",))


def test_a_missing_range_is_named(build_graph, tmp_path):
    writer = FastWriter(build_graph("conv_relu"), QuantizerSettings())
    with pytest.raises(UsageError, match="no range for 'conv2'"):
        writer.write({}, tmp_path / "out.onnx")


def test_a_cache_of_other_ranges_is_never_reused(build_graph, tmp_path):
    # FACTS: `quantize_static` prefers an existing calibration cache to the data, whatever made it.
    path = build_graph("conv_relu")
    names = FastWriter(path, QuantizerSettings()).plan.cached
    files = set()
    for bound in (1.0, 2.0):
        ranges = {name: (np.float32(-bound), np.float32(bound)) for name in names}
        quantize_with_ranges(path, ranges, tmp_path / "out.onnx", QuantizerSettings())
        files.add((tmp_path / "out.onnx").read_bytes())
    assert len(files) == 2


def test_writing_prints_nothing(build_graph, tmp_path, capfd):
    for name in ("depthwise_clip", "attention"):
        writer = FastWriter(build_graph(name), QuantizerSettings(per_channel=True))
        for _ in range(2):
            ranges = {tensor: (np.float32(-1), np.float32(1)) for tensor in writer.plan.observed}
            writer.write(ranges, tmp_path / "out.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_process_builds_the_graph_of_a_model_and_its_settings_once(build_graph, tmp_path):
    path = shutil.copy(build_graph("conv_relu"), tmp_path / "model.onnx")
    first = writer_for(path, QuantizerSettings())
    assert writer_for(path, QuantizerSettings()) is first
    assert writer_for(path, QuantizerSettings(per_channel=True)) is not first
    os.utime(path, ns=(1, 1))
    assert writer_for(path, QuantizerSettings()) is not first


def test_all_targets_of_one_model_keep_their_writers_while_they_take_turns(build_graph):
    path = build_graph("conv_relu")
    writers = [writer_for(path, target.settings) for target in TARGETS]
    assert [writer_for(path, target.settings) for target in TARGETS] == writers
    assert len(set(map(id, writers))) > 2  # Some targets have the same settings.
