"""Bounds over ranges: the input gets its exact range, no range leaves what its operator can give."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.errors import UsageError
from onnxptq.graphs import load_model
from onnxptq.quantization.plugins import bounded
from onnxptq.recipe import Step
from onnxptq.tasks import make_task


@pytest.fixture
def pixels(tmp_path):
    """A model of bytes: x, uint8 -> float -> / 255 -> - 0.5 -> Conv -> Relu6 -> mean; its path and its task."""
    arrays = {
        "scale": np.float32(255),
        "mean": np.float32(0.5),
        "w": np.ones((2, 3, 1, 1), np.float32),
        "six": np.float32(6),
        "zero": np.float32(0),
    }
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], "cast", to=TensorProto.FLOAT),
        helper.make_node("Div", ["float", "scale"], ["unit"], "div"),
        helper.make_node("Sub", ["unit", "mean"], ["centred"], "sub"),
        helper.make_node("Conv", ["centred", "w"], ["conv"], "conv"),
        helper.make_node("Clip", ["conv", "zero", "six"], ["y"], "clip"),
        helper.make_node("GlobalAveragePool", ["y"], ["scores"], "pool"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2, 1, 1])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    path = tmp_path / "pixels.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path, make_task("tensor-classification", {}, load_model(path).signature)


def f32(low, high):
    return np.float32(low), np.float32(high)


def test_the_input_and_what_only_normalises_it_get_their_exact_range(pixels):
    dark = {"float": f32(0, 30), "unit": f32(0, 0.12), "centred": f32(-0.5, -0.38), "conv": f32(-1, 1)}
    found = bounded(dark, *pixels, [Step("input-range")])
    assert found["float"] == f32(0, 255)
    np.testing.assert_allclose(found["unit"], (0, 1), atol=1e-6)
    np.testing.assert_allclose(found["centred"], (-0.5, 0.5), atol=1e-6)
    assert found["conv"] == f32(-1, 1)


def test_ranges_are_cut_to_what_operators_can_give_and_never_widened(pixels):
    wide = {"y": f32(-3, 9), "conv": f32(-100, 100), "float": f32(-1, 300), "unit": f32(0.2, 0.3)}
    found = bounded(wide, *pixels, [Step("operator-bounds")])
    assert found["y"][0] == 0
    np.testing.assert_allclose(found["y"], (0, 1.5), atol=1e-5)  # 3 * 0.5, which is less than 6
    np.testing.assert_allclose(found["conv"], (-1.5, 1.5), atol=1e-5)
    assert found["float"] == f32(0, 255)
    assert found["unit"] == f32(0.2, 0.3)


def test_widened_ranges_stay_inside_the_operators_bounds(pixels):
    found = bounded(
        {"y": f32(0, 1.2), "conv": f32(-0.5, 1)}, *pixels, [Step.of("widen", factor=1.5), Step("operator-bounds")]
    )
    np.testing.assert_allclose(found["y"], (0, 1.5), atol=1e-5)
    assert found["conv"] == f32(-0.75, 1.5)
    with pytest.raises(UsageError, match=r"at least 1, got 0\.5"):
        bounded({}, *pixels, [Step.of("widen", factor=0.5)])


def test_an_input_whose_bounds_nobody_knows_keeps_its_observed_range(save_classifier):
    path = save_classifier()
    task = make_task("tensor-classification", {}, load_model(path).signature)
    assert bounded({"x": f32(-1, 2)}, path, task, [Step("input-range"), Step("operator-bounds")])["x"] == f32(-1, 2)
