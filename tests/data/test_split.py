"""No sample is ever on both sides."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxptq.data import (
    CalibratedOn,
    CalibrationAndEvaluation,
    Dataset,
    Source,
    calibration_only,
    marks,
    replay,
    split_source,
    split_sources,
    without_calibration,
)
from onnxptq.errors import DataError, UsageError

FIXED_CALIBRATION = ["s0", "s1", "s5", "s6", "s7", "s9", "s10"]

contents = st.lists(st.integers(0, 40).map(str), min_size=1, max_size=60)


def dataset(fingerprints: Sequence[str], split: str | None = None, labelled: bool = True) -> Dataset:
    count = len(fingerprints)
    return Dataset(
        source="data",
        split=split,
        rows=lambda indices: [],
        indices=np.arange(count),
        labels=np.zeros(count, np.int64) if labelled else None,
        label_names=("a",) if labelled else (),
        attributes={"row": np.arange(count).astype(np.str_)},
        fingerprints=np.array(fingerprints, np.str_),
    )


def source(labelled: bool = True, **splits: Sequence[str]) -> Source:
    return Source("data", {name: dataset(values, name, labelled) for name, values in splits.items()})


def many(count: int = 200) -> list[str]:
    return [f"s{i}" for i in range(count)]


def contents_of(sides: CalibrationAndEvaluation) -> tuple[set[str], set[str]]:
    return set(sides.calibration.fingerprints.tolist()), set(sides.evaluation.fingerprints.tolist())


@given(contents, st.integers(0, 5))
def test_no_content_is_on_both_sides_of_one_split_and_none_is_lost(values: list[str], seed: int) -> None:
    try:
        sides = split_source(Source("data", {"": dataset(values)}), seed=seed)
    except DataError:
        return
    first, second = contents_of(sides)
    assert not first & second
    assert len(sides.calibration) + len(sides.evaluation) == len(values)


@given(contents, contents)
def test_no_content_is_on_both_sides_of_named_splits_or_two_sources(train: list[str], test: list[str]) -> None:
    for make in (
        lambda: split_source(source(train=train, test=test), seed=0),
        lambda: split_sources(Source("a", {"": dataset(train)}), Source("b", {"": dataset(test)})),
    ):
        if set(train) <= set(test):
            with pytest.raises(DataError, match="evaluation side too"):
                make()
            continue
        sides = make()
        first, second = contents_of(sides)
        assert not first & second
        assert sides.evaluation.fingerprints.tolist() == test
        assert sides.rule["dropped"] == sum(value in test for value in train)


@given(st.permutations(many(40)))
def test_the_order_of_the_rows_does_not_matter(shuffled: list[str]) -> None:
    one = contents_of(split_source(Source("data", {"": dataset(many(40))}), seed=1))
    assert contents_of(split_source(Source("data", {"": dataset(shuffled)}), seed=1)) == one


def test_a_sample_stays_on_its_side_when_others_come() -> None:
    few = contents_of(split_source(Source("data", {"": dataset(many(100))}), seed=1))
    more = contents_of(split_source(Source("data", {"": dataset(many(200))}), seed=1))
    assert few[0] <= more[0]
    assert few[1] <= more[1]


def test_the_side_of_a_sample_is_fixed_for_all_time() -> None:
    """Models carry the rule: if this fails, every model written before would be judged on its calibration samples."""
    sides = split_source(Source("data", {"": dataset(many(12))}), seed=7)
    assert sides.calibration.fingerprints.tolist() == FIXED_CALIBRATION


def test_the_seed_and_the_fraction_decide() -> None:
    one = Source("data", {"": dataset(many(1000))})
    assert contents_of(split_source(one, seed=1)) != contents_of(split_source(one, seed=2))
    assert 150 < len(split_source(one, seed=1, fraction=0.2).calibration) < 250
    with pytest.raises(UsageError, match=r"between 0 and 1, got 1\.0"):
        split_source(one, seed=1, fraction=1.0)


@pytest.mark.parametrize(
    ("splits", "calibration", "evaluation"),
    [
        (("train", "test"), "train", "test"),
        (("test", "validation", "train"), "train", "test"),
        (("validation", "test"), "validation", "test"),
        (("train", "validation"), "train", "validation"),
        (("dev", "Test"), "dev", "Test"),
        (("train", "unsupervised", "test"), "train", "test"),
    ],
)
def test_named_splits_go_to_the_side_they_are_for(splits: tuple[str, ...], calibration: str, evaluation: str) -> None:
    sides = split_source(source(**{name: many(3) if name == calibration else [name] for name in splits}), seed=0)
    assert sides.calibration.split == calibration
    assert sides.evaluation.split == evaluation


def test_a_test_split_without_labels_yields_to_a_labelled_validation_split() -> None:
    splits = {"train": dataset(["a"], "train"), "validation": dataset(["b"], "validation")}
    hidden = Source("data", {**splits, "test": dataset(["c"], "test", labelled=False)})
    assert split_source(hidden, seed=0).evaluation.split == "validation"
    unlabelled = source(labelled=False, train=["a"], validation=["b"], test=["c"])
    assert split_source(unlabelled, seed=0).evaluation.split == "test"


def test_unknown_splits_are_refused_with_the_remedy() -> None:
    with pytest.raises(DataError, match=r"has the splits north, south; expected train .*--calib-data and --eval-data"):
        split_source(source(north=["a"], south=["b"]), seed=0)


@pytest.mark.parametrize("values", [["a"], ["a", "a", "a"]])
def test_too_little_data_is_refused(values: list[str]) -> None:
    with pytest.raises(DataError, match=r"is left to (calibrate|evaluate) on.*Give more data"):
        split_source(Source("data", {"": dataset(values)}), seed=0)


@pytest.mark.parametrize("data", [Source("data", {"": dataset(many())}), source(train=["a", "b"], test=["b"])])
def test_a_rule_is_json_and_replays(data: Source) -> None:
    sides = split_source(data, seed=3)
    again = replay(json.loads(json.dumps(sides.rule)), data)
    assert contents_of(again) == contents_of(sides)
    assert again.rule == sides.rule


def test_a_rule_for_other_splits_is_refused() -> None:
    rule = split_source(source(train=["a"], test=["b"]), seed=0).rule
    with pytest.raises(DataError, match="no split 'train'"):
        replay(rule, Source("data", {"": dataset(many())}))
    single = split_source(Source("data", {"": dataset(many())}), seed=0).rule
    with pytest.raises(DataError, match="train, test, but the rule is for a single one"):
        replay(single, source(train=["a"], test=["b"]))


def test_evaluation_later_leaves_the_calibration_side_out_of_the_same_data_only() -> None:
    data = Source("data", {"": dataset(many())})
    sides = split_source(data, seed=3)
    later = without_calibration(data, CalibratedOn(data.digest, sides.rule))
    assert later.fingerprints.tolist() == sides.evaluation.fingerprints.tolist()
    assert len(without_calibration(data, CalibratedOn("another digest", sides.rule))) == len(data.splits[""])
    assert len(without_calibration(data, None)) == len(data.splits[""])


def test_evaluation_after_calibrating_on_all_of_it_has_nothing_left() -> None:
    data = Source("data", {"": dataset(many())})
    everything, rule = calibration_only(data)
    assert len(everything) == 200
    with pytest.raises(DataError, match="calibrated on all of it"):
        without_calibration(data, CalibratedOn(data.digest, rule))


def test_evaluation_after_calibrating_on_the_training_split_uses_the_test_split() -> None:
    data = source(train=["a", "b"], test=["c"])
    used, rule = calibration_only(data)
    assert used.split == "train"
    assert without_calibration(data, CalibratedOn(data.digest, rule)).split == "test"
    assert without_calibration(data, None).split == "test"


def test_evaluation_on_the_source_that_calibrated_beside_another_has_nothing_left() -> None:
    first, second = Source("a", {"": dataset(["a", "b"])}), Source("b", {"": dataset(["b", "c"])})
    sides = split_sources(first, second)
    assert sides.calibration.fingerprints.tolist() == ["a"]
    with pytest.raises(DataError, match="calibrated on all of it"):
        without_calibration(first, CalibratedOn(first.digest, sides.rule))
    assert len(without_calibration(second, CalibratedOn(first.digest, sides.rule))) == 2


def test_samples_that_calibrated_are_not_judged_where_the_data_was_changed_since() -> None:
    data = Source("data", {"": dataset(many())})
    sides = split_source(data, seed=0)
    model = CalibratedOn(data.digest, sides.rule, marks(sides.calibration.fingerprints[:40]))
    grown = Source("data", {"": dataset([*many(), "one more"])})
    assert grown.digest != data.digest and model.changed(grown) and not model.changed(data)
    judged = set(without_calibration(grown, model).fingerprints.tolist())
    assert judged - {"one more"} == set(sides.evaluation.fingerprints.tolist())
    # Two folders in place of one: the rule does not fit any more, what calibrated is left out one by one.
    parted = source(train=sides.calibration.fingerprints.tolist(), test=many())
    left = set(without_calibration(parted, model).fingerprints.tolist())
    assert left == set(many()) - set(sides.calibration.fingerprints[:40].tolist())
    other = Source("other", {"": dataset([f"new {name}" for name in many()])})
    assert not model.changed(other) and len(without_calibration(other, model)) == len(many())
    with pytest.raises(DataError, match="calibrated on all of it"):
        without_calibration(Source("data", {"": dataset(sides.calibration.fingerprints[:40].tolist())}), model)


def test_what_was_not_drawn_of_the_only_split_is_left_to_judge_on() -> None:
    data = Source("data", {"": dataset(many())})
    used, rule = calibration_only(data)
    model = CalibratedOn(data.digest, rule, marks(used.fingerprints[:50]))
    assert without_calibration(data, model).fingerprints.tolist() == used.fingerprints[50:].tolist()


def test_marks_are_eight_characters_a_distinct_sample() -> None:
    assert marks(np.array(["a", "b", "a"])) == marks(np.array(["b", "a"])) and len(marks(np.array(["a", "b"]))) == 16
    assert marks(np.array([], dtype=np.str_)) == ""
