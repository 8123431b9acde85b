"""Folding keeps what a model computes, removes BatchNormalization, and is done once."""

from __future__ import annotations

import logging

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.graphs import fold, load_model


@pytest.fixture
def with_norm(tmp_path):
    """Conv and BatchNormalization, (N, 2, 4, 4) to (N, 3, 4, 4), with metadata of its own."""

    def save(seed=0, name="m.onnx", node=None):
        rng = np.random.default_rng(seed)
        shapes = {"w": (3, 2, 1, 1), "scale": (3,), "bias": (3,), "mean": (3,), "var": (3,)}
        weights = [numpy_helper.from_array(rng.random(s, np.float32) + 0.5, n) for n, s in shapes.items()]
        nodes = [
            helper.make_node("Conv", ["x", "w"], ["conv"], "conv"),
            node or helper.make_node("BatchNormalization", ["conv", "scale", "bias", "mean", "var"], ["y"], "norm"),
        ]
        graph = helper.make_graph(
            nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 2, 4, 4])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, 4, 4])],
            weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, {"author": "me"})
        onnx.save(model, tmp_path / name)
        return load_model(tmp_path / name)

    return save


def run(path):
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 2, 4, 4)).astype(np.float32)}
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, feeds)[0]


def test_batch_normalization_is_folded_and_the_function_stays(with_norm, tmp_path):
    model = with_norm()
    folded = fold(model, Cache(tmp_path / "room"))
    assert [node.op_type for node in onnx.load(folded).graph.node] == ["Conv"]
    np.testing.assert_allclose(run(folded), run(model.path), rtol=1e-5, atol=1e-6)


def test_the_models_own_metadata_survives(with_norm, tmp_path):
    assert load_model(fold(with_norm(), Cache(tmp_path / "room"))).metadata["author"] == "me"


def test_folding_is_done_once_for_a_content_wherever_it_lies(with_norm, tmp_path):
    empty_cache = Cache(tmp_path / "room")
    first = fold(with_norm(), empty_cache)
    written = first.stat()
    assert fold(with_norm(name="copy.onnx"), empty_cache) == first
    assert first.stat() == written
    assert fold(with_norm(seed=1), empty_cache) != first


def test_what_cannot_be_folded_is_said_and_leaves_nothing(with_norm, tmp_path):
    model = with_norm(node=helper.make_node("Mine", ["conv"], ["y"], domain="no.such.domain"))
    with pytest.raises(ModelError, match=r"ONNX Runtime cannot prepare .*m\.onnx for quantization: .*no\.such\.domain"):
        fold(model, Cache(tmp_path / "room"))
    assert not [path for path in (tmp_path / "room").rglob("*") if path.is_file()]


def test_the_root_logger_is_left_as_it_was(with_norm, tmp_path):
    level, handlers = logging.root.level, list(logging.root.handlers)
    fold(with_norm(), Cache(tmp_path / "room"))
    assert (logging.root.level, list(logging.root.handlers)) == (level, handlers)
