"""The built-in data: real, complete, in two halves that share nothing, in the form that `datasets` reads."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest

from onnxptq.models import builtin


def test_the_two_files_hold_the_1797_digits_and_share_none(
    digits_train: SimpleNamespace, digits_test: SimpleNamespace
) -> None:
    assert (len(digits_train.ids), len(digits_test.ids)) == (897, 900)
    pixels = np.concatenate([digits_train.pixels, digits_test.pixels])
    assert pixels.shape == (1797, 8, 8)
    assert len({image.tobytes() for image in pixels}) == 1797
    assert {*digits_train.ids, *digits_test.ids} == {f"digit-{i:04d}" for i in range(1797)}


def test_every_digit_has_90_test_images(digits_train: SimpleNamespace, digits_test: SimpleNamespace) -> None:
    assert np.bincount(digits_test.labels).tolist() == [90] * 10
    assert np.bincount(digits_train.labels).min() >= 80


def test_pixels_use_the_whole_8_bit_range_in_17_steps(digits_train: SimpleNamespace) -> None:
    assert np.unique(digits_train.pixels).tolist() == np.rint(np.arange(17) * 255 / 16).tolist()


@pytest.mark.parametrize("path", [builtin("digits").train, builtin("digits").test], ids=lambda path: path.name)
def test_columns_are_those_of_the_datasets_image_format(path: Path) -> None:
    schema = pq.read_schema(path)
    assert str(schema.field("image").type) == "struct<bytes: binary, path: string>"
    assert (str(schema.field("label").type), str(schema.field("id").type)) == ("int64", "string")
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    assert features["image"] == {"_type": "Image"}
    assert features["label"] == {"names": list("0123456789"), "_type": "ClassLabel"}


def test_model_and_data_stay_small() -> None:
    digits = builtin("digits")
    assert digits.train.stat().st_size + digits.test.stat().st_size < 250_000
    assert digits.model.stat().st_size < 300_000


def test_the_attribution_lies_beside_the_data() -> None:
    readme = (builtin("digits").train.parent / "README.md").read_text(encoding="utf-8")
    for words in ("Alpaydin", "Kaynak", "1998", "10.24432/C50P49", "CC BY 4.0", "What was changed"):
        assert words in readme
