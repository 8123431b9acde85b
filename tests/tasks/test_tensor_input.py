"""Tensors: fed as they are stored, after their shapes and values were checked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.tasks import Signature, TensorSpec, make_task
from onnxptq.tasks.tensor_input import NOISE_LENGTH, NOISE_SIDE, TensorInput, build

OUTPUT = TensorSpec("y", "float32", (None, 3))


def task(*inputs: TensorSpec, **specification: Any) -> TensorInput:
    return build(specification, Signature(inputs or (TensorSpec("x", "float32", (None, 2)),), (OUTPUT,)))


def row(name: str = "row 0", **columns: Any) -> dict[str, Any]:
    return {"_name": name, **columns}


def test_a_single_column_feeds_a_single_input_whatever_it_is_called() -> None:
    made = task()
    batch = made.load([row(a=np.array([1.0, 2.0])), row(a=np.array([3, 4], np.uint8))])
    feeds = made.feeds(batch)
    assert list(feeds) == ["x"]
    assert feeds["x"].dtype == np.float32
    assert feeds["x"].tolist() == [[1, 2], [3, 4]]


def test_several_columns_feed_the_inputs_of_their_names() -> None:
    made = task(TensorSpec("ids", "int64", (None, None)), TensorSpec("mask", "bool", (None, None)))
    batch = made.load([row(mask=np.array([1, 0]), ids=np.array([7, 8], np.int32), extra=np.zeros(9))])
    assert batch["ids"].dtype == np.int64
    assert batch["ids"].tolist() == [[7, 8]]
    assert batch["mask"].tolist() == [[True, False]]
    with pytest.raises(DataError, match=r"row 0 has no column for the input 'mask', but ids"):
        made.load([row(ids=np.array([7, 8]))])


def test_a_shape_that_does_not_fit_is_refused_with_both_shapes() -> None:
    with pytest.raises(DataError, match=r"row 5 has shape \(3,\), but the input 'x' takes \(N, 2\), that is \(2\)"):
        task().load([row("row 5", x=np.zeros(3))])


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float32", [np.nan, 0], "row 0 holds NaN in the input 'x'"),
        ("float32", [np.inf, 0], "row 0 holds infinity"),
        ("float32", [1e300, 0], "values from 0.0 to 1e\\+300; the input 'x' is float32"),
        ("int64", [0.5, 1.0], "row 0 is float64, but the input 'x' takes int64"),
        ("int32", [2**40, 0], "the input 'x' is int32"),
        ("uint8", [-1, 0], "values from -1 to 0"),
        ("bool", [2, 0], "the input 'x' is bool"),
        ("float32", ["a", "b"], "takes float32"),
    ],
)
def test_values_that_the_model_cannot_hold_are_refused(dtype: str, value: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        task(TensorSpec("x", dtype, (None, 2))).load([row(x=np.array(value))])


def test_text_is_not_a_tensor() -> None:
    with pytest.raises(DataError, match=r"row 0 is text, and nothing says how the model reads text.*tokenizer"):
        task().load([row(x="hello")])


def test_predictions_come_from_the_first_table() -> None:
    outputs = (TensorSpec("hidden", "float32", (None, 4, 8)), OUTPUT)
    signature = Signature((TensorSpec("x", "float32", (None, 2)),), outputs)
    made = make_task("tensor-classification", {"classes": ["a", "b", "c"]}, signature)
    scores = made.head.answers([np.zeros((2, 4, 8)), np.array([[0, 1, 5], [3, 1, 1]])])
    assert scores.prediction.tolist() == [2, 0]
    assert scores.margin.tolist() == [4, 2]
    assert made.classes == ("a", "b", "c")


def test_the_specification_rebuilds_the_task() -> None:
    dynamic = TensorSpec("x", "float32", (None, None, 4))
    made = task(dynamic, shape={"x": [None, 6, None]})
    assert made.inputs[0].shape == (None, 6, 4)
    assert build(made.specification, Signature((dynamic,), (OUTPUT,))) == made


def test_noise_is_normal_for_floats_and_binary_for_integers() -> None:
    made = task(TensorSpec("x", "float32", (None, 1000)), TensorSpec("ids", "int64", (None, 1000)))
    noise = made.noise(4, seed=0)
    assert noise["x"].shape == (4, 1000)
    assert noise["x"].dtype == np.float32
    assert abs(noise["x"].mean()) < 0.1
    assert abs(noise["x"].std() - 1) < 0.1
    assert noise["ids"].dtype == np.int64
    assert set(np.unique(noise["ids"])) == {0, 1}
    np.testing.assert_array_equal(noise["x"], made.noise(4, seed=0)["x"])


def test_noise_has_a_default_size_where_nothing_fixes_one() -> None:
    dynamic = TensorSpec("x", "float32", (None, None))
    assert task(dynamic).noise(2, seed=0)["x"].shape == (2, NOISE_LENGTH)
    image = TensorSpec("x", "float32", (None, 3, None, None))
    assert task(image).noise(2, seed=0)["x"].shape == (2, 3, NOISE_SIDE, NOISE_SIDE)
    ids, mask = (TensorSpec(n, "int64", (None, None), ("N", "L")) for n in ("ids", "mask"))
    made = task(ids, mask, shape={"ids": [None, 7]}).noise(2, seed=0)
    assert made["ids"].shape == made["mask"].shape == (2, 7)  # One name is one size.
    assert task(dynamic, shape={"x": [None, 5]}).noise(2, seed=0)["x"].shape == (2, 5)


def test_types_that_numpy_does_not_know_are_refused() -> None:
    with pytest.raises(ModelError, match="'x' is unknown; expected floats"):
        task(TensorSpec("x", "unknown", (None, 2)))


def test_text_and_wide_floats_are_inputs_too() -> None:
    made = task(TensorSpec("s", "object", (None, 1)), TensorSpec("d", "float64", (None, 2)))
    batch = made.load([row(s=np.array(["a"]), d=np.array([1.0, 2.0]))])
    assert (batch["s"].dtype, batch["d"].dtype) == (np.dtype(object), np.dtype("float64"))
    assert made.noise(3, seed=0)["s"].shape == (3, 1)


def test_a_state_and_a_rate_lie_where_the_model_has_them() -> None:
    state = TensorSpec("state", "float32", (2, None, 4), (None, "N", None))
    made = task(TensorSpec("x", "float32", (None, 3), ("N", None)), state, TensorSpec("rate", "int64", ()))
    batch = made.load([row(x=np.zeros(3), state=np.full((2, 4), i), rate=np.int64(16000)) for i in range(5)])
    feeds = made.feeds(batch)
    assert (feeds["state"].shape, feeds["rate"].shape) == ((5, 2, 4), (5,))
    fed = made.arrange({name: array[3:4] for name, array in feeds.items()})
    assert (fed["x"].shape, fed["state"].shape, fed["rate"].shape) == ((1, 3), (2, 1, 4), ())
    assert fed["state"].max() == 3


def test_wrong_shapes_in_the_specification_are_refused() -> None:
    with pytest.raises(ModelError, match=r"shape \(N, 2\), but the preprocessing says \(N, 3\)"):
        task(shape={"x": [None, 3]})
    with pytest.raises(UsageError, match="no input 'z'"):
        task(shape={"z": [None, 3]})


def test_shifts_fit_floats_only_and_images_not_at_all() -> None:
    floats, integers = task(), task(TensorSpec("ids", "int64", (None, 2)))
    assert floats.evaluation_shifts() == ("tensor_noise@3",)
    assert integers.evaluation_shifts() == ()
    assert "image samples" in str(floats.fits("fog"))


def test_the_task_is_registered() -> None:
    assert make_task("tensor-classification", {}, Signature(task().inputs, (OUTPUT,))).input == task()
