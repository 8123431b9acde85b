"""Drawn samples: the same at every iteration, told apart by their places, changed by their shifts as written."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxptq.calibrators import CalibrationSet
from onnxptq.calibrators.samples import DecodedSamples, draw
from onnxptq.data import Source, calibration_only, split_source
from onnxptq.errors import DataError, UsageError
from onnxptq.recipe import Environment


@pytest.fixture
def drawn(image_task, images):
    return lambda name, **options: draw(CalibrationSet.parse(name), image_task, images, **options)


def test_iterating_again_gives_the_same_samples(drawn, drawn_rows):
    samples = drawn("gaussian@3+mixup", size=5)
    assert drawn_rows(samples) == drawn_rows(samples)
    assert len(samples) == len(list(samples)) == 5


def test_sets_that_share_their_decoded_samples_read_each_once_and_change_nothing(drawn, drawn_rows):
    reads = []

    def counted(samples):
        def rows(indices, rows=samples.dataset.rows):
            reads.extend(indices.tolist())
            return rows(indices)

        return replace(samples, dataset=replace(samples.dataset, rows=rows), decoded=decoded)

    sets = [drawn(name, size=6) for name in ("clean", "dark@3", "gaussian@3+mixup", "clean")]
    apart = [drawn_rows(one) for one in sets]
    decoded = DecodedSamples(1 << 20)
    assert [drawn_rows(counted(one)) for one in sets] == apart
    assert sorted(reads) == sorted(sets[0].dataset.indices.tolist())
    # Where two fit, the other four are read each time; mixing reads each sample and its partner.
    reads.clear()
    decoded = DecodedSamples(2 * 32 * 32 * 3 * 4)
    assert [drawn_rows(counted(one)) for one in sets] == apart
    assert len(reads) == 6 + 4 + 2 * 4 + 4


def test_each_feed_is_one_sample_with_its_place_and_what_was_done_to_it(drawn):
    samples = drawn("gaussian@3+dark@1", size=3)
    for (place, feeds), row in zip(samples, samples.dataset.indices, strict=True):
        assert place == f"images: image {row} under gaussian@3+dark@1"
        assert feeds["x"].shape == (1, 3, 32, 32)


def test_a_place_names_the_split_and_a_sample_without_data_its_number(drawn, image_task, images):
    split = draw(CalibrationSet.parse("clean"), image_task, replace(images, split="train"), size=1)
    assert next(iter(split))[0].startswith("images [train]: image ")
    noise = draw(CalibrationSet.parse("random+dark@1"), image_task, None, size=2)
    assert [place for place, _ in noise] == ["noise-0 under dark@1", "noise-1 under dark@1"]


def test_a_sample_is_keyed_by_its_content_and_not_by_its_place(image_task, images):
    moved = replace(images, source="copy", split="a", indices=images.indices + 100, rows=lambda i: images.rows(i - 100))
    one, other = (draw(CalibrationSet.parse("gaussian@3+dark@1"), image_task, of, size=3) for of in (images, moved))
    assert other.sample_id(0) == one.sample_id(0) == f"{one.dataset.fingerprints[0]}+gaussian@3+dark@1"
    assert other.digest == one.digest


def test_clean_samples_are_those_of_the_dataset(drawn, images):
    samples = drawn("clean", size=12)
    for (_, feeds), row in zip(samples, samples.dataset.read(np.arange(12)), strict=True):
        expected = (row["image"].astype(np.float32) / 255).transpose(2, 0, 1)[None]
        np.testing.assert_allclose(feeds["x"], expected, atol=1e-6)


def test_shifts_are_applied_from_left_to_right(drawn):
    def mean(name):
        return np.mean([feeds["x"].mean() for _, feeds in drawn(name)])

    # Darkening after inverting is dark; inverting what is dark is bright.
    assert mean("invert+dark@5") < 0.1
    assert mean("dark@5+invert") > 0.9


def test_a_shift_twice_is_stronger_than_once_and_noise_is_drawn_anew(drawn):
    once, twice = drawn("gaussian@1"), drawn("gaussian@1+gaussian@1")
    clean = drawn("clean")
    for (_, a), (_, b), (_, c) in zip(once, twice, clean, strict=True):
        # Independent noise adds up to the square root of 2, the same noise twice to 2.
        assert 1.2 < np.abs(b["x"] - c["x"]).mean() / np.abs(a["x"] - c["x"]).mean() < 1.7


def test_noise_differs_between_samples_and_seeds_and_not_between_runs(drawn):
    def noise(seed):
        pairs = zip(drawn("gaussian@1", seed=seed, size=12), drawn("clean", seed=seed, size=12), strict=True)
        return {place.partition(" under ")[0]: noisy["x"] - clean["x"] for (place, noisy), (_, clean) in pairs}

    one, again, other = noise(1), noise(1), noise(2)
    first, second, *_ = one
    assert not np.allclose(one[first], one[second], atol=0.01)
    assert not np.allclose(one[first], other[first], atol=0.01)
    np.testing.assert_array_equal(one[first], again[first])


def test_mixing_mixes_with_the_next_sample_of_the_set(drawn):
    clean = [feeds["x"] for _, feeds in drawn("clean", size=4)]
    for position, (_, feeds) in enumerate(drawn("mixup@3", size=4)):
        np.testing.assert_allclose(feeds["x"], (clean[position] + clean[(position + 1) % 4]) / 2, atol=1e-5)


def test_what_comes_before_a_mixing_changes_both_partners(drawn):
    dark = [feeds["x"] for _, feeds in drawn("dark@4", size=4)]
    for position, (_, feeds) in enumerate(drawn("dark@4+mixup@3", size=4)):
        np.testing.assert_allclose(feeds["x"], (dark[position] + dark[(position + 1) % 4]) / 2, atol=1e-5)


def test_an_environment_is_a_copy_under_further_shifts_of_the_first_samples(drawn, drawn_rows):
    samples = drawn("dark@1", size=6)
    copy = samples.environment(Environment("invert+blur@2", 4))
    assert len(copy) == 4
    assert [place for place, _ in copy] == [f"{place}+invert@5+blur@2" for place, _ in samples][:4]
    assert drawn_rows(samples.environment(Environment())) == drawn_rows(samples)
    assert len(samples.environment(Environment("", 99))) == 6


def test_the_digest_tells_what_the_feeds_depend_on(drawn, image_task, images, drawn_rows):
    sets = ["clean", "dark@3", "dark@4", "gaussian@3", "gaussian@3+dark@3", "dark@3+gaussian@3", "single-class:cat"]
    made = [drawn(name, seed=seed, size=size) for name in sets for seed in (0, 1) for size in (2, 3)]
    made.append(draw(CalibrationSet.parse("random"), image_task, None, size=3))
    digests = [samples.digest for samples in made]
    feeds = [tuple(drawn_rows(samples)) for samples in made]
    assert len(set(digests)) == len(set(feeds)) == len(made)
    assert drawn("dark@3", seed=0, size=2).digest == digests[sets.index("dark@3") * 4]


@given(
    st.lists(st.integers(0, 30), min_size=6, max_size=40), st.integers(0, 5), st.sampled_from(["clean", "few-class"])
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)
def test_calibration_and_evaluation_never_share_a_source_sample(tensor_task, make_dataset, contents, seed, name):
    # Contents repeat, as in a dataset with duplicates.
    values = np.asarray(contents, np.float32)[:, None].repeat(6, axis=1)
    dataset = make_dataset(values=values, classes=2)
    try:
        sides = split_source(Source("data", {"": dataset}), seed=seed)
        samples = draw(CalibrationSet.parse(name), tensor_task, sides.calibration, seed=seed)
    except (DataError, UsageError):
        return  # Too few contents for two sides, or too few classes.
    drawn = {samples.sample_id(position) for position in range(len(samples))}
    assert drawn
    assert not drawn & set(sides.evaluation.fingerprints.tolist())


def test_a_batch_joins_samples_and_fills_the_last_with_its_last(drawn, drawn_rows):
    samples = drawn("clean", size=5)
    rows = drawn_rows(samples)
    batches = list(samples.reader(2))
    assert [feeds["x"].shape[0] for feeds in batches] == [2, 2, 2]
    joined = [row.tobytes() for feeds in batches for row in feeds["x"]]
    assert joined == [*rows, rows[-1]]
    assert len(samples.reader(2)) == 3


def test_the_whole_of_a_source_is_drawn_where_it_is_not_judged(tensor_task, make_dataset):
    dataset, rule = calibration_only(Source("data", {"": make_dataset(20)}))
    assert rule == {"kind": "all", "calibration": ""}
    assert len(draw(CalibrationSet.parse("clean"), tensor_task, dataset)) == 20


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("clean", {"size": 0}, UsageError, "--calib-size must be at least 1, got 0"),
        ("clean", {"size": -3}, UsageError, "--calib-size must be at least 1, got -3"),
        ("clean", {"seed": -1}, UsageError, "seed must be a whole number of 0 or more, got -1"),
        ("clean", {"size": 13}, DataError, "--calib-size 13 is more than the 12 samples"),
        ("single-class:cat", {"size": 4}, DataError, r"more than the 3 samples that the calibration set 'single-class"),
        ("scale", {}, UsageError, "'scale@3' does not fit the model's input: scale is for tensor samples"),
    ],
)
def test_what_cannot_be_drawn_is_explained(drawn, name, options, error, message):
    with pytest.raises(error, match=message):
        drawn(name, **options)


def test_a_set_that_draws_from_data_says_that_there_is_none(image_task):
    with pytest.raises(DataError, match="'clean' draws from data: give --data"):
        draw(CalibrationSet.parse("clean"), image_task, None)
