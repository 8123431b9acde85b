"""What a study says in words: passed, failed or undecided, for whom, and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from onnxptq.gates.policy import WorstGroupDrop
from onnxptq.reports.study import LIMIT, answer_questions, study_markdown, summarize, verdict
from onnxptq.reports.sweep import print_study
from onnxptq.sweeps.study import DONE, Cell, CellKey, Study


def cell(seed=0, drop=0.0, half=0.005, **place):
    key = {"model": "m", "calibration": "clean", "strategy": "", "method": "minmax", "target": "cpu", "runtime": "cpu"}
    report = {"crossfit_drop": drop, "crossfit_drop_low": drop - half, "crossfit_drop_high": drop + half}
    report |= {"average_drop": 0.001, "cvar10_drop": drop, "flip_rate": 0.01, "largest_drop": drop}
    groups = [
        {
            "name": "label=cat*corruption=fog@3",
            "sources": 200,
            "judged": True,
            "drop": drop,
            "drop_high": drop + 10 * half,
        }
    ]
    report |= {"groups": groups, "measure": "accuracy", "minimum_samples": 20}
    return Cell(CellKey(**{**key, **place}, seed=seed), DONE, report=report)


def study(*cells, name="s"):
    return Study("run", name, "2026-11-25T12:00:00Z", {}, cells, {}, {}, "onnxptq sweep")


def verdicts(*cells):
    return [one.verdict for one in summarize(study(*cells)).combinations]


def test_the_limit_is_that_of_the_gate():
    assert WorstGroupDrop().limit == LIMIT


@pytest.mark.parametrize(
    ("drops", "expected"),
    [
        ((0.010, 0.014), "passed"),
        ((0.010, 0.049), "failed"),
        ((0.010, 0.026), "failed"),
        ((0.010, 0.024), "passed"),
    ],
)
def test_safe_means_the_whole_interval_for_every_seed_and_unsafe_for_one(drops, expected):
    assert verdicts(*(cell(seed, drop) for seed, drop in enumerate(drops))) == [expected]


def test_a_seed_that_failed_keeps_a_combination_from_being_safe():
    failed = replace(cell(1), status="failed", report={}, error="killed")
    assert verdicts(cell(0), failed) == ["undecided"]
    assert verdicts(failed) == ["broken"]
    assert verdicts(cell(0, 0.3), failed) == ["failed"]


def test_without_a_judged_group_nothing_is_decided():
    empty = cell()
    empty = replace(empty, report={**empty.report, **dict.fromkeys(("crossfit_drop", "crossfit_drop_low"), None)})
    made = summarize(study(empty))
    assert [one.verdict for one in made.combinations] == ["undecided"]
    assert "nothing can pass" in " ".join(verdict(made).findings)
    assert "(the largest has 200, and it takes 20)" in " ".join(verdict(made).findings)


def test_the_words_name_sets_methods_the_worst_group_and_the_remedy(make_study):
    words = verdict(summarize(make_study()))
    assert words.headline == "Of 12 combinations: 5 passed, 7 failed."
    findings = " ".join(words.findings)
    assert "No method passed with dark@3." in findings
    assert "entropy:bins=2048 failed" in findings
    assert '(dark@3, entropy:bins=2048); the groups that lose most there are "cat, clean", "cat, fog@3" and' in findings
    advice = " ".join(words.advice)
    assert "Add autocontrast: of 4 failed combinations 1 passes (dark@3)" in advice
    assert "minmax has the fewest failed combinations: 1 of 6" in advice and "take minmax" not in advice


def test_the_words_say_what_the_average_hides():
    words = verdict(summarize(study(cell(drop=0.3))))
    assert "The average hides 1 of 1 failed combination:" in " ".join(words.findings)


def test_failures_and_a_single_seed_are_said(make_study):
    made = make_study(seeds=(7,), fails=lambda key: key.calibration == "noisy" and key.strategy == "")
    caveats = " ".join(verdict(summarize(made)).caveats)
    assert "2 of 12 cells failed. The first: noisy, minmax, seed 7: the worker was killed (SIGKILL)" in caveats
    assert "One seed" in caveats


def test_a_study_of_three_seeds_that_began_with_one_is_not_told_to_take_three(make_study):
    made = make_study(seeds=(7,))
    caveats = verdict(summarize(replace(made, plan={**made.plan, "seeds": [7, 8, 9]}))).caveats
    assert not any("One seed" in one for one in caveats)


def test_an_unfinished_study_is_said_to_be_one(make_study):
    made = make_study(seeds=(0, 1, 2))
    axes = {name: [0] for name in ("models", "targets", "runtimes")}
    axes |= {"calibrations": [0] * 3, "strategies": [0] * 2, "methods": [0] * 2, "seeds": [0] * 5}
    summary = summarize(replace(made, plan=axes))
    caveats = verdict(summary).caveats
    assert caveats[0].startswith("The study is not finished: 36 of 60 cells have a result, ")
    assert caveats[0].endswith("Go on: onnxptq sweep --resume")
    assert not summary.named("passed"), "two seeds of five might fail"


def test_markdown_keeps_names_from_becoming_markup(make_study):
    made = make_study(calibrations=("clean", "<b>|x|*y*"), name="# @all [a](b)")
    text = study_markdown(summarize(made), answer_questions(made))
    assert text.startswith("## \\# @<!-- -->all \\[a\\](b)\n")
    outside, _, plan = text.partition("```toml")
    assert "<b>" not in outside and plan.count("```") == 1
    (row,) = (line for line in text.splitlines() if line.startswith("| \\<b\\>\\|x\\|\\*y\\* |"))
    assert row.replace("\\|", "").count("|") == 4


def test_groups_too_small_for_any_verdict_are_named_with_the_number_that_it_takes():
    near = cell(drop=0.01, half=0.02)
    small = replace(near, report={**near.report, "groups": [{**near.report["groups"][0], "sources": 30}]})
    (said,) = [line for line in verdict(summarize(study(small))).advice if "cannot be:" in line]
    assert "the smallest has 30 samples, and it takes 35 to rule out a drop of more than 10.0 points" in said
    large = replace(near, report={**near.report, "groups": [{**near.report["groups"][0], "sources": 90}]})
    assert "about 5 times as many" in " ".join(verdict(summarize(study(large))).advice)
    assert verdict(summarize(study(small), limit=0.95)), "a limit of nearly all has no such number"


def test_a_sweep_prints_what_it_cannot_tell(capsys):
    """Without labels a drop is no drop of accuracy: who reads the terminal alone must know."""
    one = cell(drop=-0.0004)
    print_study(study(replace(one, report={**one.report, "measure": "agreement"})))
    said = capsys.readouterr().out
    assert "note: The data has no labels: accuracy here is agreement with FP32" in said
    assert "note: One seed:" in said
    assert "0.0" in said and "-0.0" not in said
    failed = replace(cell(1), status="failed", report={}, error="killed")
    print_study(study(one, failed))
    said = capsys.readouterr().out
    assert said.count("killed") == 1, "once, below the tables"
