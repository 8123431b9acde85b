"""Pictures with boxes: the three formats give the same truth, and each mistake names its file."""

from __future__ import annotations

import io
import json

import numpy as np
import pytest

from onnxptq.data import open_source
from onnxptq.data.dataset import TRUTH
from onnxptq.errors import DataError

WIDTH, HEIGHT = 80, 60
OBJECTS = {"one": [("cat", (10, 20, 30, 50)), ("dog", (40, 5, 79, 44))], "two": []}


def picture(seed):
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pictures(folder):
    folder.mkdir(parents=True)
    for seed, name in enumerate(OBJECTS):
        (folder / f"{name}.png").write_bytes(picture(seed))


def coco(root, **changes):
    pictures(root / "images")
    images = [{"id": n, "file_name": f"{name}.png", "width": WIDTH, "height": HEIGHT} for n, name in enumerate(OBJECTS)]
    annotations = [
        {"id": 10 * n + k, "image_id": n, "category_id": 1 + (label == "dog"), "bbox": [x, y, right - x, down - y]}
        for n, objects in enumerate(OBJECTS.values())
        for k, (label, (x, y, right, down)) in enumerate(objects)
    ]
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    content = {"images": images, "annotations": annotations, "categories": categories, **changes}
    (root / "instances.json").write_text(json.dumps(content))
    return root


def voc(root):
    pictures(root / "JPEGImages")
    (root / "Annotations").mkdir()
    for name, objects in OBJECTS.items():
        boxes = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{x}</xmin><ymin>{y}</ymin><xmax>{r}</xmax><ymax>{d}</ymax></bndbox></object>"
            for label, (x, y, r, d) in objects
        )
        size = f"<size><width>{WIDTH}</width><height>{HEIGHT}</height></size>"
        (root / "Annotations" / f"{name}.xml").write_text(f"<annotation>{size}{boxes}</annotation>")
    return root


def yolo(root):
    pictures(root / "images")
    (root / "labels").mkdir()
    (root / "data.yaml").write_text("train: images\nnames:\n  0: cat\n  1: dog\n")
    for name, objects in OBJECTS.items():
        lines = [
            f"{int(label == 'dog')} {(x + r) / 2 / WIDTH} {(y + d) / 2 / HEIGHT} {(r - x) / WIDTH} {(d - y) / HEIGHT}"
            for label, (x, y, r, d) in objects
        ]
        if lines:
            (root / "labels" / f"{name}.txt").write_text("\n".join(lines))
    return root


FORMATS = {"coco": coco, "voc": voc, "yolo": yolo}


def opened(path, tmp_path, **options):
    return open_source(str(path), cache=tmp_path / "cache", **options).splits[""]


@pytest.mark.parametrize("format_", FORMATS)
def test_each_format_gives_the_same_boxes(format_, tmp_path):
    dataset = opened(FORMATS[format_](tmp_path / "data"), tmp_path)
    rows = {row["_name"].removesuffix(".png"): row[TRUTH] for row in dataset.read(np.arange(len(dataset)))}
    assert sorted(rows) == ["one", "two"]
    np.testing.assert_allclose(rows["one"]["boxes"], [box for _, box in OBJECTS["one"]], atol=1e-3)
    assert rows["one"]["box_classes"] == ["cat", "dog"]
    assert (rows["one"]["height"], rows["one"]["width"]) == (HEIGHT, WIDTH)
    assert rows["two"]["boxes"].shape == (0, 4)
    assert dataset.labels is None


def test_a_changed_box_changes_the_digest(tmp_path):
    before = opened(yolo(tmp_path / "data"), tmp_path).digest
    (tmp_path / "data/labels/two.txt").write_text("0 0.5 0.5 0.2 0.2")
    assert opened(tmp_path / "data", tmp_path).digest != before


def test_coco_files_of_two_splits_are_two_splits(tmp_path):
    root = coco(tmp_path / "data")
    (root / "annotations").mkdir()
    (root / "instances.json").rename(root / "annotations/instances_train2017.json")
    text = (root / "annotations/instances_train2017.json").read_text()
    (root / "annotations/instances_val2017.json").write_text(text)
    assert sorted(open_source(str(root), cache=tmp_path / "cache").splits) == ["train", "validation"]


def test_the_json_itself_can_be_named(tmp_path):
    assert len(opened(coco(tmp_path / "data") / "instances.json", tmp_path)) == 2


def broken(change):
    """A YOLO data set whose first annotation is another text."""

    def make(root):
        yolo(root)
        (root / "labels/one.txt").write_text(change)
        return root

    return make


BAD = {
    "outside": (broken("0 0.9 0.5 0.4 0.2"), r"one\.png: box 1 is .* outside of the picture of 80 x 60"),
    "no area": (broken("0 0.5 0.5 0 0.2"), r"one\.png: box 1 is .* which has no area"),
    "a word": (broken("cat 0.5 0.5 0.1 0.2"), r"one\.txt, line 1: 'cat .* is no object"),
    "a class": (broken("0 0.5 0.5 0.1 0.2\n7 0.5 0.5 0.1 0.2"), r"one\.txt, line 2: class 7 is not among the 2"),
    "not a number": (broken("0 nan 0.5 0.1 0.2"), r"one\.png: box 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_annotation_names_file_and_line(case, tmp_path):
    make, message = BAD[case]
    make(tmp_path / "data")
    with pytest.raises(DataError, match=message):
        opened(tmp_path / "data", tmp_path)


def test_bad_annotations_can_be_skipped_and_are_counted(tmp_path):
    broken("0 0.9 0.5 0.4 0.2")(tmp_path / "data")
    source = open_source(str(tmp_path / "data"), cache=tmp_path / "cache", skip_bad=True)
    assert len(source.splits[""]) == 1
    assert "outside of the picture" in source.skipped[0]


def test_a_coco_picture_that_is_missing_or_elsewhere_is_named(tmp_path):
    root = coco(tmp_path / "data")
    (root / "images/two.png").unlink()
    with pytest.raises(DataError, match=r"names the picture two\.png, which is neither"):
        opened(root, tmp_path)
    content = json.loads((root / "instances.json").read_text())
    content["images"][1]["file_name"] = "../../secret.png"
    (root / "instances.json").write_text(json.dumps(content))
    (tmp_path / "secret.png").write_bytes(picture(3))
    with pytest.raises(DataError, match="outside of"):
        opened(root, tmp_path)


COCO_BAD = {
    "three numbers": ({"bbox": [1, 2, 3]}, r"instances\.json: one\.png: annotation 0 has the box \[1, 2, 3\]"),
    "text": ({"bbox": "1,2,3,4"}, r"annotation 0 has the box 1,2,3,4"),
    "no box": ({"bbox": None}, r"annotation 0 has the box None"),
    "a category": ({"category_id": 9}, r"instances\.json: one\.png: annotation 0 has the category 9"),
    "outside": ({"bbox": [-9, 0, 500, 5]}, r"instances\.json: one\.png: box 1 is .* outside of the picture"),
}


@pytest.mark.parametrize("case", COCO_BAD)
def test_a_bad_coco_annotation_is_that_pictures_alone(case, tmp_path):
    change, message = COCO_BAD[case]
    root = coco(tmp_path / "data")
    content = json.loads((root / "instances.json").read_text())
    content["annotations"][0].update(change)
    (root / "instances.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        opened(root, tmp_path)
    source = open_source(str(root), cache=tmp_path / "cache", skip_bad=True)
    assert [row["_name"] for row in source.splits[""].read(np.arange(1))] == ["two.png"]
    assert len(source.skipped) == 1


def test_entities_in_xml_are_refused(tmp_path):
    root = voc(tmp_path / "data")
    (root / "Annotations/one.xml").write_text('<!DOCTYPE a [<!ENTITY b "c">]><annotation>&b;</annotation>')
    with pytest.raises(DataError, match="declares a document type"):
        opened(root, tmp_path)
