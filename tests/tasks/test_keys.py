"""Keys of a specification that have another type than a task reads."""

from __future__ import annotations

import json

import pytest

from onnxptq.errors import DataError, UsageError
from onnxptq.tasks import Signature, TensorSpec, find_specification, make_task

SIGNATURE = Signature(
    inputs=(TensorSpec("x", "float32", (None, 3, 8, 8)),), outputs=(TensorSpec("y", "float32", (None, 4)),)
)

WRONG = {
    "input": 5, "output": ["y"], "layout": ["NCHW"], "color": {}, "resize": True, "interpolation": 3, "scores": ["a"],
    "mean": "0.5", "std": {"a": 1}, "size": "8x8", "resize_to": [8, "8"], "length": "64", "max_length": 2.5,
    "scale": "1/255", "classes": "abcd", "shape": {"x": "1,2"}, "inputs": ["ids"], "tokenizer": 5,
}  # fmt: skip


@pytest.mark.parametrize("key", WRONG)
@pytest.mark.parametrize("task", ["image-classification", "tensor-classification", "text-classification"])
def test_a_wrong_type_is_refused_with_file_and_key(tmp_path, key, task):
    (tmp_path / "m.json").write_text(json.dumps({"task": task, key: WRONG[key]}))
    with pytest.raises(DataError, match=rf"m\.json: the key '{key}' must be"):
        find_specification(tmp_path / "m.onnx", {}, {}, SIGNATURE)


@pytest.mark.parametrize(
    ("key", "meant"),
    [("maen", "mean"), ("frontend", "front_end"), ("sample_rat", "sample_rate"), ("input_rnage", "input_range"),
     ("classess", "classes"), ("tolerence", "tolerance"), ("bounds", "input_range")],
)  # fmt: skip
def test_a_misspelt_key_is_refused_with_the_one_that_was_meant(tmp_path, key, meant):
    (tmp_path / "m.json").write_text(json.dumps({key: 1}))
    found = find_specification(tmp_path / "m.onnx", {}, {}, SIGNATURE)
    with pytest.raises(UsageError, match=f"unknown key '{key}' .*Did you mean '{meant}'"):
        make_task(found.task, found.specification, SIGNATURE)


def test_comments_and_what_others_write_are_no_misspelt_keys(tmp_path):
    keys = {"// size": "of training", "_mean": 1, "rescale": "x/255", "author": "me", "name": "net", "license": "MIT"}
    assert make_task("image", keys, SIGNATURE) == make_task("image", {}, SIGNATURE)


def test_metadata_and_flags_are_looked_at_too(tmp_path):
    metadata = {"onnxptq.task": "image-classification", "onnxptq.preprocessing": '{"classes": 4}'}
    with pytest.raises(DataError, match="the model's metadata: the key 'classes' must be a list"):
        find_specification(tmp_path / "m.onnx", metadata, {}, SIGNATURE)
    with pytest.raises(DataError, match="the key 'mean' must be"):
        find_specification(tmp_path / "m.onnx", {}, {"mean": [float("nan")]}, SIGNATURE)


def test_a_task_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "m.json").write_text('{"task": 5, "size": 8}')
    with pytest.raises(DataError, match="'task' must be a text"):
        find_specification(tmp_path / "m.onnx", {}, {}, SIGNATURE)


@pytest.mark.parametrize(
    "config", [{"image_mean": 0.5}, {"image_std": ["a"]}, {"rescale_factor": "1"}, {"crop_pct": 0, "size": 8}]
)
def test_wrong_types_of_hugging_face_are_refused_by_key(tmp_path, config):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, **config}))
    from onnxptq.errors import UsageError

    with pytest.raises(UsageError, match=next(iter(config))):
        find_specification(tmp_path / "m.onnx", {}, {}, SIGNATURE)
