"""Every entry that `onnxptq calibs` lists does something: each has a test here that fails if the recipe did nothing."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from onnxptq.calibrators import ALIASES, SAMPLERS, CalibrationSet
from onnxptq.calibrators.sampler import Asked
from onnxptq.calibrators.samples import draw
from onnxptq.commands.calibs import _rows
from onnxptq.data.shifts import SHIFTS
from onnxptq.errors import DataError, UsageError
from onnxptq.tasks import Signature, TensorSpec, make_task


def ask(dataset):
    """What the "model" says: its margins, and its outputs."""
    outputs = outputs_of(dataset)
    top = np.sort(outputs.astype(np.float64), axis=1)
    return Asked(top[:, -1] - top[:, -2], list(outputs))


def outputs_of(dataset):
    """A linear "model": four outputs a sample."""
    rows = np.stack([row["x"] for row in dataset.read(np.arange(len(dataset)))])
    return rows @ np.random.default_rng(9).standard_normal((6, 4)).astype(np.float32)


def margins(dataset):
    top = np.sort(outputs_of(dataset), axis=1)
    return top[:, -1] - top[:, -2]


@pytest.fixture
def drawn(tensor_task):
    """Draws a set by name; the dataset of what was drawn."""

    def drawn(name, dataset, size=None, seed=0):
        parsed = CalibrationSet.parse(name)
        return draw(parsed, tensor_task, dataset, size=size, seed=seed, ask=ask).dataset

    return drawn


def counts(dataset):
    return np.bincount(dataset.labels, minlength=len(dataset.label_names))


def test_clean_draws_at_random(drawn, make_dataset):
    dataset = make_dataset(400)
    rows = drawn("clean", dataset, size=100).indices
    assert len(set(rows.tolist())) == 100
    assert rows.tolist() != sorted(rows.tolist())
    assert (counts(dataset.select(rows)) >= 12).all()  # 25 expected of each class


def test_small_draws_very_few(drawn, make_dataset):
    assert len(drawn("small", make_dataset(400))) == 8
    assert len(drawn("clean", make_dataset(400))) == 128


def test_stratified_gives_equal_shares_where_random_does_not(drawn, make_dataset):
    dataset = make_dataset(400, labels=[0] * 370 + [1] * 10 + [2] * 10 + [3] * 10)
    assert counts(drawn("stratified", dataset, size=40)).tolist() == [10] * 4
    assert counts(drawn("clean", dataset, size=40))[0] > 30
    assert sorted(counts(drawn("stratified", dataset, size=38)).tolist()) == [9, 9, 10, 10]
    assert counts(drawn("stratified", dataset, size=100)).tolist() == [70, 10, 10, 10]


def test_stratified_goes_by_any_column(drawn, make_dataset):
    sexes = ["f"] * 30 + ["m"] * 370
    dataset = make_dataset(400, attributes={"sex": sexes})
    values, shares = np.unique(drawn("stratified:sex", dataset, size=40).attributes["sex"], return_counts=True)
    assert dict(zip(values.tolist(), shares.tolist(), strict=True)) == {"f": 20, "m": 20}


def test_missing_group_really_misses_it(drawn, make_dataset):
    dataset = make_dataset(400, attributes={"sex": ["f", "m"] * 200})
    assert counts(drawn("missing-group:class2", dataset))[2] == 0
    assert (counts(drawn("missing-group:class2", dataset))[[0, 1, 3]] > 10).all()
    assert set(drawn("missing-group:sex=f", dataset).attributes["sex"].tolist()) == {"m"}
    assert counts(drawn("clean", dataset))[2] > 10


def test_only_group_really_has_no_other(drawn, make_dataset):
    dataset = make_dataset(400, attributes={"sex": ["f", "m"] * 200})
    assert np.flatnonzero(counts(drawn("only-group:class2", dataset))).tolist() == [2]
    assert set(drawn("only-group:sex=f", dataset).attributes["sex"].tolist()) == {"f"}


@pytest.mark.parametrize("ratio", [1, 10, 100])
def test_imbalanced_is_a_long_tail_of_that_ratio(drawn, make_dataset, ratio):
    dataset = make_dataset(4000)
    tail = np.sort(counts(drawn(f"imbalanced:ratio={ratio}", dataset, size=1000)))[::-1]
    shares = ratio ** (-np.arange(4) / 3)
    np.testing.assert_allclose(tail, 1000 * shares / shares.sum(), atol=1)
    assert tail.sum() == 1000


def test_imbalanced_keeps_its_shape_where_a_class_has_too_few_samples(drawn, make_dataset):
    tail = np.sort(counts(drawn("imbalanced:ratio=10", make_dataset(80))))[::-1]
    assert tail[0] <= 20
    assert tail[0] / max(tail[-1], 1) >= 8
    with pytest.raises(DataError, match=r"--calib-size 60 is more than the \d+ samples"):
        drawn("imbalanced:ratio=10", make_dataset(80), size=60)


def test_imbalanced_shuffles_which_class_is_large(drawn, make_dataset):
    dataset = make_dataset(4000)
    assert len({int(counts(drawn("imbalanced", dataset, seed=seed)).argmax()) for seed in range(20)}) == 4


def test_few_class_draws_k_classes_and_others_with_another_seed(drawn, make_dataset):
    dataset = make_dataset(400)
    for k in (1, 2, 3):
        assert (counts(drawn(f"few-class:k={k}", dataset)) > 0).sum() == k
    assert len({tuple(counts(drawn("few-class", dataset, seed=seed)) > 0) for seed in range(20)}) > 2


def test_single_class_draws_the_named_class_or_one(drawn, make_dataset):
    dataset = make_dataset(400)
    assert set(drawn("single-class:class3", dataset).labels.tolist()) == {3}
    chosen = [set(drawn("single-class", dataset, seed=seed).labels.tolist()) for seed in range(20)]
    assert all(len(classes) == 1 for classes in chosen)
    assert len(set.union(*chosen)) == 4


def test_hard_draws_the_smallest_margins_in_order(drawn, make_dataset):
    dataset = make_dataset(300)
    hard = margins(drawn("hard", dataset, size=30))
    np.testing.assert_array_equal(hard, np.sort(margins(dataset))[:30])


def test_easy_draws_the_largest_margins_in_order(drawn, make_dataset):
    dataset = make_dataset(300)
    easy = margins(drawn("easy", dataset, size=30))
    np.testing.assert_array_equal(easy, np.sort(margins(dataset))[::-1][:30])


def test_diverse_spreads_farther_than_random(drawn, make_dataset):
    dataset = make_dataset(600)

    def nearest(chosen):
        points = outputs_of(chosen).astype(np.float64)
        distance = np.linalg.norm(points[:, None] - points, axis=2)
        np.fill_diagonal(distance, np.inf)
        return distance.min()

    def radius(chosen):
        """How far the sample that is worst represented lies from the set: what k-center minimises."""
        points, centers = outputs_of(dataset), outputs_of(chosen)
        return np.linalg.norm(points[:, None] - centers, axis=2).min(axis=1).max()

    for seed in range(3):
        diverse, at_random = drawn("diverse", dataset, 40, seed), drawn("clean", dataset, 40, seed)
        assert nearest(diverse) > 2 * nearest(at_random)
        assert radius(diverse) < 0.8 * radius(at_random)


def test_diverse_never_draws_a_sample_twice_even_of_equal_ones(drawn, make_dataset):
    dataset = make_dataset(values=np.repeat(np.eye(3, 6, dtype=np.float32), 5, axis=0))
    chosen = drawn("diverse", dataset, size=15)
    assert sorted(chosen.indices.tolist()) == list(range(15))
    assert len(set(drawn("diverse", dataset, size=3).fingerprints.tolist())) == 3


@pytest.mark.parametrize("name", ["hard", "easy", "diverse"])
def test_the_model_is_asked_about_no_more_than_the_candidates(tensor_task, make_dataset, name):
    asked = []

    def counting(dataset):
        asked.append(len(dataset))
        return ask(dataset)

    draw(CalibrationSet.parse(f"{name}:50"), tensor_task, make_dataset(300), size=10, ask=counting)
    assert asked == [50]
    draw(CalibrationSet.parse(f"{name}:5"), tensor_task, make_dataset(300), size=10, ask=counting)
    assert asked == [50, 10]  # As many as are to be drawn, at least.


def test_random_needs_no_data_and_is_noise_of_the_models_shape(tensor_task, image_task):
    samples = draw(CalibrationSet.parse("random"), tensor_task, None, size=200)
    values = np.concatenate([feeds["x"] for _, feeds in samples])
    assert values.shape == (200, 6)
    assert abs(values.mean()) < 0.1
    assert abs(values.std() - 1) < 0.1
    assert len(np.unique(values)) == values.size
    (_, feeds), *_ = draw(CalibrationSet.parse("random"), image_task, None, size=2)
    assert feeds["x"].shape == (1, 3, 32, 32)


def test_foreign_draws_from_the_other_source(tmp_path, save_classifier):
    import onnxptq

    rng = np.random.default_rng(0)
    for name in ("own", "other"):
        x = rng.standard_normal((40, 6)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", x=x, label=np.arange(40) % 4)
    own, other = (tmp_path / f"{name}.npz" for name in ("own", "other"))
    samples = onnxptq.draw_calibration(save_classifier(), data=str(own), calib=f"foreign:{other}", size=40)
    drawn = np.concatenate([feeds["x"] for _, feeds in samples])
    assert {row.tobytes() for row in drawn} == {row.tobytes() for row in np.load(other)["x"]}


def test_aliases_draw_what_they_stand_for(image_task, images, drawn_rows):
    clean = drawn_rows(draw(CalibrationSet.parse("clean"), image_task, images))
    for alias, meaning in ALIASES.items():
        rows = drawn_rows(draw(CalibrationSet.parse(alias), image_task, images))
        assert rows == drawn_rows(draw(CalibrationSet.parse(meaning), image_task, images))
        assert not set(rows) & set(clean)


OF_SOME = {"missing_values", "impute"}
"""Shifts that leave a sample alone by chance: of a few columns none may be drawn."""


@pytest.fixture(scope="module")
def known_inputs():
    """Inputs of which something is known: bounds and the training data's distribution; a spectrum; a table."""
    signature = Signature((TensorSpec("x", "float32", (None, 6)),), (TensorSpec("logits", "float32", (None, 4)),))
    bell = {"mean": [0.5], "std": [0.05]}
    return [
        make_task("tensor-classification", keys, signature)
        for keys in (
            {"input_range": {"x": [-6, 6]}, "normalizer": {"x": bell}},
            {"kind": {"x": "log-mel"}, "normalizer": {"x": bell}},
            {"kind": {"x": "table"}, "normalizer": {"x": bell}},
        )
    ]


@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("shift", [shift.name for shift in SHIFTS if shift.modality in ("image", "tensor")])
def test_every_shift_changes_every_sample_and_draws_the_same_ones(
    shift, severity, image_task, images, tensor_task, known_inputs, make_dataset
):
    if SHIFTS.get(shift).modality == "image":
        task, dataset = image_task, images
    else:
        task, dataset = next(one for one in (tensor_task, *known_inputs) if one.fits(shift) is None), make_dataset(12)
    clean = draw(CalibrationSet.parse("clean"), task, dataset)
    shifted = draw(CalibrationSet.parse(f"{shift}@{severity}"), task, dataset)
    assert shifted.dataset.fingerprints.tolist() == clean.dataset.fingerprints.tolist()
    changed = []
    for (_, before), (place, after) in zip(clean, shifted, strict=True):
        assert after["x"].shape == before["x"].shape
        changed.append(np.abs(after["x"] - before["x"]).max() > 0.01)
        assert place.endswith(f" under {shift}@{severity}")
    assert any(changed) if shift in OF_SOME else all(changed)


def test_synthetic_images_need_no_data_and_come_of_the_seed(image_task):
    sets = [draw(CalibrationSet.parse("synthetic"), image_task, None, size=4, seed=seed) for seed in (0, 0, 1)]
    one, again, other = ([feeds["x"] for _, feeds in samples] for samples in sets)
    np.testing.assert_array_equal(one, again)
    assert len(one) == 4
    assert all(np.abs(a - b).max() > 0.01 for a, b in itertools.combinations([*one, *other], 2))


TESTED_ABOVE = {
    "clean", "small", "stratified", "missing-group", "only-group", "imbalanced", "few-class", "single-class",
    "hard", "easy", "diverse", "random", "synthetic", "foreign", *ALIASES, *(shift.name for shift in SHIFTS),
}  # fmt: skip


def test_every_set_that_the_command_lists_is_tested_above():
    assert {row["name"].partition(":")[0].partition("@")[0] for row in _rows()} == TESTED_ABOVE


@pytest.mark.parametrize("name", [s.name for s in SAMPLERS if s.required is None])
class TestEverySampler:
    def test_the_draw_does_not_depend_on_the_order_of_rows(self, name, drawn, make_dataset):
        dataset = make_dataset(300, classes=4)
        shuffled = dataset.select(np.random.default_rng(3).permutation(300))
        one, other = drawn(name, dataset), drawn(name, shuffled)
        assert one.fingerprints.tolist() == other.fingerprints.tolist()

    def test_the_draw_depends_on_the_seed_alone(self, name, drawn, make_dataset):
        dataset = make_dataset(300, classes=4)
        one, again, other = (drawn(f"{name}", dataset, seed=seed).fingerprints.tolist() for seed in (1, 1, 2))
        assert one == again
        # With all of the data as candidates, the extreme margins are the same ones.
        assert (one == other) == (name in ("hard", "easy"))

    def test_the_size_is_as_asked_and_no_sample_comes_twice(self, name, drawn, make_dataset):
        chosen = drawn(name, make_dataset(300, classes=4), size=20)
        assert len(chosen) == 20
        assert len(set(chosen.indices.tolist())) == 20

    def test_a_size_beyond_the_data_is_refused(self, name, drawn, make_dataset):
        with pytest.raises(DataError, match=r"--calib-size 301 is more than the \d+ samples"):
            drawn(name, make_dataset(300, classes=4), size=301)

    def test_without_a_size_a_small_dataset_is_drawn_as_far_as_it_goes(self, name, drawn, make_dataset):
        assert 0 < len(drawn(name, make_dataset(7, classes=4))) <= 7

    def test_a_python_object_without_parameters_has_the_defaults(self, name, tensor_task, make_dataset):
        dataset = make_dataset(300, classes=4)
        bare = draw(CalibrationSet(name), tensor_task, dataset, ask=ask)
        named = draw(CalibrationSet.parse(name), tensor_task, dataset, ask=ask)
        assert bare.dataset.fingerprints.tolist() == named.dataset.fingerprints.tolist()


def test_candidates_decide_which_extreme_margins_are_seen(drawn, make_dataset):
    dataset = make_dataset(300)
    sets = [frozenset(drawn("hard:40", dataset, 20, seed).indices.tolist()) for seed in range(3)]
    assert len(set(sets)) == 3


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("imbalanced:ratio=0.5", "ratio must be a number of at least 1.*got 0.5"),
        ("imbalanced:ratio=nan", "ratio must be a number of at least 1"),
        ("few-class:k=5", "k must be between 1 and 4, the number of classes, got 5"),
        ("few-class:k=0", "k must be between 1 and 4"),
        ("single-class:clas3", "has no class 'clas3'.*'class3'"),
        ("missing-group:clas3", "no sample has label='clas3'.*'class3'"),
        ("missing-group:sx=f", "no group column 'sx'.*'sex'"),
        ("stratified:sx", "no group column 'sx'.*'sex'"),
        ("hard:candidates=0", "candidates must be a positive number"),
    ],
)
def test_a_value_that_does_not_fit_the_data_is_explained(drawn, make_dataset, name, message):
    dataset = make_dataset(40, attributes={"sex": ["f", "m"] * 20})
    with pytest.raises(UsageError, match=message):
        drawn(name, dataset)


@pytest.mark.parametrize("name", ["imbalanced", "few-class", "single-class:a"])
def test_a_set_that_chooses_by_label_says_that_there_is_none(drawn, make_dataset, name):
    with pytest.raises(DataError, match=r"chooses by label, and data has none. Give --label-column"):
        drawn(name, make_dataset(40, classes=None))


def test_leaving_out_the_only_group_leaves_nothing(drawn, make_dataset):
    with pytest.raises(DataError, match="nothing is left to calibrate with"):
        drawn("missing-group:class0", make_dataset(10, classes=1))


def test_sets_that_ask_the_model_say_so_without_one(tensor_task, make_dataset):
    for name in ("hard", "easy", "diverse"):
        with pytest.raises(UsageError, match="need the FP32 model"):
            draw(CalibrationSet.parse(name), tensor_task, make_dataset(10))
    with pytest.raises(UsageError, match="more or less certain"):
        nothing = Asked(None, [np.zeros(1, np.float32)] * 10)
        draw(CalibrationSet.parse("hard"), tensor_task, make_dataset(10), ask=lambda dataset: nothing)
