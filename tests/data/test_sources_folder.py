"""Folders of images, what is said about bad ones, and paths that do not exist."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnxptq.data import fingerprint, open_source
from onnxptq.errors import DataError


def png(path: Path, value: int = 0, size: int = 4) -> Path:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size, size, 3), value, np.uint8)).save(path)
    return path


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    for i in range(3):
        png(tmp_path / "pets" / "cat" / f"{i}.png", i)
    for i in range(2):
        png(tmp_path / "pets" / "dog" / "young" / f"{i}.png", 100 + i)
    return tmp_path / "pets"


def test_a_folder_of_images_is_labelled_by_its_sub_folders(pets: Path, tmp_path: Path) -> None:
    dataset = open_source(str(pets), cache=tmp_path / "cache").splits[""]
    assert dataset.label_names == ("cat", "dog")
    assert dataset.labels is not None
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1]
    assert dataset.attributes["label"].tolist() == ["cat"] * 3 + ["dog"] * 2
    assert dataset.split is None


def test_rows_are_the_bytes_of_the_files_in_the_order_asked_for(pets: Path, tmp_path: Path) -> None:
    dataset = open_source(str(pets), cache=tmp_path / "cache").splits[""]
    rows = dataset.read(np.array([4, 0]))
    assert [row["_name"] for row in rows] == ["dog/young/1.png", "cat/0.png"]
    assert rows[0]["image"] == (pets / "dog" / "young" / "1.png").read_bytes()
    assert dataset.fingerprints[4] == fingerprint(rows[0])


def test_equal_images_have_equal_fingerprints_and_different_ones_do_not(pets: Path, tmp_path: Path) -> None:
    png(pets / "dog" / "copy.png", 0)
    fingerprints = open_source(str(pets), cache=tmp_path / "cache").splits[""].fingerprints.tolist()
    assert len(fingerprints) == 6
    assert len(set(fingerprints)) == 5
    assert all(len(digest) == 32 for digest in fingerprints)


def test_train_and_test_folders_become_splits_with_common_classes(tmp_path: Path) -> None:
    png(tmp_path / "d" / "train" / "b" / "0.png", 0)
    png(tmp_path / "d" / "train" / "a" / "0.png", 1)
    png(tmp_path / "d" / "val" / "b" / "0.png", 2)
    source = open_source(str(tmp_path / "d"), cache=tmp_path / "cache")
    assert set(source.splits) == {"train", "validation"}
    assert source.splits["validation"].label_names == ("a", "b")
    assert source.splits["validation"].attributes["label"].tolist() == ["b"]


def test_a_flat_folder_of_images_has_no_labels(tmp_path: Path) -> None:
    png(tmp_path / "flat" / "0.png")
    dataset = open_source(str(tmp_path / "flat"), cache=tmp_path / "cache").splits[""]
    assert dataset.labels is None
    assert "label" not in dataset.attributes


def test_a_class_folder_without_an_image_is_refused(pets: Path, tmp_path: Path) -> None:
    (pets / "bird").mkdir()
    (pets / "bird" / "notes.txt").write_text("none yet")
    with pytest.raises(DataError, match=r"bird has no image"):
        open_source(str(pets), cache=tmp_path / "cache")


def test_images_beside_class_folders_are_refused(pets: Path, tmp_path: Path) -> None:
    png(pets / "stray.png")
    with pytest.raises(DataError, match=r"stray\.png beside class folders"):
        open_source(str(pets), cache=tmp_path / "cache")


def test_an_empty_folder_is_refused_with_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"has no data: expected a folder of images"):
        open_source(str(tmp_path / "empty"), cache=tmp_path / "cache")


def test_a_table_that_is_not_called_metadata_does_not_hide_the_images(pets: Path, tmp_path: Path) -> None:
    (pets / "classes.json").write_text('{"cat": 0}')
    assert len(open_source(str(pets), cache=tmp_path / "cache").splits[""]) == 5


def test_skip_bad_leaves_corrupt_images_out_and_names_them(pets: Path, tmp_path: Path) -> None:
    (pets / "cat" / "1.png").write_bytes(b"not an image")
    whole = png(pets / "dog" / "cut.png", 7, size=64).read_bytes()
    (pets / "dog" / "cut.png").write_bytes(whole[: len(whole) // 2])
    source = open_source(str(pets), cache=tmp_path / "cache", skip_bad=True)
    assert [line.split(": ")[1] for line in source.skipped] == ["cat/1.png", "dog/cut.png"]
    dataset = source.splits[""]
    assert dataset.attributes["label"].tolist() == ["cat", "cat", "dog", "dog"]
    assert [row["_name"] for row in dataset.read(np.array([1]))] == ["cat/2.png"]


def test_a_source_of_bad_images_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad" / "cat").mkdir(parents=True)
    (tmp_path / "bad" / "cat" / "0.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"no usable sample: all 1 are bad.*0\.png"):
        open_source(str(tmp_path / "bad"), cache=tmp_path / "cache", skip_bad=True)


def test_a_mistyped_path_is_answered_with_the_nearest_name(pets: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there is no data .*pest\. Did you mean 'pets'"):
        open_source(str(tmp_path / "pest"), cache=tmp_path / "cache")


def test_a_path_in_a_missing_folder_says_that_the_folder_is_missing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"There is no folder .*nowhere either"):
        open_source(str(tmp_path / "nowhere" / "x.csv"), cache=tmp_path / "cache")


@pytest.mark.parametrize(("name", "message"), [("a.png", "one image"), ("a.txt", "no known kind")])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / name), cache=tmp_path / "cache")


def test_the_digest_changes_with_an_image_and_with_a_label(pets: Path, tmp_path: Path) -> None:
    before = open_source(str(pets), cache=tmp_path / "cache").digest
    assert open_source(str(pets), cache=tmp_path / "cache").digest == before
    (pets / "cat" / "0.png").rename(pets / "dog" / "moved.png")
    moved = open_source(str(pets), cache=tmp_path / "cache").digest
    png(pets / "dog" / "moved.png", 55)
    assert len({before, moved, open_source(str(pets), cache=tmp_path / "cache").digest}) == 3
