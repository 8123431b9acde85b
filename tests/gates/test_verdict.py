"""What a verdict is made of: the three ways to treat uncertainty, and the verdict of many rules."""

from __future__ import annotations

import math

import pytest

from onnxptq.gates.rules.latency import median_bounds
from onnxptq.gates.verdict import RuleResult, Verdict, at_least, at_most, overall

PASSED, FAILED, UNDECIDED, NOT_JUDGED = Verdict.PASSED, Verdict.FAILED, Verdict.UNDECIDED, Verdict.NOT_JUDGED


@pytest.mark.parametrize(
    ("low", "value", "high", "likely", "point", "possible"),
    [
        (0.03, 0.04, 0.05, FAILED, FAILED, FAILED),
        (0.01, 0.03, 0.05, PASSED, FAILED, FAILED),
        (0.00, 0.01, 0.03, PASSED, PASSED, FAILED),
        (0.00, 0.01, 0.02, PASSED, PASSED, PASSED),
    ],
)
def test_the_mode_says_which_end_of_the_interval_decides(
    low: float, value: float, high: float, likely: Verdict, point: Verdict, possible: Verdict
) -> None:
    found = [at_most(value, low, high, 0.02, mode) for mode in ("fail-if-likely", "point", "fail-if-possible")]
    assert found == [likely, point, possible]
    mirrored = [at_least(-value, -high, -low, -0.02, mode) for mode in ("fail-if-likely", "point", "fail-if-possible")]
    assert mirrored == found


def test_what_could_not_be_measured_is_undecided() -> None:
    assert at_most(math.nan, math.nan, math.nan, 0.02, "fail-if-likely") is UNDECIDED


@pytest.mark.parametrize(
    ("verdicts", "expected", "code"),
    [
        ([PASSED, PASSED], PASSED, 0),
        ([PASSED, NOT_JUDGED], PASSED, 0),
        ([PASSED, UNDECIDED], UNDECIDED, 3),
        ([UNDECIDED, FAILED, PASSED], FAILED, 1),
        ([NOT_JUDGED], UNDECIDED, 3),
        ([], UNDECIDED, 3),
    ],
)
def test_the_worst_rule_decides_and_nothing_judged_is_no_pass(
    verdicts: list[Verdict], expected: Verdict, code: int
) -> None:
    found = overall([RuleResult("rule", verdict, "") for verdict in verdicts])
    assert (found, found.exit_code) == (expected, code)


def test_the_bounds_of_a_median_hold_as_often_as_they_say() -> None:
    # Of 21 values the 7th smallest is above the median with probability .039, the 8th with .095.
    values = [float(number) for number in range(21)]
    assert median_bounds(values, 0.95) == (6.0, 14.0)
    assert median_bounds(values, 0.90) == (7.0, 13.0)
    assert median_bounds([1.0, 2.0, 3.0], 0.95) == (-math.inf, math.inf)


def test_numbers_that_json_cannot_hold_become_null() -> None:
    result = RuleResult("latency", PASSED, "", value=1.0, low=-math.inf, high=math.nan)
    assert (result.to_dict()["low"], result.to_dict()["high"], result.to_dict()["verdict"]) == (None, None, "PASSED")
