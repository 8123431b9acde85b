"""Segmentation and restoration: masks are carried to where the model sees them, and counted as the field counts."""

from __future__ import annotations

import io

import numpy as np
import pytest

from onnxptq.data import Columns, open_source
from onnxptq.data.dataset import TRUTH
from onnxptq.errors import DataError, ModelError
from onnxptq.heads import HEADS
from onnxptq.signature import Signature, TensorSpec


def head(shape, name="segmentation", dtype="float32", size=(8, 8), **specification):
    signature = Signature((TensorSpec("images", "float32", (None, 3, *size)),), (TensorSpec("out", dtype, shape),))
    return HEADS.get(name).build({"size": list(size), **specification}, signature)


def logits(mask, classes=3):
    """An output (1, K, H, W) that says this mask."""
    return np.eye(classes, dtype=np.float32)[np.asarray(mask)].transpose(2, 0, 1)[None] * 4


MASK = np.zeros((8, 8), np.uint8)
MASK[2:6, 2:6] = 1
MASK[6:, 6:] = 2


@pytest.mark.oracle
def test_the_score_is_the_mean_iou_of_the_classes_of_the_picture():
    segmenter = head((None, 3, 8, 8))
    said = MASK.copy()
    said[2:4, 2:6] = 0
    answers = segmenter.answers([logits(said)])
    jaccard = pytest.importorskip("sklearn.metrics").jaccard_score
    expected = jaccard(MASK.ravel(), said.ravel(), average="macro")
    assert segmenter.score(answers, {"mask": [MASK]})["mIoU"].tolist() == [pytest.approx(expected, abs=1e-6)]
    assert segmenter.score(segmenter.answers([logits(MASK)]), {"mask": [MASK]})["mIoU"].tolist() == [1.0]


def test_ignored_pixels_count_nowhere():
    segmenter = head((None, 3, 8, 8), ignore_index=9)
    said = MASK.copy()
    said[0] = 2
    true = MASK.copy()
    true[0] = 9
    assert segmenter.score(segmenter.answers([logits(said)]), {"mask": [true]})["mIoU"].tolist() == [1.0]
    nothing = np.full((8, 8), 9)
    assert np.isnan(segmenter.score(segmenter.answers([logits(said)]), {"mask": [nothing]})["mIoU"]).all()


def test_a_mask_is_carried_through_a_letterbox():
    segmenter = head((None, 3, 8, 8), resize="letterbox")
    wide = np.zeros((8, 16), np.uint8)  # becomes 4 x 8, at the rows 2 to 6
    wide[:, 8:] = 1
    said = np.zeros((8, 8), np.uint8)
    said[:, 4:] = 1
    said[:2] = 2  # in the bars, where nothing counts
    assert segmenter.score(segmenter.answers([logits(said)]), {"mask": [wide]})["mIoU"].tolist() == [1.0]


def test_an_output_of_a_quarter_of_the_resolution_is_compared_there():
    segmenter = head((None, 2, 2, 2))
    true = np.zeros((8, 8), np.uint8)
    true[:4, :4] = 1
    answers = segmenter.answers([logits([[1, 0], [0, 0]], 2)])
    assert segmenter.score(answers, {"mask": [true]})["mIoU"].tolist() == [1.0]


@pytest.mark.parametrize(
    ("output", "keys"),
    [
        (np.where(MASK == 1, 0.9, 0.1)[None, None].astype(np.float32), {"scores": "probabilities"}),
        (np.where(MASK == 1, 3.0, -3.0)[None].astype(np.float32), {}),
        ((MASK == 1)[None].astype(np.int64), {}),
        (np.eye(2, dtype=np.float32)[(MASK == 1).astype(int)][None], {"channels_last": True}),
    ],
    ids=["probabilities", "logits", "classes", "channels last"],
)
def test_each_kind_of_output_says_the_same_mask(output, keys):
    segmenter = head(output.shape, dtype=output.dtype.name, **keys)
    assert segmenter.answers([output]).masks[0].tolist() == (MASK == 1).astype(int).tolist()


def test_fidelity_is_the_mean_iou_against_the_reference():
    segmenter = head((None, 3, 8, 8))
    one, other = segmenter.answers([logits(MASK)]), segmenter.answers([logits(np.zeros_like(MASK))])
    assert segmenter.fidelity(one, one).tolist() == [1.0]
    assert segmenter.fidelity(other, one).tolist() == [pytest.approx((64 - 20) / 64 / 3, abs=1e-6)]


@pytest.mark.oracle
def test_totals_are_over_all_pixels():
    segmenter = head((None, 3, 8, 8))
    said = [np.zeros_like(MASK), MASK]
    answers = segmenter.answers([np.concatenate([logits(one) for one in said])])
    records = segmenter.records(answers, {"mask": [MASK, MASK]})
    totals = {total.name: total.compute(records) for total in HEADS.get("segmentation").totals}
    jaccard = pytest.importorskip("sklearn.metrics").jaccard_score
    flat = np.tile(MASK.ravel(), 2), np.concatenate([one.ravel() for one in said])
    assert totals["data-set mIoU"] == pytest.approx(jaccard(*flat, average="macro"))
    assert totals["pixel accuracy"] == pytest.approx((flat[0] == flat[1]).mean())


def test_a_class_that_the_model_lacks_is_an_error():
    segmenter = head((None, 2, 8, 8), classes=["ground", "cell"])
    with pytest.raises(DataError, match="has the class 2, but the model knows 2"):
        segmenter.score(segmenter.answers([logits(MASK, 3)[:, :2]]), {"mask": [MASK]})


def test_outputs_that_are_no_mask_are_refused():
    with pytest.raises(ModelError, match="no output can be a mask"):
        head((None, 10))


def test_masks_are_found_by_the_pictures_names(tmp_path):
    from PIL import Image

    for folder in ("images", "masks"):
        (tmp_path / "data" / folder).mkdir(parents=True)
    palette = Image.fromarray(MASK, "P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    for name in ("one", "two"):
        Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(tmp_path / f"data/images/{name}.jpg")
    palette.save(tmp_path / "data/masks/one.png")
    rows = (
        open_source(str(tmp_path / "data"), cache=tmp_path / "cache", columns=Columns(truths=("mask",)))
        .splits[""]
        .read(np.arange(2))
    )
    assert rows[0][TRUTH]["mask"].tolist() == MASK.tolist()
    assert rows[1][TRUTH] == {}
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "PNG")
    (tmp_path / "data/masks/two.png").write_bytes(buffer.getvalue())
    with pytest.raises(DataError, match=r"two\.png holds colors"):
        open_source(str(tmp_path / "data"), cache=tmp_path / "cache")
    Image.fromarray(np.zeros((9, 8), np.uint8)).save(tmp_path / "data/masks/two.png")
    with pytest.raises(DataError, match=r"two\.png has 8 x 9 pixels, and its picture 8 x 8"):
        open_source(str(tmp_path / "data"), cache=tmp_path / "cache")
    assert len(open_source(str(tmp_path / "data"), cache=tmp_path / "cache", skip_bad=True).splits[""]) == 1


@pytest.mark.oracle
def test_psnr_equals_scikit_image_s():
    metrics = pytest.importorskip("skimage.metrics")
    rng = np.random.default_rng(0)
    wanted = rng.random((1, 3, 8, 8)).astype(np.float32)
    noisy = (wanted + 0.05 * rng.standard_normal(wanted.shape)).astype(np.float32)
    restorer = head((None, 3, 8, 8), "restoration")
    scores = restorer.score(restorer.answers([noisy]), {"wanted": list(wanted)})
    expected = metrics.peak_signal_noise_ratio(wanted[0], noisy[0], data_range=1.0)
    assert scores["PSNR / 50 dB"].tolist() == [pytest.approx(expected / 50, abs=1e-6)]
    assert scores["1 - MAE"].tolist() == [pytest.approx(1 - np.abs(noisy - wanted).mean(), abs=1e-6)]
    same = restorer.answers([wanted])
    assert restorer.fidelity(same, same).tolist() == [1.0]
    (total,) = HEADS.get("restoration").totals
    assert total.compute(restorer.records(restorer.answers([noisy]), {"wanted": list(wanted)})) == pytest.approx(
        expected
    )
    with pytest.raises(DataError, match="has shape"):
        restorer.score(same, {"wanted": [np.zeros((3, 4, 4))]})


def test_a_mask_says_its_groups():
    segmenter = head((None, 3, 8, 8), classes=["ground", "cat", "dog"])
    void = np.where(MASK == 2, 255, MASK).astype(np.uint8)
    empty = np.zeros((8, 8), np.uint8)
    assert segmenter.group_values({"mask": [MASK, void, empty, None]}) == {
        "main_class": ["cat", "cat", "none", "unknown"],
        "foreground": ["20 to 50 %", "20 to 50 %", "none", "unknown"],
        "present": ["2-4", "1", "0", "unknown"],
    }
