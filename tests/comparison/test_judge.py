from __future__ import annotations

import pytest

from onnxptq.comparison import ComparisonRow
from onnxptq.comparison._judge import cause, dependent_groups, provider_flips
from onnxptq.evaluation import compare
from onnxptq.evaluation.statistics import mcnemar

from .conftest import predictions

HALF = ["a"] * 30 + ["b"] * 30
RIGHT = [1] * 60
LOST_IN_B = [1] * 30 + [0] * 30


def test_flips_between_two_runtimes_come_with_mcnemars_p_value_and_the_groups_that_differ() -> None:
    flips = provider_flips(predictions(RIGHT, RIGHT, group=HALF), predictions(LOST_IN_B, RIGHT, group=HALF), ["kind"])
    assert flips.flip_rate == 0.5
    assert flips.p_value == pytest.approx(mcnemar(30, 0))
    assert flips.groups == ("kind=b",)


def test_without_labels_there_are_flips_but_no_p_value() -> None:
    none = [-1] * 60
    flips = provider_flips(predictions(RIGHT, none, group=HALF), predictions(LOST_IN_B, none, group=HALF), ["kind"])
    assert (flips.flip_rate, flips.p_value, flips.groups) == (0.5, None, ())


def test_a_drop_is_split_into_quantization_and_kernels() -> None:
    two_wrong, three_wrong = [0, 0] + [1] * 8, [0, 0, 0] + [1] * 7
    label = [1] * 10
    found = cause(predictions(label, label), predictions(two_wrong, label), predictions(three_wrong, label), None)
    assert found.quantization_drop == pytest.approx(0.2)
    assert found.kernels_drop == pytest.approx(0.1)
    assert found.kernels.flip_rate == pytest.approx(0.1)


def row(runtime: str, prediction: list[int]) -> ComparisonRow:
    reference, run = (predictions(p, RIGHT, group=HALF) for p in (RIGHT, prediction))
    return ComparisonRow("m.onnx", runtime, True, "done", 1, report=compare(reference, run, ["kind"]))


def test_a_group_that_only_one_runtime_hurts_depends_on_the_runtime() -> None:
    (group,) = dependent_groups([row("cpu", RIGHT), row("npu", LOST_IN_B)])
    assert (group.group, group.verdicts) == ("kind=b", {"cpu": "no difference", "npu": "worse"})


def test_a_group_that_every_runtime_hurts_does_not() -> None:
    assert dependent_groups([row("cpu", LOST_IN_B), row("npu", LOST_IN_B)]) == ()
