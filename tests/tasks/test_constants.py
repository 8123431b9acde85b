"""Inputs that hold the same for every sample need not be stored with it."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import onnxptq
from onnxptq.errors import ModelError, UsageError
from onnxptq.inputs import DataOptions
from onnxptq.signature import Signature, TensorSpec
from onnxptq.tasks import make_task

SIGNATURE = Signature(
    inputs=(
        TensorSpec("x", "float32", (None, 4), ("batch", None)),
        TensorSpec("state", "float32", (2, None, 3), (None, "batch", None)),
        TensorSpec("rate", "int64", ()),
    ),
    outputs=(TensorSpec("y", "float32", (None, 3), ("batch", None)),),
)


def task(**constants: Any) -> Any:
    return make_task("tensor", {"constants": constants}, SIGNATURE)


def test_constants_are_fed_beside_the_samples_where_the_model_has_them() -> None:
    made = task(state=0.5, rate=16000)
    assert made.input.columns == ("x",)
    feeds = made.feeds({"x": np.ones((2, 4), np.float32)})
    assert {name: array.shape for name, array in feeds.items()} == {"x": (2, 4), "state": (2, 2, 3), "rate": (2,)}
    fed = made.arrange({name: array[:1] for name, array in feeds.items()})
    assert fed["state"].shape == (2, 1, 3)
    assert (fed["state"] == 0.5).all()
    assert fed["rate"].shape == ()
    assert fed["rate"].dtype == np.int64
    again = make_task(made.name, made.specification, SIGNATURE)
    assert again.specification == made.specification
    assert again.constants[0].sample.tolist() == made.constants[0].sample.tolist()


def test_a_list_has_the_shape_of_one_sample() -> None:
    state = np.arange(6.0).reshape(2, 3)
    fed = task(state=state.tolist(), rate=1).feeds({"x": np.ones((5, 4), np.float32)})["state"]
    np.testing.assert_array_equal(fed, np.repeat(state[None], 5, axis=0))


@pytest.mark.parametrize(
    ("constants", "error", "message"),
    [
        ({"stat": 0}, UsageError, "names the input 'stat', which the model lacks. Did you mean 'state'"),
        ({"state": [[0, 1]], "rate": 1}, UsageError, r"takes \(2, 3\) for one sample, and got \(1, 2\)"),
        ({"state": "zero", "rate": 1}, UsageError, "'zero' is no float32"),
        ({"x": 0, "state": 0, "rate": 0}, ModelError, "name every input of the model"),
    ],
)
def test_what_cannot_be_is_refused(constants: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        task(**constants)


def test_an_open_size_needs_all_numbers() -> None:
    signature = Signature((*SIGNATURE.inputs[:1], TensorSpec("past", "float32", (None, None, 3))), SIGNATURE.outputs)
    with pytest.raises(ModelError, match="nothing says how large it is"):
        make_task("tensor", {"constants": {"past": 0}}, signature)
    made = make_task("tensor", {"constants": {"past": [[1, 2, 3]]}}, signature)
    assert made.feeds({"x": np.ones((2, 4), np.float32)})["past"].shape == (2, 1, 3)


def test_a_model_with_a_constant_state_is_what_it_is_with_the_state_in_the_data(tmp_path: Any) -> None:
    generator = np.random.default_rng(0)
    weights = {"w": generator.standard_normal((4, 3)).astype(np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("ReduceSum", ["state", "axes"], ["s"], keepdims=0),
        helper.make_node("Add", ["h", "s"], ["y"]),
    ]
    floats = TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", floats, ["batch", 4]),
            helper.make_tensor_value_info("state", floats, [2, "batch", 3]),
        ],
        [helper.make_tensor_value_info("y", floats, ["batch", 3])],
        [onnx.numpy_helper.from_array(weights["w"], "w"), onnx.numpy_helper.from_array(np.array([0]), "axes")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    x, label = generator.standard_normal((60, 4)).astype(np.float32), np.arange(60) % 3
    np.savez(tmp_path / "short.npz", x=x, label=label)
    np.savez(tmp_path / "again.npz", x=x + 1, label=label)
    np.savez(tmp_path / "full.npz", x=x, state=np.full((60, 2, 3), 0.25, np.float32), label=label)
    scales = []
    for name, said in (("short.npz", {"constants": {"state": 0.25}}), ("full.npz", {})):
        made = onnxptq.quantize(
            tmp_path / "m.onnx",
            data=str(tmp_path / name),
            calib_size=60,
            evaluate=False,
            output=tmp_path / f"{name}.onnx",
            options=DataOptions(preprocessing=said),
        )
        initializers = onnx.load(made.output).graph.initializer
        scales.append({one.name: onnx.numpy_helper.to_array(one).tolist() for one in initializers})
    assert scales[0] == scales[1]
    judged = onnxptq.evaluate(
        [tmp_path / "short.npz.onnx"], reference=tmp_path / "m.onnx", data=str(tmp_path / "again.npz"), corruptions=[]
    )
    assert judged.reports[0].n == 60
