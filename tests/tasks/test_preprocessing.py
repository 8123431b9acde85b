"""Where the preprocessing of a model is found, and that importing the rooms costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxptq.errors import DataError, UsageError
from onnxptq.tasks import Preprocessing, Signature, TensorSpec, find_specification
from onnxptq.tasks.image_input import build

IMAGES = Signature((TensorSpec("x", "float32", (None, 3, None, None)),), (TensorSpec("y", "float32", (None, 2)),))
TENSORS = Signature((TensorSpec("x", "float32", (None, 16)),), (TensorSpec("y", "float32", (None, 2)),))

METADATA = {"onnxptq.task": "image-classification", "onnxptq.preprocessing": '{"mean": [0.1, 0.2, 0.3]}'}


def find(folder: Path, metadata: dict[str, str] | None = None, made: Signature = IMAGES, **flags: Any) -> Preprocessing:
    return find_specification(folder / "model.onnx", metadata or {}, flags, made)


def hugging_face(folder: Path, config: dict[str, Any], names: dict[str, str] | None = None) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    if names:
        (folder / "config.json").write_text(json.dumps({"id2label": names}))
    return find(folder).specification


def test_the_models_own_metadata_comes_first(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"task": "image-classification", "mean": [0.9, 0.9, 0.9]}')
    found = find(tmp_path, METADATA)
    assert (found.task, found.specification) == ("image-classification", {"mean": [0.1, 0.2, 0.3]})
    assert found.where == "the model's metadata"
    assert found.warning is None


def test_a_json_file_of_the_same_name_comes_next(tmp_path: Path) -> None:
    hugging_face(tmp_path, {"size": 7})
    (tmp_path / "model.json").write_text('{"task": "image-classification", "size": [8, 8], "accuracy": 0.9}')
    found = find(tmp_path)
    assert found.specification == {"size": [8, 8], "accuracy": 0.9}
    assert found.where.endswith("model.json")


@pytest.mark.parametrize(
    "said",
    [{"head": "regression", "error_scale": 5}, {"decoding": "ctc"}, {"vocabulary": ["", "a"]}, {"error_scale": 2}],
)
def test_a_json_file_that_speaks_of_the_head_alone_leaves_the_input_to_the_signature(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    (tmp_path / "model.json").write_text(json.dumps(said))
    assert (find(tmp_path, made=TENSORS).task, find(tmp_path, made=IMAGES).task) == ("tensor", "image")
    assert find(tmp_path, made=TENSORS).specification == said


def test_a_json_file_that_speaks_of_images_means_images_whatever_the_signature(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"mean": [0.5, 0.5, 0.5]}')
    assert find(tmp_path, made=TENSORS).task == "image"


def test_a_json_file_about_something_else_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text('{"author": "me"}')
    assert find(tmp_path).where == "the model's signature"


def test_flags_override_single_fields(tmp_path: Path) -> None:
    found = find(tmp_path, METADATA, scores="logits", mean=None, task="tensor-classification")
    assert found.specification == {"mean": [0.1, 0.2, 0.3], "scores": "logits"}
    assert found.task == "tensor-classification"
    assert "changed by flags" in found.where


@pytest.mark.parametrize("task", ["tensor-classification", "text-classification"])
def test_flags_about_images_are_refused_where_there_are_none(tmp_path: Path, task: str) -> None:
    with pytest.raises(UsageError, match=rf"size and mean are about images.*{task}.*Leave out --size, --mean"):
        find(tmp_path, made=TENSORS, task=task, size=[8, 8], mean=[0.5])


def test_a_size_given_as_a_flag_replaces_the_whole_resizing(tmp_path: Path) -> None:
    hugging_face(tmp_path, {"do_resize": True, "size": {"height": 256, "width": 256}})
    specification = find(tmp_path, size=[300, 300]).specification
    assert build(specification, IMAGES).specification["resize_to"] == [300, 300]


@pytest.mark.parametrize("metadata", [{"onnxptq.preprocessing": "{"}, {"onnxptq.preprocessing": "[]"}])
def test_metadata_that_is_no_json_object_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    with pytest.raises(DataError, match=r"the metadata onnxptq\.preprocessing of the model"):
        find(tmp_path, metadata)


def test_a_broken_file_beside_the_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.json").write_bytes(b"{bad")
    with pytest.raises(DataError, match=r"model\.json is not JSON"):
        find(tmp_path)
    (tmp_path / "model.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"model\.json cannot be read"):
        find(tmp_path)


def test_nothing_at_all_means_pixels_over_255_with_a_warning(tmp_path: Path) -> None:
    found = find(tmp_path)
    assert (found.task, found.specification) == ("image", {"size": [224, 224]})
    assert "divided by 255" in str(found.warning)
    assert "224 x 224 was taken" in str(found.warning)
    assert find(tmp_path, mean=[0.5], size=[32, 32]).warning is None
    assert find(tmp_path, shape={"x": [1, 3, 64, 32]}).specification["size"] == [64, 32]


def test_nothing_at_all_means_tensors_where_the_input_is_no_image(tmp_path: Path) -> None:
    found = find(tmp_path, made=TENSORS)
    assert (found.task, found.warning) == ("tensor", None)


# Hugging Face


def test_vit_stretches_and_normalises(tmp_path: Path) -> None:
    config = {
        "do_resize": True,
        "size": {"height": 224, "width": 200},
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.5] * 3,
        "image_std": [0.25] * 3,
    }
    found = hugging_face(tmp_path, config, {"1": "dog", "0": "cat"})
    made = build(found, IMAGES).specification
    assert made["size"] == [224, 200]
    assert made["resize"] == "stretch"
    assert made["interpolation"] == "bilinear"
    assert made["mean"] == [0.5] * 3
    assert made["std"] == [0.25] * 3
    assert found["classes"] == ["cat", "dog"]


def test_clip_resizes_the_shortest_edge_and_crops(tmp_path: Path) -> None:
    config = {"do_resize": True, "size": {"shortest_edge": 256}, "do_center_crop": True,
              "crop_size": {"height": 224, "width": 224}, "resample": 3}  # fmt: skip
    made = build(hugging_face(tmp_path, config), IMAGES).specification
    assert (made["resize"], made["resize_to"], made["size"]) == ("shortest", [256, 256], [224, 224])
    assert made["interpolation"] == "bicubic"
    old = {**config, "size": 256, "crop_size": 224, "feature_extractor_type": "CLIPFeatureExtractor"}
    assert build(hugging_face(tmp_path / "old", old), IMAGES).specification == made


def test_deit_stretches_then_crops(tmp_path: Path) -> None:
    config = {"image_processor_type": "DeiTImageProcessor", "do_resize": True, "size": 256, "do_center_crop": True,
              "crop_size": 224}  # fmt: skip
    made = build(hugging_face(tmp_path, config), IMAGES).specification
    assert (made["resize"], made["resize_to"], made["size"]) == ("stretch", [256, 256], [224, 224])


@pytest.mark.parametrize(
    ("edge", "expected"), [(224, ("shortest", [256, 256], [224, 224])), (384, ("stretch", [384, 384], [384, 384]))]
)
def test_convnext_crops_below_384_and_stretches_from_there(tmp_path: Path, edge: int, expected: Any) -> None:
    config = {"do_resize": True, "size": {"shortest_edge": edge}, "crop_pct": 0.875}
    made = build(hugging_face(tmp_path, config), IMAGES).specification
    assert (made["resize"], made["resize_to"], made["size"]) == expected


def test_no_resizing_keeps_the_images(tmp_path: Path) -> None:
    config = {"do_resize": False, "do_center_crop": True, "crop_size": 24}
    made = build(hugging_face(tmp_path, config), IMAGES).specification
    assert (made["resize"], made["size"]) == ("none", [24, 24])


@pytest.mark.parametrize(
    ("config", "black", "white"),
    [
        ({"do_rescale": False, "do_normalize": True, "image_mean": [127.5] * 3, "image_std": [127.5] * 3}, -1, 1),
        ({"do_rescale": True, "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False}, -1, 1),
        ({"do_rescale": True, "do_normalize": False, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, 0, 1),
        ({"do_rescale": False, "do_normalize": False}, 0, 255),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, -1, 1),
    ],
)
def test_black_and_white_are_fed_as_the_processor_would(
    tmp_path: Path, config: dict[str, Any], black: float, white: float
) -> None:
    made = build(hugging_face(tmp_path, {"size": 2, **config}), IMAGES)
    np.testing.assert_allclose(made.input_range(), (black, white), atol=1e-6)


def test_channels_are_flipped_where_the_processor_flips_them(tmp_path: Path) -> None:
    assert hugging_face(tmp_path, {"size": 2, "do_flip_channel_order": True})["color"] == "BGR"


def test_the_configuration_of_another_kind_of_input_is_passed_over(tmp_path: Path) -> None:
    audio = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "do_normalize": True, "sampling_rate": 16000}
    hugging_face(tmp_path, audio)
    assert find(tmp_path, made=TENSORS).task == "tensor"


def test_a_size_of_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"longest_edge.*give --size"):
        hugging_face(tmp_path, {"do_resize": True, "size": {"longest_edge": 2}})


def test_the_configuration_above_an_onnx_folder_is_found(tmp_path: Path) -> None:
    hugging_face(tmp_path, {"size": 2}, {"0": "a", "1": "b"})
    (tmp_path / "onnx").mkdir()
    assert find(tmp_path / "onnx").specification["classes"] == ["a", "b"]


def test_importing_data_and_tasks_imports_nothing_heavy() -> None:
    code = (
        "import sys, onnxptq.data, onnxptq.tasks\n"
        "print(sorted({'datasets', 'pyarrow', 'PIL', 'onnxruntime', 'onnx', 'pandas'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
