"""Truth that no answer could be judged by is told before anything runs, so that it can be left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxptq.cache import Cache
from onnxptq.errors import DataError
from onnxptq.evaluation import EvaluationSamples
from onnxptq.graphs import load_model
from onnxptq.heads import HEADS
from onnxptq.inputs import DataOptions, resolve_for_evaluation
from onnxptq.signature import Signature, TensorSpec


def head(name: str, shape: tuple[int | None, ...], **specification: Any) -> Any:
    inputs = (TensorSpec("x", "float32", (None, 3, 8, 8)),)
    return HEADS.get(name).build(specification, Signature(inputs, (TensorSpec("y", "float32", shape),)))


CASES = {
    "detection": (
        head("detection", (None, 6, 21), decoder="yolov8", classes=["a", "b"], size=[8, 8]),
        {"box_classes": ["a", "b"]}, {"box_classes": ["a", "alien"]}, "'alien', which the model lacks",
    ),
    "segmentation": (
        head("segmentation", (None, 2, 8, 8), classes=["a", "b"]),
        {"mask": np.ones((8, 8), np.uint8)}, {"mask": np.full((8, 8), 7, np.uint8)}, "a mask has the class 7",
    ),
    "sequence": (
        head("sequence", (None, 5, 3), vocabulary=["-", "a", "b"]),
        {"text": "ab"}, {"text": 5}, "expected the true text",
    ),
    "regression": (
        head("regression", (None, 1), error_scale=2), {"target": 5}, {"target": "five"}, "no number",
    ),
    "multilabel": (
        head("multilabel", (None, 2), classes=["a", "b"]), {"labels": ["a"]}, {"labels": ["q"]}, "class 'q'",
    ),
    "token-classification": (
        head("token-classification", (None, None, 2), classes=["O", "B-x"]),
        {"tags": ["O", "B-x"]}, {"tags": ["O", "B-y"]}, "expected a class a token",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_truth_that_cannot_be_judged_is_named_and_a_good_or_missing_one_is_not(name: str) -> None:
    made, good, bad, message = CASES[name]
    made.check_truth(good)
    made.check_truth({})
    made.check_truth(dict.fromkeys(good))
    with pytest.raises(DataError, match=message):
        made.check_truth(bad)


def test_such_rows_are_left_out_and_counted_with_skip_bad(save: Any, tmp_path: Any) -> None:
    model = save(
        [("MatMul", ["x", "w"], ["y"], {})], [("x", ["N", 2])], [("y", ["N", 1])], {"w": np.ones((2, 1), np.float32)}
    )
    table = tmp_path / "t.jsonl"
    table.write_text('{"x": [1.0, 2.0], "target": "3"}\n{"x": [1.0, 4.0], "target": "much"}\n')
    options = DataOptions(data=str(table), head="regression", skip_bad=True, preprocessing={"error_scale": 5})
    dataset, _, notes = resolve_for_evaluation([load_model(model)], options, Cache(tmp_path / "cache"))
    assert len(dataset) == 1
    assert any("left out 1 bad samples" in note and "'much', which is no number" in note for note in notes)


@pytest.mark.parametrize(("second", "labelled"), [("3", True), ("null", False)])
def test_truth_in_any_sample_makes_the_data_one_with_truth(
    save: Any, tmp_path: Any, second: str, labelled: bool
) -> None:
    model = save([("Relu", ["x"], ["y"], {})], [("x", ["N", 1])], [("y", ["N", 1])], {})
    table = tmp_path / "t.jsonl"
    table.write_text(f'{{"x": [1.0], "target": null}}\n{{"x": [2.0], "target": {second}}}\n')
    options = DataOptions(data=str(table), head="regression", preprocessing={"error_scale": 5})
    dataset, task, _ = resolve_for_evaluation([load_model(model)], options, Cache(tmp_path / "cache"))
    assert EvaluationSamples(task, dataset, ("clean",)).labelled is labelled
