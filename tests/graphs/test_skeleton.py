"""The graph of a file without its weights: parsed once, and again when the file has changed."""

from __future__ import annotations

import os
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.files import digest_file
from onnxptq.graphs.external import digest_model
from onnxptq.graphs.load import load_model
from onnxptq.graphs.skeleton import KEPT_BYTES, skeleton


@pytest.fixture
def model(tmp_path):
    large = np.ones((64, KEPT_BYTES // 128), np.float32)
    weights = {"large": large, "small": np.ones(3, np.float32), "mask": np.ones((100, 64), np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("Add", ["x", "mask"], ["masked"], "add"),
            helper.make_node("MatMul", ["masked", "large"], ["y"], "copy"),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 32])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    os.utime(path, ns=(1, 1))
    return path


def changed(path, name):
    proto = onnx.load(path)
    proto.graph.node[1].name = name
    onnx.save(proto, path)


def test_only_large_weights_are_missing(model):
    large, small, mask = skeleton(model).graph.initializer
    assert (large.name, list(large.dims), large.raw_data) == ("large", [64, KEPT_BYTES // 128], b"")
    np.testing.assert_array_equal(numpy_helper.to_array(small), np.ones(3))
    assert numpy_helper.to_array(mask).shape == (100, 64)  # Large, and yet no weight: it may hold fills.


def test_a_file_is_parsed_and_hashed_once_by_whoever_comes_first(model, monkeypatch):
    loaded = load_model(model)
    for name in ("onnx.load", "hashlib.file_digest"):
        monkeypatch.setattr(name, lambda *_, **__: pytest.fail("read twice"))
    assert skeleton(model) is skeleton(model)
    assert digest_model(model) == digest_file(model)
    assert load_model(model).digest == loaded.digest


def test_a_file_that_has_changed_is_read_again(model):
    digest = digest_file(model)
    assert skeleton(model).graph.node[1].name == "copy"
    changed(model, "else")  # As many bytes as before.
    assert skeleton(model).graph.node[1].name == "else"
    assert digest_file(model) != digest


def test_nothing_is_remembered_of_a_file_that_may_change_within_one_tick_of_the_clock(model):
    for name in ("aaaa", "bbbb", "cccc"):
        changed(model, name)
        now = time.time_ns() + 10**9  # Nothing in this test may be slow enough for a tick to pass.
        os.utime(model, ns=(now, now))
        assert skeleton(model).graph.node[1].name == name
        digest = digest_file(model)
        changed(model, "dddd")
        os.utime(model, ns=(now, now))  # What a coarse clock does.
        assert skeleton(model).graph.node[1].name == "dddd"
        assert digest_file(model) != digest
