"""Detection: boxes are decoded, matched and totaled as the libraries of the field do it."""

from __future__ import annotations

import numpy as np
import pytest

from onnxptq.errors import DataError, ModelError
from onnxptq.geometry import Geometry
from onnxptq.heads import HEADS
from onnxptq.heads._boxes import overlaps, suppressed
from onnxptq.heads.detection import TOTALS, Found, f1
from onnxptq.signature import Signature, TensorSpec


def head(*shapes, size=(64, 64), **specification):
    """A detection head of a model with these outputs."""
    outputs = tuple(TensorSpec(f"out{number}", "float32", shape) for number, shape in enumerate(shapes))
    signature = Signature((TensorSpec("images", "float32", (None, 3, *size)),), outputs)
    return HEADS.get("detection").build({"size": list(size), **specification}, signature)


def yolov8(*rows, classes=2, places=20):
    """One sample's output (1, 4 + classes, places) with boxes (center, size, class, score)."""
    table = np.zeros((1, 4 + classes, places), np.float32)
    for place, (x, y, w, h, label, score) in enumerate(rows):
        table[0, :4, place] = x, y, w, h
        table[0, 4 + label, place] = score
    return table


def truths(boxes, names, size=(64, 64), crowd=None):
    """The truth columns of one picture."""
    boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
    crowd = [False] * len(boxes) if crowd is None else crowd
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    columns = {"boxes": boxes, "box_classes": names, "crowd": np.asarray(crowd), "area": area}
    return {name: [value] for name, value in {**columns, "height": size[0], "width": size[1]}.items()}


def test_a_box_that_overlaps_half_of_a_true_one_of_its_class_is_right():
    detection = head((None, 6, None), classes=["cat", "dog"])
    answers = detection.answers([yolov8((20, 20, 10, 10, 0, 0.9), (50, 50, 8, 8, 1, 0.8))])
    both = truths([[15, 15, 25, 25], [46, 46, 54, 54]], ["cat", "dog"])
    assert detection.score(answers, both)["F1 at IoU 0.5"].tolist() == [1.0]
    swapped = truths([[15, 15, 25, 25], [46, 46, 54, 54]], ["dog", "cat"])
    assert detection.score(answers, swapped)["F1 at IoU 0.5"].tolist() == [0.0]
    one = truths([[15, 15, 25, 25]], ["cat"])
    assert detection.score(answers, one)["F1 at IoU 0.5"].tolist() == [pytest.approx(2 / 3)]


def test_a_picture_with_nothing_in_it_is_right_only_where_nothing_is_found():
    detection = head((None, 6, None), classes=["cat", "dog"])
    empty = truths([], [])
    assert detection.score(detection.answers([yolov8()]), empty)["F1 at IoU 0.5"].tolist() == [1.0]
    found = detection.answers([yolov8((20, 20, 10, 10, 0, 0.9))])
    assert detection.score(found, empty)["F1 at IoU 0.5"].tolist() == [0.0]
    assert detection.fidelity(found, detection.answers([yolov8()])).tolist() == [0.0]
    assert detection.fidelity(found, found).tolist() == [1.0]


def test_what_lies_in_a_crowd_is_neither_right_nor_wrong():
    found = Found(
        np.array([[0, 0, 10, 10], [2, 2, 8, 8]], np.float32), np.array([0.9, 0.8], np.float32), np.zeros(2, int)
    )
    boxes = np.array([[0, 0, 10, 10], [0, 0, 60, 60]], np.float32)
    assert f1(found, boxes, np.zeros(2, int), np.array([False, True])) == 1.0
    assert f1(found, boxes[:1], np.zeros(1, int), np.array([False])) == pytest.approx(2 / 3)


def test_one_true_box_serves_one_found_box():
    twice = np.array([[0, 0, 10, 10], [0, 0, 10, 9]], np.float32)
    found = Found(twice, np.array([0.9, 0.8], np.float32), np.zeros(2, int))
    assert f1(found, twice[:1], np.zeros(1, int), np.zeros(1, bool)) == pytest.approx(2 / 3)


def test_boxes_are_carried_through_a_letterbox():
    detection = head((None, 6, None), classes=["cat", "dog"], resize="letterbox")
    # A picture of 128 x 32 becomes 64 x 16 at the rows 24 to 40.
    answers = detection.answers([yolov8((20, 32, 20, 8, 0, 0.9))])
    wide = truths([[20, 8, 60, 24]], ["cat"], size=(32, 128))
    assert detection.score(answers, wide)["F1 at IoU 0.5"].tolist() == [1.0]
    (found,) = detection.records(answers, wide)["found"]
    assert found[:4].tolist() == [20, 8, 60, 24]


@pytest.mark.parametrize("resize", ["stretch", "shortest", "letterbox", "none"])
@pytest.mark.parametrize("size", [(64, 64), (40, 72), (200, 90)])
def test_coordinates_come_back_from_the_input(resize, size):
    placement = Geometry((32, 32), resize, (36, 36)).place(*size)
    inside = np.array([[size[1] * 0.4, size[0] * 0.4, size[1] * 0.6, size[0] * 0.6]])
    np.testing.assert_allclose(placement.to_original(placement.to_input(inside)), inside, atol=1e-4)


def test_the_surer_of_two_boxes_of_one_object_is_kept():
    boxes = np.array([[[0, 0, 10, 10], [0, 0, 10, 9], [30, 30, 40, 40]]], np.float32)
    scores = np.array([[[0.6, 0.9, 0.7]]], np.float32)
    assert suppressed(boxes, scores, 0.5, 0.01, 100)[:, 2].tolist() == [1, 2]
    assert sorted(suppressed(boxes, scores, 0.95, 0.01, 100)[:, 2].tolist()) == [0, 1, 2]


def test_overlap_is_intersection_over_union():
    boxes = np.array([[0, 0, 10, 10]], np.float32)
    others = np.array([[5, 0, 15, 10], [20, 20, 30, 30], [0, 0, 10, 10]], np.float32)
    np.testing.assert_allclose(overlaps(boxes, others), [[1 / 3, 0, 1]])


LAYOUTS = {
    "yolov8": lambda boxes, scores: [np.concatenate([centers(boxes), scores], 2).transpose(0, 2, 1)],
    "yolov5": lambda boxes, scores: [np.concatenate([centers(boxes), np.ones_like(scores[..., :1]), scores], 2)],
    "decoded": lambda boxes, scores: [boxes, scores],
    "end-to-end": lambda boxes, scores: [
        np.concatenate([boxes, scores.max(2, keepdims=True), scores.argmax(2)[..., None]], 2)
    ],
}


def centers(boxes):
    return np.concatenate([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], 2)


@pytest.mark.parametrize("decoder", LAYOUTS)
def test_every_layout_gives_the_same_boxes(decoder):
    boxes = np.array([[[4, 4, 20, 20], [30, 10, 50, 40], [0, 50, 12, 60]]], np.float32)
    scores = np.array([[[0.9, 0.0], [0.0, 0.8], [0.3, 0.0]]], np.float32)
    outputs = [np.asarray(one, np.float32) for one in LAYOUTS[decoder](boxes, scores)]
    detection = head(*(one.shape for one in outputs), decoder=decoder, classes=["cat", "dog"])
    (found,) = detection.answers(outputs)
    np.testing.assert_allclose(found.boxes, boxes[0], atol=1e-4)
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.3], atol=1e-6)
    assert found.classes.tolist() == [0, 1, 0]


def test_yolox_is_relative_to_its_grid():
    detection = head((None, 84, 7), decoder="yolox", classes=["cat", "dog"])
    table = np.zeros((1, 84, 7), np.float32)
    table[0, 9] = [0.5, 0.25, np.log(2), np.log(1), 0.9, 1, 0]  # second row, second column of the stride 8
    (found,) = detection.answers([table])
    np.testing.assert_allclose(found.boxes, [[4, 6, 20, 14]], atol=1e-4)
    assert found.scores.tolist() == [pytest.approx(0.9)]


def test_a_layout_that_could_be_two_needs_a_decoder():
    with pytest.raises(ModelError, match="nothing says how to read boxes"):
        head((None, 8400, 85))
    with pytest.raises(ModelError, match=r"expects 5 \+ 3"):
        head((None, 20, 7), decoder="yolov5", classes=["a", "b", "c"]).answers([np.zeros((1, 20, 7), np.float32)])


def test_a_class_that_the_model_lacks_is_named():
    detection = head((None, 6, None), classes=["cat", "dog"])
    with pytest.raises(DataError, match=r"class .dig., which the model lacks\. Did you mean .dog."):
        detection.score(detection.answers([yolov8()]), truths([[0, 0, 9, 9]], ["dig"]))


def test_nan_is_the_model_s_fault():
    output = yolov8((20, 20, 10, 10, 0, np.nan))
    with pytest.raises(ModelError, match="hold NaN"):
        head((None, 6, None), classes=["cat", "dog"]).answers([output])


def random_records(seed, pictures=40):
    """Found and true boxes of pictures, alike and not."""
    rng = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(pictures):
        corners = rng.uniform(0, 300, (rng.integers(0, 8), 2))
        boxes = np.concatenate([corners, corners + rng.uniform(5, 150, corners.shape)], 1)
        labels = rng.integers(0, 3, len(boxes))
        crowd = rng.random(len(boxes)) < 0.1
        area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) * 0.8
        true.append(np.column_stack([boxes, labels, crowd, area]).astype(np.float32).ravel())
        seen = rng.random(len(boxes)) < 0.8
        moved = boxes[seen] + rng.normal(0, 6, (int(seen.sum()), 4))
        guesses = np.where(rng.random(len(moved)) < 0.85, labels[seen], rng.integers(0, 3, len(moved)))
        found.append(np.column_stack([moved, rng.uniform(0.1, 1, len(moved)), guesses]).astype(np.float32).ravel())
    return {"found": found, "true": true}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_map_equals_pycocotools(seed, capsys):
    coco = pytest.importorskip("pycocotools.coco")
    evaluation = pytest.importorskip("pycocotools.cocoeval")
    pytest.importorskip("faster_coco_eval")
    records = random_records(seed)
    annotations, results = [], []
    for image, (found, true) in enumerate(zip(records["found"], records["true"], strict=True), 1):
        for *box, label, crowd, area in true.reshape(-1, 7).tolist():
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            one = {"id": len(annotations) + 1, "image_id": image, "category_id": int(label), "bbox": bbox}
            annotations.append({**one, "area": area, "iscrowd": int(crowd)})
        for *box, score, label in found.reshape(-1, 6).tolist():
            bbox = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            results.append({"image_id": image, "category_id": int(label), "bbox": bbox, "score": score})
    truth = coco.COCO()
    truth.dataset = {
        "images": [{"id": image} for image in range(1, len(records["true"]) + 1)],
        "annotations": annotations,
        "categories": [{"id": label, "name": str(label)} for label in range(3)],
    }
    truth.createIndex()
    oracle = evaluation.COCOeval(truth, truth.loadRes(results), "bbox")
    oracle.evaluate()
    oracle.accumulate()
    oracle.summarize()
    expected = [oracle.stats[number] for number in (0, 1, 3, 4, 5)]
    assert [total.compute(records) for total in TOTALS] == pytest.approx(expected, abs=1e-9)
    assert 0.2 < expected[1] < 0.95
