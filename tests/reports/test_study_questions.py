"""The three research questions: effects that were put in are found, and what cannot be known is said."""

from __future__ import annotations

import numpy as np
import pytest

from onnxptq.reports.study import answer_questions
from onnxptq.reports.study.answers import answer_words

SETS = ("clean", "noisy", "dark@3", "contrast@3", "blur@5")


def by_factor(study):
    found = answer_questions(study)
    return found, {one.factor: one for one in found.answers}


def test_effects_that_were_put_in_are_found(make_study):
    found, answers = by_factor(make_study(calibrations=SETS))
    assert answers["method"].p <= 0.001
    assert answers["calibration"].p < 0.05
    assert answers["strategy"].p < 0.05
    entropy = answers["method"].levels[1]
    assert entropy.difference == pytest.approx(0.12, abs=0.003)
    assert entropy.low < 0.12 < entropy.high
    autocontrast = answers["strategy"].levels[1]
    assert autocontrast.difference == pytest.approx(-np.mean([0.0, 0.01, 0.3, 0.05, 0.05]), abs=0.003)
    assert sum(row.share for row in found.variance) == pytest.approx(1.0)
    assert "Yes (" in answer_words(answers["method"], 3)[0]


def test_a_factor_without_effect_explains_nothing(make_study):
    _, answers = by_factor(make_study(methods=("minmax", "percentile")))
    assert answers["method"].share < 0.01
    assert answers["method"].p > 0.05
    assert answer_words(answers["method"], 3)[0].startswith("Not shown")


def test_one_seed_gives_no_interval_and_no_test_of_the_set(make_study):
    found, answers = by_factor(make_study(seeds=(0,)))
    assert answers["calibration"].p is None
    assert answers["calibration"].low is None
    assert answer_words(answers["calibration"], 1)[0].startswith("Not tested: all cells share one draw")
    assert "One seed" in found.notes[0]
    assert not any(row.term.startswith("seed") for row in found.variance)


def test_a_factor_with_one_level_cannot_be_answered(make_study):
    _, answers = by_factor(make_study(strategies=("",)))
    assert answer_words(answers["strategy"], 3) == ["Cannot be answered: the study has one level of it (none)."]


def test_a_method_that_always_failed_is_left_out_and_named(make_study):
    made = make_study(methods=("minmax", "entropy", "gone"), fails=lambda key: key.method == "gone")
    found, answers = by_factor(made)
    assert answers["method"].dropped == ("gone",)
    assert [level.name for level in answers["method"].levels] == ["minmax", "entropy"]
    assert found.judged == 36
    assert "18 of 54 cells" in found.notes[0]


def test_levels_are_compared_only_where_all_of_them_are(make_study):
    # The clean set failed where entropy harms: its mean would look better than it is.
    made = make_study(fails=lambda key: key.calibration == "clean" and key.method.startswith("entropy"))
    _, answers = by_factor(made)
    noisy = answers["calibration"].levels[1]
    assert noisy.difference == pytest.approx(0.005, abs=0.005)


def test_a_study_of_failures_says_so(make_study):
    found, answers = by_factor(make_study(fails=lambda key: True))
    assert found.variance == ()
    assert all(one.missing.startswith("Cannot be answered") for one in answers.values())
