"""Counting inside the graph. The CPU does it in the host's memory with the same operators: nothing here needs a GPU."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxptq.calibrators.statistics import value_histogram
from onnxptq.errors import DataError
from onnxptq.quantization.collect import CalibrationPass, collect
from onnxptq.quantization.collect_on_device import DevicePass, calibration_pass
from onnxptq.quantization.plan import plan_calibration
from onnxptq.quantization.settings import QuantizerSettings


def identity(folder, opset=17):
    """A model whose output is its input, of any length."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", values[:1], values[1:])
    path = folder / "identity.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), str(path))
    return path


def edges():
    """Numbers at and beside every power of two of float32, of both signs, zeros, and random ones of all magnitudes."""
    powers = np.ldexp(np.float32(1), np.arange(-126, 128)).astype(np.float32)
    beside = [np.nextafter(powers, np.float32(0)), powers, np.nextafter(powers, np.float32(np.inf))]
    rng = np.random.default_rng(0)
    drawn = rng.integers(0x00800000, 0x7F800000, 20_000, dtype=np.uint32).view(np.float32)
    normal = np.concatenate([*beside, drawn, rng.standard_normal(20_000).astype(np.float32)])
    normal = normal[np.abs(normal) >= np.float32(2.0**-126)]
    return np.concatenate([normal, -normal, np.float32([0.0, -0.0, 0.0])])


def test_bins_are_those_of_the_bits_for_numbers_of_every_magnitude(tmp_path):
    path, values = identity(tmp_path), edges()
    samples = [("a", {"x": values[::2].copy()}), ("b", {"x": values[1::2].copy()})]
    ours, theirs = (
        opened.collect(samples).environments[""]["y"]
        for opened in (DevicePass(path, ["y"], provider="cpu"), CalibrationPass(path, ["y"]))
    )
    assert (ours.minimum, ours.maximum, ours.count) == (theirs.minimum, theirs.maximum, theirs.count)
    for found, expected in zip(
        vars(value_histogram(ours)).values(), vars(value_histogram(theirs)).values(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["conv_relu", "depthwise_clip", "residual"])
@pytest.mark.parametrize("histograms", [True, False])
def test_statistics_are_those_of_the_pass_that_copies(build_graph, draw, name, histograms):
    path = build_graph(name)
    model = onnx.load(str(path))
    if model.opset_import[0].version < 16:
        model.opset_import[0].version = 17
        onnx.save(model, str(path))
    tensors = plan_calibration(path, QuantizerSettings()).observed
    ours = DevicePass(path, tensors, provider="cpu", histograms=histograms).collect(draw(path), environment="e")
    theirs = collect(path, draw(path), tensors, environment="e", histograms=histograms)
    assert ours.samples == theirs.samples
    for tensor in tensors:
        found, expected = ours.environments["e"][tensor], theirs.environments["e"][tensor]
        assert (found.minimum, found.maximum, found.count) == (expected.minimum, expected.maximum, expected.count)
        if histograms:
            np.testing.assert_array_equal(value_histogram(found).counts, value_histogram(expected).counts)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_an_error_that_names_the_tensor(tmp_path, bad):
    opened = DevicePass(identity(tmp_path), ["y"], provider="cpu")
    with pytest.raises(DataError, match="the tensor 'y' is NaN or infinite"):
        opened.collect([("a", {"x": np.float32([1, bad, 2])}), ("b", {"x": np.float32([1])})])


def test_an_empty_set_and_a_missing_input_are_errors(tmp_path):
    opened = DevicePass(identity(tmp_path), ["y"], provider="cpu")
    with pytest.raises(DataError, match="empty"):
        opened.collect([])
    with pytest.raises(DataError, match="'a' has no value for the model's input 'x'"):
        opened.collect([("a", {})])


def test_only_cuda_counts_on_the_device_and_only_where_the_opset_can(tmp_path, monkeypatch):
    made = []
    for kind in (DevicePass, CalibrationPass):
        monkeypatch.setattr(kind, "__init__", lambda self, *args, **kw: made.append(type(self).__name__))
    keywords = {"optimized": False, "histograms": True}
    for provider, opset in (("cuda", 17), ("cuda", 13), ("cpu", 17)):
        calibration_pass(identity(tmp_path, opset), ["y"], provider=provider, **keywords)
    assert made == ["DevicePass", "CalibrationPass", "CalibrationPass"]
