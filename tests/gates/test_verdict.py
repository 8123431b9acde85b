"""What a verdict is made of: the two sides of a claim, one error rate for many, and the verdict of many rules."""

from __future__ import annotations

import math
from typing import Any

import pytest

from onnxptq.gates.claims import Claim, Estimate, judge_claims
from onnxptq.gates.policy import Mode
from onnxptq.gates.rules.latency import median_bounds
from onnxptq.gates.verdict import RuleResult, Verdict, overall

PASSED, FAILED, UNDECIDED, NOT_JUDGED = Verdict.PASSED, Verdict.FAILED, Verdict.UNDECIDED, Verdict.NOT_JUDGED


def claim(low: float, value: float, high: float, mode: Mode = "fail-if-likely", **changes: Any) -> Claim:
    """A claim of a limit of 2 points, of which 5 are tolerated; the interval is the same at any confidence."""
    found = Estimate(value, lambda confidence: (low, high), 100, 100, high - value, changes.pop("groups", 1))
    values = {"limit": 0.02, "tolerance": 0.05, "unit": "drop", "about": "here", **changes}
    return Claim("rule", found, mode=mode, explanation="found", repair="repair it", **values)


def verdict(one: Claim) -> Verdict:
    (result,) = judge_claims([one], 0.95)
    return result.verdict


def mirrored(one: Claim) -> Claim:
    low, high = one.found.bounds(0.95)
    return claim(-high, -one.found.value, -low, one.mode, limit=-0.02, tolerance=-0.05, floor=True)


@pytest.mark.parametrize(
    ("low", "value", "high", "likely", "point", "possible"),
    [
        (0.03, 0.04, 0.05, FAILED, FAILED, FAILED),
        (0.01, 0.03, 0.05, PASSED, FAILED, FAILED),
        (0.01, 0.03, 0.06, UNDECIDED, FAILED, FAILED),
        (0.00, 0.01, 0.06, UNDECIDED, UNDECIDED, FAILED),
        (0.00, 0.01, 0.05, PASSED, PASSED, FAILED),
        (0.00, 0.01, 0.02, PASSED, PASSED, PASSED),
    ],
)
def test_one_end_of_the_interval_fails_and_the_other_one_passes(
    low: float, value: float, high: float, likely: Verdict, point: Verdict, possible: Verdict
) -> None:
    modes: tuple[Mode, ...] = ("fail-if-likely", "point", "fail-if-possible")
    claims = [claim(low, value, high, mode) for mode in modes]
    assert [verdict(one) for one in claims] == [likely, point, possible]
    assert [verdict(mirrored(one)) for one in claims] == [likely, point, possible]


def test_a_pass_says_what_it_cannot_rule_out_and_an_undecided_how_many_samples_would() -> None:
    (passed,) = judge_claims([claim(0.0, 0.01, 0.04)], 0.95)
    assert passed.ruled_out == "at most 4.0 points here, with 95 % confidence"
    (gained,) = judge_claims([claim(-0.02, -0.01, -0.002)], 0.95)
    assert gained.ruled_out == "a gain of at least 0.2 points here, with 95 % confidence"
    (level,) = judge_claims([claim(-0.02, -0.01, -0.0002)], 0.95)
    assert level.ruled_out == "at most 0.0 points here, with 95 % confidence"
    (undecided,) = judge_claims([claim(0.0, 0.01, 0.07)], 0.95)
    assert undecided.ruled_out == "" and "7.0 points here cannot be ruled out" in undecided.explanation
    # The bound comes from 7 to 5 points with (6 / 4)² times the samples, and more where chance must not spoil it.
    assert undecided.samples_to_decide is not None and 225 < undecided.samples_to_decide < 600
    assert f"about {undecided.samples_to_decide} original samples" in undecided.next_step
    (many,) = judge_claims([claim(0.0, 0.01, 0.07, groups=70)], 0.95)
    assert many.samples_to_decide is not None and many.samples_to_decide > undecided.samples_to_decide


def test_what_lies_at_the_tolerance_is_decided_by_no_number_of_samples() -> None:
    (result,) = judge_claims([claim(0.01, 0.05, 0.09, limit=0.05)], 0.95)
    assert result.verdict is UNDECIDED and result.samples_to_decide is None


def test_claims_share_one_error_rate_from_the_surest_to_the_least_sure() -> None:
    def sure(confidence: float) -> Claim:
        """A claim that is broken at this confidence and none higher."""
        found = Estimate(0.03, lambda asked: (0.03 if asked <= confidence + 1e-9 else 0.01, 0.04), 100, 100, 0.01)
        return Claim("rule", found, 0.02, 0.05, "fail-if-likely", "found", "repair", "here")

    def verdicts(*confidences: float) -> list[Verdict]:
        return [result.verdict for result in judge_claims([sure(one) for one in confidences], 0.95)]

    assert verdicts(0.95) == [FAILED]
    assert verdicts(0.95, 0.95) == [PASSED, PASSED]
    assert verdicts(0.975, 0.95) == [FAILED, FAILED]  # Holm: what is left has the whole rate
    assert verdicts(0.975, 0.975, 0.95) == [PASSED, PASSED, PASSED]
    assert verdicts(1 - 0.05 / 3, 0.97, 0.97) == [FAILED, PASSED, PASSED]


def test_a_claim_that_fails_where_harm_is_possible_takes_nothing_of_the_error_rate() -> None:
    found = Estimate(0.03, lambda confidence: (0.03 if confidence <= 0.95 else 0.01, 0.04), 100, 100, 0.01)
    likely = Claim("rule", found, 0.02, 0.05, "fail-if-likely", "found", "repair", "here")
    results = judge_claims([likely, *[claim(0.0, 0.0, 0.01, "fail-if-possible")] * 5], 0.95)
    assert [result.verdict for result in results] == [FAILED, *[PASSED] * 5]


@pytest.mark.parametrize("mode", ["fail-if-likely", "fail-if-possible", "point"])
def test_what_could_not_be_measured_is_undecided(mode: Mode) -> None:
    assert verdict(claim(math.nan, math.nan, math.nan, mode)) is UNDECIDED


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
