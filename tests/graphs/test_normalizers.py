"""Normalizers inside graphs are found in every form that exporters give them, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.graphs import load_model
from onnxptq.graphs.normalizers import input_chains

MEAN = np.array([40, 3, 300], np.float32)
DEVIATION = np.array([12, 4, 250], np.float32)
CONSTANTS = {
    "mean": MEAN,
    "deviation": DEVIATION,
    "gain": 1 / DEVIATION,
    "shift": -MEAN / DEVIATION,
    "negated": -MEAN,
    "row": MEAN[None],
    "gamma": np.full(3, 2, np.float32),
    "beta": np.ones(3, np.float32),
    "variance": DEVIATION**2 - np.float32(1e-5),
    "scalar": np.float32(4),
    "w": np.ones((3, 2), np.float32),
}
FORMS = {
    "Sub and Div": [("Sub", ["x", "mean"]), ("Div", ["_", "deviation"])],
    "Mul and Add": [("Mul", ["gain", "x"]), ("Add", ["_", "shift"])],
    "Add and Mul, a row": [("Identity", ["x"]), ("Sub", ["_", "row"]), ("Mul", ["_", "gain"])],
    "BatchNormalization": [("BatchNormalization", ["x", "gamma", "beta", "mean", "variance"])],
    "Scaler": [("Scaler", ["x"])],
}
OTHERS = {
    "a bias alone": [("Add", ["x", "mean"])],
    "a factor alone": [("Mul", ["x", "gain"])],
    "a square": [("Mul", ["x", "x"])],
    "a constant over the input": [("Sub", ["x", "mean"]), ("Div", ["deviation", "_"])],
    "a Relu between": [("Sub", ["x", "mean"]), ("Relu", ["_"]), ("Div", ["_", "deviation"])],
}


def graph(steps):
    nodes, tensor = [], "x"
    for number, (operator, inputs) in enumerate(steps):
        options = {"domain": "ai.onnx.ml", "offset": MEAN, "scale": 1 / DEVIATION} if operator == "Scaler" else {}
        given = [tensor if name == "_" else name for name in inputs]
        nodes.append(helper.make_node(operator, given, [f"t{number}"], **options))
        tensor = f"t{number}"
    nodes.append(helper.make_node("MatMul", [tensor, "w"], ["y"]))
    used = {name for node in nodes for name in node.input}
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(array, name) for name, array in CONSTANTS.items() if name in used],
    )


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_training_datas_moments(form):
    (chain,) = input_chains(graph(FORMS[form]))
    assert [node.op_type for node in chain.nodes] == [operator for operator, _ in FORMS[form]]
    assert chain.output == f"t{len(FORMS[form]) - 1}"
    np.testing.assert_allclose(chain.normalizer.mean, MEAN, rtol=1e-4)
    np.testing.assert_allclose(chain.normalizer.deviation, DEVIATION, rtol=1e-4)


@pytest.mark.parametrize("what", OTHERS)
def test_what_does_not_standardize_is_no_normalizer(what):
    (chain,) = input_chains(graph(OTHERS[what]))
    assert chain.normalizer is None


def test_channels_keep_their_axis():
    made = graph(FORMS["Sub and Div"][:1])
    made.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, 5, 5]))
    per_channel = numpy_helper.from_array(MEAN.reshape(1, 3, 1, 1), "mean")
    made.initializer[0].CopyFrom(per_channel)
    made.node.insert(1, helper.make_node("Div", ["t0", "four"], ["t1"]))
    made.node[2].input[0] = "t1"
    made.initializer.append(numpy_helper.from_array(np.float32(4), "four"))
    (chain,) = input_chains(made)
    assert (chain.normalizer.axis, chain.normalizer.deviation) == (-3, (4, 4, 4))


def test_a_loaded_model_knows_the_normalizers_of_its_inputs(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(
        helper.make_model(graph(FORMS["Mul and Add"]), opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    (spec,) = load_model(path).signature.inputs
    np.testing.assert_allclose(spec.normalizer.mean, MEAN, rtol=1e-5)
