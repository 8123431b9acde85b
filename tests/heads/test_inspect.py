"""`inspect` and `tasks`: what a stranger sees first."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

from onnxptq.commands.tasks import _heads, _inputs
from onnxptq.data import Columns
from onnxptq.errors import OutputError, UsageError
from onnxptq.heads import HEADS
from onnxptq.inputs import DataOptions
from onnxptq.inspection import described, inspect, write_specification
from onnxptq.models import builtin
from onnxptq.tasks import INPUTS

W = np.random.default_rng(0).standard_normal((8, 3)).astype(np.float32)


def test_the_builtin_model_says_all_of_itself():
    found = inspect(builtin().model)
    assert (found.task, found.head, found.judged) == ("image-classification", "classification", ("logits",))
    assert found.quantized["Conv"] == 7
    assert found.missing == ()
    assert json.loads(json.dumps(found.to_dict()))["inputs"][0]["shape"][1:] == [1, 8, 8]


def test_what_nobody_explained_is_raw_and_the_screen_says_what_helps(save):
    nodes = [("MatMul", ["x", "w"], ["y"], {}), ("Sin", ["y"], ["z"], {})]
    model = save(nodes, [("x", ["N", 8])], [("z", ["N", 3])], {"w": W})
    found = inspect(model)
    assert (found.task, found.head, found.judged) == ("tensor", "raw", ("z",))
    assert (found.quantized, found.stays_float) == ({"MatMul": 1}, {"Sin": 1})
    assert any("--head" in line for line in found.missing)
    assert described(found.inputs[0]) == "x float32 (N, 8)"
    named = inspect(model, DataOptions(head="classification"))
    assert (named.task, named.judged) == ("tensor-classification", ("z",))


def test_a_softmax_at_the_end_says_that_it_is_a_classifier(save):
    nodes = [("MatMul", ["x", "w"], ["y"], {}), ("Softmax", ["y"], ["p"], {"axis": 1})]
    model = save(nodes, [("x", ["N", 8])], [("p", ["N", 3])], {"w": W})
    assert (inspect(model).head, inspect(model).why) == (
        "classification",
        "output p is (N, 3) and comes from a Softmax",
    )
    two = save(nodes, [("x", ["N", 8])], [("p", ["N", 3]), ("y", ["N", 3])], {"w": W}, "two.onnx")
    assert inspect(two).head == "raw"  # Which of the two is meant is a guess.
    ids = save(
        [("Cast", ["x"], ["y"], {"to": TensorProto.INT64})], [("x", ["N", 8])], [("y", ["N", 8], 7)], {}, "i.onnx"
    )
    assert inspect(ids).quantized == {}


def test_the_specification_that_is_written_is_the_one_that_is_read(save):
    model = save([("MatMul", ["x", "w"], ["y"], {})], [("x", ["N", 8])], [("y", ["N", 3])], {"w": W})
    named = inspect(model, DataOptions(head="classification", preprocessing={"classes": ["a", "b", "c"]}))
    path = write_specification(named)
    again = inspect(model)
    assert (again.task, again.classes, again.missing) == ("tensor-classification", ("a", "b", "c"), ())
    assert again.specification == named.specification
    with pytest.raises(OutputError, match="never replaced"):
        write_specification(again)
    path.unlink()


def test_the_data_proposes_the_columns_of_a_model_that_nobody_described(save, tmp_path):
    model = save([("MatMul", ["x", "w"], ["y"], {})], [("x", ["N", 8])], [("y", ["N", 3])], {"w": W})
    assert any("--label-column" in line for line in inspect(model).missing)
    table = tmp_path / "t.csv"
    table.write_text(",".join([*"abcdefgh", "kind"]) + "\n" + "\n".join("0.5," * 8 + name for name in "pqr"))
    found = inspect(model, DataOptions(data=str(table), columns=Columns(label="kind")))
    assert (found.task, found.classes) == ("table-classification", ("p", "q", "r"))
    assert found.specification["columns"] == {"x": list("abcdefgh")}


@pytest.mark.parametrize("text", ['{"maen": [0.5]}', '{"task": "tensor", "head": "clasification"}', '{"output": "q"}'])
def test_a_specification_that_is_wrong_is_an_error(save, text):
    model = save([("MatMul", ["x", "w"], ["y"], {})], [("x", ["N", 8])], [("y", ["N", 3])], {"w": W})
    model.with_suffix(".json").write_text(text)
    with pytest.raises(UsageError):
        inspect(model)


def test_the_post_processing_of_a_detector_is_named(save):
    weights = {"b": np.ones((4, 3, 1, 1), np.float32), "s": np.ones((2, 3, 1, 1), np.float32)}
    nodes = [
        ("Conv", ["x", "b"], ["boxes"], {}),
        ("Conv", ["x", "s"], ["logits"], {}),
        ("Sigmoid", ["logits"], ["scores"], {}),
        ("Concat", ["boxes", "scores"], ["y"], {"axis": 1}),
    ]
    found = inspect(save(nodes, [("x", ["N", 3, 8, 8])], [("y", ["N", 6, 8, 8])], weights))
    assert found.quantized == {"Conv": 2}
    assert any("post-processing behind the last weights stays in float (2 nodes" in note for note in found.notes)


def test_tasks_lists_every_input_and_head():
    assert [row["name"] for row in _inputs()] == INPUTS.names()
    heads = {row["name"]: row for row in _heads()}
    assert list(heads) == HEADS.names()
    assert heads["classification"]["judged by"] == ["accuracy"]
    assert heads["raw"]["without truth"] == "fidelity"
