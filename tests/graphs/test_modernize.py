"""Old models come out in today's form, compute the same, and the user is told."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.graphs import fold, load_model
from onnxptq.graphs.modernize import OPSET, modernization_notes, modernized
from onnxptq.runtimes import open_session

IR = {7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 8, 17: 8}
value = helper.make_tensor_value_info


def save(path, opset, *, listed=None, metadata=None):
    """Conv, BatchNormalization, Clip or Relu, Upsample where the opset has it, pooling, Gemm."""
    rng = np.random.default_rng(0)
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "g": (6,), "b": (6,), "m": (6,), "w2": (4, 6), "b2": (4,)}
    weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32) * 0.5, n) for n, s in shapes.items()]
    weights.append(numpy_helper.from_array(np.full(6, 0.5, np.float32), "v"))
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], "conv", pads=[1] * 4),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"], "norm"),
        helper.make_node("Clip", ["n"], ["r"], "clip", min=0.0, max=2.0)
        if opset < 11
        else helper.make_node("Relu", ["n"], ["r"], "relu"),
    ]
    last = "r"
    if opset in (7, 8):
        nodes.append(helper.make_node("Upsample", ["r"], ["u"], "up", mode="nearest", scales=[1.0, 1.0, 2.0, 2.0]))
        last = "u"
    nodes += [
        helper.make_node("GlobalAveragePool", [last], ["p"], "pool"),
        helper.make_node("Flatten", ["p"], ["f"], "flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], "head", transB=1),
    ]
    inputs = [value("x", TensorProto.FLOAT, ["N", 3, 6, 6])]
    if IR[opset] < 4 if listed is None else listed:
        inputs += [value(t.name, TensorProto.FLOAT, list(t.dims)) for t in weights]
    graph = helper.make_graph(nodes, "old", inputs, [value("y", TensorProto.FLOAT, ["N", 4])], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=IR[opset])
    helper.set_model_props(model, metadata or {})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return path


FEEDS = {"x": np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32)}


@pytest.mark.parametrize("opset", [7, 8, 9, 10, 11, 12])
def test_an_old_model_is_converted_computes_the_same_and_is_said_to_be_old(tmp_path, opset):
    path = save(tmp_path / "old.onnx", opset, metadata={"author": "me"})
    folded = fold(load_model(path), Cache(tmp_path / "room"))
    model = load_model(folded)
    assert model.opset == OPSET
    assert model.metadata["author"] == "me"
    assert [s.name for s in model.signature.inputs] == ["x"]
    operators = [node.op_type for node in onnx.load(folded).graph.node]
    assert "BatchNormalization" not in operators and "Upsample" not in operators
    np.testing.assert_allclose(
        open_session(folded).run(FEEDS)[0], open_session(path).run(FEEDS)[0], rtol=1e-4, atol=1e-5
    )
    assert modernization_notes(path) == (
        f"old.onnx is of opset {opset}; it was converted to opset 13, which INT8 weights of one scale a channel need.",
    )


@pytest.mark.parametrize("opset", [13, 17])
def test_a_model_of_today_is_left_as_it_is(tmp_path, opset):
    path = save(tmp_path / "new.onnx", opset)
    assert modernized(path, tmp_path) == path
    assert modernization_notes(path) == ()


def test_weights_listed_as_inputs_become_constants_so_that_they_can_be_folded(tmp_path):
    path = save(tmp_path / "listed.onnx", 17, listed=True)
    (note,) = modernization_notes(path)
    assert "lists 8 of its weights as inputs; they are constants of the INT8 model" in note
    folded = fold(load_model(path), Cache(tmp_path / "room"))
    graph = onnx.load(folded).graph
    assert [v.name for v in graph.input] == ["x"]
    assert "BatchNormalization" not in [node.op_type for node in graph.node]
    np.testing.assert_allclose(
        open_session(folded).run(FEEDS)[0], open_session(path).run(FEEDS)[0], rtol=1e-4, atol=1e-5
    )


def test_what_cannot_be_converted_is_said(tmp_path):
    model = onnx.load(save(tmp_path / "old.onnx", 9))
    model.graph.node[2].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / "odd.onnx")
    with pytest.raises(
        ModelError, match=r"opset 9 and cannot be converted to opset 13: .*Export it again with opset 13"
    ):
        modernized(tmp_path / "odd.onnx", tmp_path)
