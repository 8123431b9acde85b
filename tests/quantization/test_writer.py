from __future__ import annotations

import os
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.errors import UsageError
from onnxptq.quantization.collect import collect
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.targets import TARGETS
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
    # The first file is compared anyway; the others are what the fast way writes alone.
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
    assert writer.fallbacks == []


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


@pytest.mark.parametrize("per_channel", [True, False])
def test_a_bias_too_large_for_int32_is_left_to_the_reference_and_counted(build_graph, tmp_path, per_channel):
    path = build_graph("conv_relu")
    options = QuantizerSettings(per_channel=per_channel)
    writer = FastWriter(path, options)
    wide = {name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}
    tiny = {name: (np.float32(-1e-12), np.float32(1e-12)) for name in writer.plan.observed}
    for ranges in (wide, tiny, wide):
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(path, ranges, writer, options, tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted
    assert len(writer.fallbacks) == 1
    assert "needs a larger weight scale" in writer.fallbacks[0]


@pytest.mark.parametrize(
    ("tensor", "fallbacks"), [("w0", []), ("x", ["the settings override single activations"])], ids=["weight", "input"]
)
def test_overrides_of_single_activations_are_left_to_the_reference(tensor, fallbacks, build_graph, tmp_path):
    path = build_graph("conv_relu")
    overrides = {tensor: [{"rmin": np.float32(-3), "rmax": np.float32(3)}]}
    options = QuantizerSettings(extra_options={"TensorQuantOverrides": overrides})
    writer = FastWriter(path, options)
    for width in (1, 2):
        ranges = {name: (np.float32(-width), np.float32(width)) for name in writer.plan.observed}
        writer.write(ranges, tmp_path / "fast.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == reference(path, ranges, writer, options, tmp_path / "ref.onnx")
    assert writer.fallbacks == fallbacks * 2


def test_external_data_is_left_to_the_reference(build_graph, tmp_path):
    path = tmp_path / "apart.onnx"
    onnx.save_model(onnx.load(build_graph("conv_relu")), path, save_as_external_data=True, size_threshold=0)
    writer = FastWriter(path, QuantizerSettings())
    writer.write({name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}, tmp_path / "out.onnx")
    assert writer.fallbacks == ["the weights lie in files of their own"]
    onnx.checker.check_model(tmp_path / "out.onnx")


def test_what_is_written_can_keep_its_weights_in_a_file_of_their_own(build_graph, tmp_path):
    path = build_graph("batch_norm")
    writer = FastWriter(path, QuantizerSettings(), external=True)
    writer.write({name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}, tmp_path / "out.onnx")
    assert (tmp_path / "out.onnx.data").stat().st_size > 0
    onnx.checker.check_model(tmp_path / "out.onnx")


def test_a_first_file_that_differs_is_replaced_and_ends_the_fast_way(build_graph, tmp_path, monkeypatch):
    path = build_graph("conv_relu")
    writer = FastWriter(path, QuantizerSettings())
    writer._template.model.producer_name = "not the quantizer"
    ranges = {name: (np.float32(-1), np.float32(1)) for name in writer.plan.observed}
    for _ in range(2):
        writer.write(ranges, tmp_path / "fast.onnx")
        wanted = reference(path, ranges, writer, QuantizerSettings(), tmp_path / "reference.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == wanted
    assert writer.fallbacks == ["the first file differed from the reference"] * 2


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
