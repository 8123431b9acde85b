"""What joins boxes and scores behind the last weights stays in float, and nothing else does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.graphs.post_processing import post_processing
from onnxptq.models import builtin


def detector(path):
    """Boxes (0 to 320) and one score (0 to 1) of 16 places, in one output (N, 5, 16), as YOLOv8 joins them."""
    rng = np.random.default_rng(0)
    weights = {
        "w": (0.4 * rng.standard_normal((5, 3, 3, 3))).astype(np.float32),
        "stride": np.array([80.0], np.float32),
        "boxes_shape": np.array([0, 4, 16]),
        "scores_shape": np.array([0, 1, 16]),
        "parts": np.array([4, 1]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        helper.make_node("Split", ["c", "parts"], ["b", "s"], name="split", axis=1),
        helper.make_node("Reshape", ["b", "boxes_shape"], ["b2"], name="reshape_boxes"),
        helper.make_node("Reshape", ["s", "scores_shape"], ["s2"], name="reshape_scores"),
        helper.make_node("Mul", ["b2", "stride"], ["b3"], name="to_pixels"),
        helper.make_node("Sigmoid", ["s2"], ["s3"], name="sigmoid"),
        helper.make_node("Concat", ["b3", "s3"], ["y"], name="join", axis=1),
    ]
    save(path, nodes, weights, [None, 5, 16])


def save(path, nodes, weights, output):
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, output)],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


@pytest.fixture
def pictures(tmp_path):
    x = np.random.default_rng(1).standard_normal((64, 3, 4, 4)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x)
    return x


def scores_of(path, x):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0][:, 4]


def test_scores_beside_boxes_survive_and_the_switch_loses_them(tmp_path, pictures):
    detector(tmp_path / "fp32.onnx")
    exact = scores_of(tmp_path / "fp32.onnx", pictures)
    errors = {}
    for switch in (False, True):
        made = onnxptq.quantize(
            tmp_path / "fp32.onnx", data=str(tmp_path / "data.npz"), calib_size=16, evaluate=False, verify=False,
            quantize_post_processing=switch, output=tmp_path / f"{switch}.onnx",
        )  # fmt: skip
        errors[switch] = np.abs(scores_of(made.output, pictures) - exact).max()
        said = any("post-processing behind the last weights stays in float" in one for one in made.warnings)
        assert said is not switch
    assert errors[False] < 0.15
    assert errors[True] > 0.4


def test_the_switch_is_part_of_the_recipe_and_old_digests_stay(tmp_path):
    recipe = onnxptq.Recipe()
    assert "quantize_post_processing" not in recipe.to_dict()
    switched = recipe.changed(quantize_post_processing=True)
    assert onnxptq.Recipe.from_dict(switched.to_dict()) == switched
    assert switched.digest != recipe.digest


def test_suppression_inside_a_model_stays_in_float_with_what_feeds_it():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Reshape", ["c", "shape"], ["boxes"], name="reshape"),
        helper.make_node("NonMaxSuppression", ["boxes", "scores"], ["y"], name="nms"),
    ]
    output = helper.make_tensor_value_info("y", TensorProto.INT64, None)
    weight = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.float32), "w")
    graph = helper.make_graph(nodes, "g", [], [output], [weight])
    assert [node.name for node in post_processing(graph)] == ["reshape", "nms"]


def test_a_mean_over_bins_belongs_to_it():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Softmax", ["c"], ["p"], name="softmax", axis=1),
        helper.make_node("Conv", ["p", "bins"], ["d"], name="dfl"),
        helper.make_node("Conv", ["x", "v"], ["e"], name="scores"),
        helper.make_node("Sigmoid", ["e"], ["s"], name="sigmoid"),
        helper.make_node("Concat", ["d", "s"], ["y"], name="join", axis=1),
    ]
    weights = {"w": np.zeros((16, 3, 1, 1)), "bins": np.arange(16).reshape(1, 16, 1, 1), "v": np.zeros((1, 3, 1, 1))}
    tensors = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in weights.items()]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    found = post_processing(helper.make_graph(nodes, "g", [], [output], tensors))
    assert [node.name for node in found] == ["softmax", "dfl", "sigmoid", "join"]


@pytest.mark.parametrize("joined", [("relu", "relu"), ("sigmoid", "sigmoid")])
def test_a_join_of_one_quantity_is_quantized_as_before(joined):
    kinds = {"relu": "Relu", "sigmoid": "Sigmoid"}
    nodes = [helper.make_node("Conv", ["x", "w"], ["c"], name="conv")]
    nodes += [helper.make_node(kinds[kind], ["c"], [f"a{number}"]) for number, kind in enumerate(joined)]
    nodes += [helper.make_node("Concat", ["a0", "a1"], ["y"], axis=1)]
    weight = numpy_helper.from_array(np.zeros((4, 3, 1, 1), np.float32), "w")
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    assert post_processing(helper.make_graph(nodes, "g", [], [output], [weight])) == []


def test_classifiers_have_none(shared):
    assert post_processing(onnx.load(builtin().model).graph) == []
    for path in sorted((shared / "models").glob("*.onnx")):
        assert post_processing(onnx.load(path).graph) == [], path.name
