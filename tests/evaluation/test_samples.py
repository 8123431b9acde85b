"""Evaluation samples: every row once, in a layout that does not depend on batches; copies share their source."""

from __future__ import annotations

import numpy as np
import pytest

from onnxptq.data.shifts import SHIFTS
from onnxptq.errors import UsageError
from onnxptq.evaluation import default_corruptions, named_corruptions
from onnxptq.tasks import Signature, TensorSpec, make_task

CORRUPTIONS = ("clean", "tensor_noise@3", "scale@2")


def image_task(side=32, channels=3):
    shape = (None, channels, side, side)
    signature = Signature((TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", (None, 4)),))
    return make_task("image-classification", {"scale": 1 / 255}, signature)


def gathered(samples, batch):
    """The feeds of each row, (rows, 6)."""
    found = np.full((len(samples), 6), np.nan, np.float32)
    for rows, feeds in samples.batches(batch):
        assert len(rows) == len(feeds["x"]) <= batch
        assert np.isnan(found[rows]).all()  # No row comes twice.
        found[rows] = feeds["x"]
    return found


@pytest.mark.parametrize("batch", [1, 7, 64, 1000])
def test_every_row_comes_once_whatever_the_batch_is(samples, batch):
    judged = samples(CORRUPTIONS, count=300)
    found = gathered(judged, batch)
    assert len(judged) == 900
    np.testing.assert_array_equal(found, gathered(judged, 300))
    assert np.isfinite(found).all()


def test_row_c_times_n_plus_s_is_sample_s_under_corruption_c(samples):
    judged = samples(CORRUPTIONS, count=20)
    clean, noisy, scaled = gathered(judged, 8).reshape(3, 20, 6)
    values = np.stack([row["x"] for row in judged.dataset.read(np.arange(20))])
    np.testing.assert_array_equal(clean, values)
    np.testing.assert_allclose(scaled, values * 0.3, rtol=1e-6)
    assert (np.abs(noisy - values) > 0).any(axis=1).all()


def test_columns_have_the_same_layout(samples):
    judged = samples(CORRUPTIONS, count=20)
    assert judged.groups["corruption"].tolist() == [name for name in CORRUPTIONS for _ in range(20)]
    assert judged.groups["label"].tolist() == judged.dataset.attributes["label"].tolist() * 3
    assert judged.label.tolist() == judged.dataset.labels.tolist() * 3


def test_copies_of_a_sample_share_its_source_and_have_their_own_id(samples):
    judged = samples(CORRUPTIONS, count=20)
    sources = judged.source_id.reshape(3, 20)
    assert (sources == sources[0]).all()
    assert len(set(sources[0].tolist())) == 20
    assert len(set(judged.sample_id.tolist())) == 60
    assert judged.sample_id[20] == f"{judged.sample_id[0]}+tensor_noise@3"


def test_rows_of_equal_content_are_one_source_and_two_samples(samples):
    judged = samples(values=np.zeros((2, 6), np.float32))
    assert len(set(judged.source_id.tolist())) == 1
    assert len(set(judged.sample_id.tolist())) == 4


def test_corruptions_are_the_same_for_every_order_of_rows_and_differ_between_seeds(samples):
    judged = samples(("tensor_noise@3",), count=30)
    order = np.random.default_rng(0).permutation(30)
    shuffled = type(judged)(judged.task, judged.dataset.select(order), judged.corruptions, 0)
    np.testing.assert_array_equal(gathered(shuffled, 9), gathered(judged, 9)[order])
    assert not np.allclose(gathered(samples(("tensor_noise@3",), seed=1, count=30), 9), gathered(judged, 9))


def test_without_labels_the_label_is_minus_one_and_no_group(samples):
    judged = samples(count=5, classes=None)
    assert set(judged.label.tolist()) == {-1}
    assert list(judged.groups) == ["corruption"]


def test_the_default_is_clean_and_corruptions_of_other_families_than_those_used():
    task = image_task()
    default = default_corruptions(task)
    assert default[0] == "clean"
    assert len(default) > 4
    family = SHIFTS.get(default[1].partition("@")[0]).family
    rest = default_corruptions(task, frozenset({family}))
    assert set(default) - set(rest) == {
        name for name in default[1:] if SHIFTS.get(name.partition("@")[0]).family == family
    }


def test_named_corruptions_come_with_clean_and_each_once():
    task = image_task()
    assert named_corruptions(("fog", "clean", "blur@5", "fog@3"), task) == ("clean", "fog@3", "blur@5")
    assert named_corruptions((), task) == ("clean",)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foog", "unknown shift 'foog'. Did you mean 'fog'"),
        ("fog@9", "severity '9'"),
        ("mixup", "'mixup' mixes two samples, so its result has no label"),
        ("scale", "'scale' does not fit the model's input: scale is for tensor samples"),
        ("saturation", "'saturation' does not fit the model's input: .*gray"),
    ],
)
def test_a_corruption_that_cannot_be_judged_under_is_explained(name, message):
    with pytest.raises(UsageError, match=message):
        named_corruptions((name,), image_task(channels=1))
