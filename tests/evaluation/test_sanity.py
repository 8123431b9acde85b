"""A reference that answers alike whatever it is given, or by chance, is nothing to judge on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnxptq.evaluation import Predictions
from onnxptq.evaluation.sanity import why_not_worth_judging

CLASSES = 4


def run(n: int = 200, accuracy: float = 0.9, *, copies: int = 1, labelled: bool = True) -> Predictions:
    rng = np.random.default_rng(n)
    label = np.repeat(rng.integers(0, CLASSES, n), copies)
    wrong = np.repeat(rng.random(n) >= accuracy, copies)
    prediction = np.where(wrong, (label + rng.integers(1, CLASSES, n * copies)) % CLASSES, label)
    score = rng.random(n * copies).astype(np.float32)
    return Predictions(
        sample_id=np.arange(n * copies).astype(str),
        source_id=np.repeat(np.arange(n), copies).astype(str),
        groups={},
        label=label if labelled else np.full(n * copies, -1),
        code=prediction,
        certainty=score,
        outputs=None,
        signal_energy=np.ones(n * copies),
        error_energy=np.zeros(n * copies),
        identity={"model": {"name": "fp32.onnx"}, "runtime": {"provider": "cpu"}},
    )


def emptied(one: Predictions, share: float, prediction: int = 0) -> Predictions:
    """The same where the first rows are of empty samples, which all get one output."""
    empty = np.arange(len(one)) < share * len(one)
    fixed = np.float32(0.5)
    return replace(
        one,
        code=np.where(empty, prediction, one.code),
        certainty=np.where(empty, fixed, one.certainty),
    )


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_one_sample_many_times_is_empty_data(share: float) -> None:
    one = run()
    zeroed = np.arange(200) < share * 200
    said = why_not_worth_judging(replace(one, source_id=np.where(zeroed, "0", one.source_id)))
    assert said is not None and f"{200 * share:.0f} of 200 samples are one and the same" in said
    # Under several corruptions a sample is still one sample.
    several = run(20, copies=30)
    corruption = np.tile([f"c{number}" for number in range(30)], 20)
    assert why_not_worth_judging(replace(several, groups={"corruption": corruption})) is None
    # Rows of a table may well be equal where their labels are.
    labels = np.where(zeroed, 0, one.label)
    same = replace(one, source_id=np.where(zeroed, "0", one.source_id), label=labels, code=labels)
    assert (why_not_worth_judging(same) is None) == (share < 0.5)


def test_where_only_classes_are_kept_outputs_are_not_called_identical() -> None:
    one = replace(run(labelled=False), certainty=None, signal_energy=np.full(200, np.nan))
    assert why_not_worth_judging(replace(one, code=np.zeros(200, np.int64))) is None
    assert why_not_worth_judging(replace(one, code=None)) is None


def test_numbers_that_are_all_the_same_are_found_without_classes() -> None:
    one = replace(run(labelled=False), certainty=None, code=None, outputs=np.zeros((200, 3), np.float32))
    said = why_not_worth_judging(one)
    assert said is not None and "identical outputs" in said
    varied = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    assert why_not_worth_judging(replace(one, outputs=varied)) is None


@pytest.mark.parametrize("accuracy", [1.0, 0.9, 0.5, 0.4])
@pytest.mark.parametrize("labelled", [True, False])
def test_a_model_that_knows_something_is_worth_judging_on(accuracy: float, labelled: bool) -> None:
    assert why_not_worth_judging(run(accuracy=accuracy, labelled=labelled)) is None


@pytest.mark.parametrize("labelled", [True, False])
def test_one_output_for_everything_is_empty_data(labelled: bool) -> None:
    said = why_not_worth_judging(emptied(run(labelled=labelled), 1.0))
    assert said is not None and "identical outputs for all 200 original samples" in said and "empty" in said


def test_samples_that_were_partly_emptied_are_found_with_labels_and_where_they_are_most_without() -> None:
    said = why_not_worth_judging(emptied(run(), 0.3))
    assert said is not None and "60 of 200 original samples, and is wrong on most of them" in said
    assert why_not_worth_judging(emptied(run(), 0.05)) is None
    assert why_not_worth_judging(emptied(run(labelled=False), 0.3)) is None
    said = why_not_worth_judging(emptied(run(labelled=False), 0.6))
    assert said is not None and "120 of 200 original samples;" in said


def test_outputs_that_a_saturated_classifier_repeats_where_it_is_right_are_fine() -> None:
    one = run(accuracy=1.0)
    saturated = replace(one, certainty=np.ones(len(one), np.float32))
    assert why_not_worth_judging(saturated) is None
    rare = replace(saturated, label=np.where(np.arange(len(one)) % 20, 0, 1), groups={})
    assert why_not_worth_judging(replace(rare, code=rare.label)) is None


def test_chance_is_not_worth_judging_on_however_many_copies_there_are() -> None:
    shuffled = run(accuracy=0.25, copies=6)
    said = why_not_worth_judging(shuffled)
    assert said is not None and "better than chance" in said
    rng = np.random.default_rng(1)
    # Copies of one sample share its luck: 3 points above chance on 200 sources are nothing, six copies or not.
    slightly = replace(shuffled, code=np.where(rng.random(len(shuffled)) < 0.04, shuffled.label, shuffled.code))
    assert why_not_worth_judging(slightly) is not None


def test_one_class_for_all_is_chance_even_where_it_is_mostly_right() -> None:
    one = run()
    constant = replace(one, label=np.where(np.arange(len(one)) % 20, 0, 1), code=np.zeros(len(one), np.int64))
    said = why_not_worth_judging(constant)
    assert said is not None and "predicts the same class for all 200 original samples" in said
    skilled = replace(constant, code=np.where(np.arange(len(one)) % 40, 0, 1))
    assert why_not_worth_judging(skilled) is None


def test_a_set_of_one_class_and_a_handful_of_samples_leave_it_open() -> None:
    one = run()
    single = replace(one, label=np.zeros(len(one), np.int64), code=np.zeros(len(one), np.int64))
    assert why_not_worth_judging(single) is None
    assert why_not_worth_judging(emptied(run(9), 1.0)) is None
