"""What a study advises: every row of its decision tables, and that no row is left out."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest

from onnxptq.reports.study import summarize, verdict
from onnxptq.reports.study.advice import CLOSING
from onnxptq.reports.study.tally import Tally
from onnxptq.sweeps.study import DONE, FAILED, Cell, CellKey, Study

DROPS = {
    "passed": (0.0, 0.005, 0.05),
    "failed": (0.3, 0.31, 0.4),
    "near": (0.0, 0.03, 0.15),
    "above": (0.0, 0.06, 0.15),
}
"""Ends of the cross-fitted drop, and the largest upper end of a group."""


def cell(says="passed", group="fog@3", **place):
    """A cell that is passed, failed, undecided (near or above the limit), broken, or too small to be judged."""
    key = {"model": "m.onnx", "calibration": "clean", "strategy": "", "method": "minmax"}
    key |= {"target": "cpu", "runtime": "cpu", "seed": 0}
    where = CellKey(**{**key, **place})
    if says == "broken":
        return Cell(where, FAILED, error="killed")
    low, high, possible = DROPS.get(says, (None, None, None))
    drop = None if low is None else (low + high) / 2
    names = group if isinstance(group, tuple) else (group,)
    groups = [{"name": f"corruption={n}", "sources": 900, "judged": drop is not None, "drop": drop} for n in names]
    groups = [{**one, "drop_high": possible} for one in groups]
    report = {"crossfit_drop": drop, "crossfit_drop_low": low, "crossfit_drop_high": high, "average_drop": 0.1}
    report |= {"groups": groups, "measure": "accuracy", "minimum_samples": 1000 if drop is None else 20}
    return Cell(where, DONE, report=report)


def words(*cells, **axes):
    """The verdict; the plan is the grid of the cells, and what `axes` adds to it."""
    names = ("model", "calibration", "strategy", "method", "target", "runtime", "seed")
    plural = {"strategy": "strategies"}
    plan = {plural.get(n, f"{n}s"): list(dict.fromkeys(getattr(c.key, n) for c in cells)) for n in names}
    return verdict(summarize(Study("run-1", "s", "2026", {**plan, **axes}, cells, {}, {}, "onnxptq sweep p.toml")))


def sets(*says, **more):
    """A cell for each calibration set, and the words about them."""
    return words(*(cell(one, calibration=f"dark@{i + 1}") for i, one in enumerate(says)), **more)


@pytest.mark.parametrize(
    ("says", "begins"),
    [
        (("small", "small"), "Nothing can be chosen by this study: judge on more samples"),
        (("broken", "broken"), "Nothing can be chosen by this study: see why cells failed (onnxptq runs show run-1)."),
        (("near", "above"), "Nothing was shown to pass, and nothing to fail (2 undecided): do not choose"),
        (("near", "broken"), "Nothing was shown to pass, and nothing to fail (1 undecided, 1 broken)"),
        (("failed", "failed"), "Everything here failed."),
        (
            ("failed", "near"),
            "Nothing was shown to pass: 1 of 2 combinations failed, and the others may too (1",
        ),
        (
            ("failed", "small"),
            "Nothing was shown to pass: 1 of 2 combinations failed, and the others may too (1",
        ),
        (
            ("passed", "passed"),
            "Everything passed: choose what is smallest or fastest, and gate it with onnxptq check.",
        ),
        (
            ("passed", "near", "passed"),
            "Choose among the 2 combinations that passed, the smallest or fastest of them, and gate it",
        ),
        (("passed", "failed"), "One combination passed: gate it with onnxptq check."),
        (("passed", "broken"), "One combination passed: gate it with onnxptq check."),
    ],
)
def test_the_last_advice_follows_what_was_shown(says, begins):
    made = sets(*says)
    assert made.advice[-1].startswith(begins), made.advice
    assert ("Everything passed" in made.advice[-1]) == (set(says) == {"passed"})
    open_ones = len(says) - sum(one in ("passed", "failed") for one in says)
    assert ("has not passed" in made.advice[-1]) == ("passed" in says and open_ones > 0)


def test_exactly_one_row_of_the_table_applies_to_any_study():
    for passed, failed, undecided, unjudged, broken, waiting in itertools.product((0, 2), repeat=6):
        found = Tally(passed, failed, undecided, unjudged, broken, waiting, 9, 0, 0, 0)
        if found.combinations:
            assert sum(row.applies(found) for row in CLOSING) == 1, found


def test_a_study_that_has_begun_is_not_taken_for_a_safe_one():
    one = cell("passed")
    made = words(one, calibrations=[f"dark@{i}" for i in range(1, 6)], seeds=[0, 1, 2])
    assert made.headline == "Of 5 combinations: none passed, none failed, 1 undecided, 4 without a result yet."
    assert made.findings[0] == "With clean: minmax undecided (not every seed was judged)."
    assert "do not choose by this study yet" in made.advice[-1]
    assert "1 of 15 cells has a result" in made.caveats[0]


@pytest.mark.parametrize(
    ("says", "more", "why"),
    [
        (("broken", "broken"), {}, "Nothing was judged: every cell failed."),
        (
            ("small", "small"),
            {},
            "Nothing was judged: no group has enough original samples (the largest has 900, and it takes 1000), so "
            "nothing can pass.",
        ),
        (
            ("small", "broken"),
            {},
            "Nothing was judged: 1 of 2 cells failed; in 1 of 2 cells no group has enough original samples (the "
            "largest has 900, and it takes 1000).",
        ),
        (
            ("broken",),
            {"calibrations": ["dark@1", "dark@2", "dark@3"]},
            "Nothing was judged: 1 of 3 cells failed; 2 of 3 cells have no result yet.",
        ),
    ],
)
def test_why_nothing_was_judged_is_said(says, more, why):
    made = sets(*says, **more)
    assert made.findings[-1] == why
    assert made.advice[0].startswith("Nothing can be chosen by this study") and len(made.advice) == 1


def methods(**says):
    """The advice on the method: for each method one verdict a calibration set, blank-separated."""
    cells = [
        cell(one, method=method, calibration=f"dark@{i + 1}")
        for method, text in says.items()
        for i, one in enumerate(text.split())
    ]
    return [line for line in words(*cells).advice if "on average" in line]


@pytest.mark.parametrize(
    ("says", "begins"),
    [
        (
            {"robust": "passed passed", "mse": "passed failed"},
            "If you cannot vouch for the calibration set, take robust: all 2",
        ),
        (
            {"robust": "passed near", "mse": "passed failed"},
            "If you cannot vouch for the calibration set, look at robust first: none of its 2 combinations "
            "failed, 1 passed",
        ),
        (
            {"robust": "passed failed", "mse": "failed failed"},
            "No method passed whatever the calibration set, so choose the set with care. robust has the fewest failed",
        ),
        (
            {"robust": "passed failed failed failed", "mse": "failed broken broken broken"},
            "No method passed whatever the calibration set, so choose the set with care. robust has the fewest failed "
            "combinations: 0 of the 1 judged with each",
        ),
        (
            {"robust": "passed failed", "mse": "passed failed"},
            "The methods are alike (1 of 2 combinations failed with each",
        ),
        (
            {"robust": "passed passed", "mse": "passed passed"},
            "The methods are alike (none of 2 combinations failed with",
        ),
        # A method is not the better one for failing where the others are judged, or failed where they fail.
        (
            {"robust": "passed broken", "mse": "passed failed"},
            "The methods are alike where each was judged (none of 1 combination",
        ),
        ({"robust": "failed passed", "mse": "broken failed"}, "No method passed whatever the calibration set"),
    ],
)
def test_a_method_is_named_for_what_it_was_shown_to_be(says, begins):
    (line,) = methods(**says)
    assert line.startswith(begins)
    assert "take" not in line or says["robust"] == "passed passed"


def test_no_method_is_advised_where_there_is_nothing_to_compare():
    assert methods(robust="passed passed") == []
    assert methods(robust="passed passed", mse="broken broken") == []
    assert methods(robust="small", mse="small") == []


def strategy(*pairs):
    """The advice on a strategy: (without, with) for each calibration set."""
    cells = [
        cell(one, calibration=f"dark@{i + 1}", strategy=name)
        for i, pair in enumerate(pairs)
        for name, one in zip(("", "autocontrast"), pair, strict=True)
    ]
    return [line for line in words(*cells).advice if "autocontrast" in line and not line.startswith(("Ch", "Ever"))]


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (
            [("failed", "passed"), ("failed", "near"), ("passed", "passed")],
            "Add autocontrast: of 2 failed combinations 1 passes and 1 becomes undecided (dark@1 and dark@2); "
            "none that had not failed fails.",
        ),
        (
            [("failed", "passed"), ("passed", "failed")],
            "autocontrast is for some sets only: of 1 failed combination 1 passes (dark@1), and 1 that had not "
            "failed fails (dark@2).",
        ),
        (
            [("passed", "failed"), ("failed", "failed")],
            "Do without autocontrast: it makes 1 combination fail (dark@1) and repairs none.",
        ),
        (
            [("failed", "above"), ("passed", "near")],
            "Try autocontrast: of 1 failed combination 1 becomes undecided (dark@1); none that had not failed fails.",
        ),
        ([("passed", "passed"), ("failed", "failed")], None),
        ([("failed", "broken"), ("failed", "small")], None),
    ],
)
def test_a_strategy_repairs_what_it_was_judged_to_repair(pairs, said):
    assert strategy(*pairs) == ([] if said is None else [said])


def test_a_verdict_that_depends_on_the_runtime_names_it():
    cells = [
        cell(one, calibration="dark@3", method=method, runtime=runtime)
        for method, text in {"minmax": "failed passed", "mse": "passed passed"}.items()
        for runtime, one in zip(("cpu", "cpu:exact"), text.split(), strict=True)
    ]
    assert words(*cells).findings[0] == "With dark@3: mse passed; minmax failed on cpu, passed on cpu:exact."


def test_only_what_decides_is_named_and_the_rest_is_said_once():
    said = {("cpu", "cpu"): "failed", ("cpu", "ov"): "failed", ("trt", "cpu"): "near", ("trt", "ov"): "near"}
    cells = [cell(one, target=target, runtime=runtime) for (target, runtime), one in said.items()]
    assert words(*cells).findings[0] == (
        "With clean: minmax failed for target cpu, undecided (within the limit) for target trt."
    )
    said = {**dict.fromkeys(said, "passed"), ("cpu", "cpu"): "failed"}
    cells = [cell(one, target=target, runtime=runtime) for (target, runtime), one in said.items()]
    assert words(*cells).findings[0] == "With clean: minmax failed for target cpu on cpu, else passed."


def test_every_method_is_safe_only_where_each_is_and_was_judged_everywhere():
    cells = [cell(method=method, runtime=runtime) for method in ("minmax", "mse") for runtime in ("cpu", "ov")]
    assert words(*cells).findings[0] == "Every method passed with clean."
    assert words(*cells[:-1]).findings[0] == "With clean: minmax passed; mse passed on cpu."
    assert words(*cells, methods=["minmax", "mse", "lp"]).findings[0] == "With clean: minmax and mse passed."


def test_what_has_a_result_in_some_places_is_said_of_those():
    places = list(itertools.product(("cpu", "trt"), ("cpu", "ov")))
    cells = [cell("passed", target=target, runtime=runtime) for target, runtime in places]
    others = [cell("passed", calibration="dark@3", target=target, runtime=runtime) for target, runtime in places[:3]]
    assert words(*cells, *others).findings[:2] == (
        "With clean: minmax passed.",
        "With dark@3: minmax passed for target cpu on cpu, for target cpu on ov and for target trt on cpu.",
    )


def test_a_runtime_that_the_plan_still_has_to_judge_is_not_spoken_for():
    made = words(cell("passed", runtime="cpu:exact"), runtimes=["cpu:exact", "cpu"])
    assert made.findings[0] == "With clean: minmax passed on cpu:exact."


def test_groups_that_lose_as_much_are_all_named():
    fog, both = cell("failed", "fog@3"), cell("failed", ("fog@3", "blur@3"), method="mse")
    motion = cell("failed", "motion_blur@3", calibration="dark@3")
    again = cell("failed", "motion_blur@3", calibration="dark@3", method="mse")
    findings = words(fog, both, motion, again).findings
    assert findings[2] == (
        "Among the 4 failed combinations, fog@3 and motion_blur@3 are the groups that lose most, each in 2."
    )
    assert "the groups that lose most there are blur@3 and fog@3, 30.5 points each" in words(both).findings[1]


def test_all_drops_are_means_over_the_seeds():
    """The group too: that it lost 50 points in one draw is not set beside a mean of 30."""
    cells = [cell("failed", seed=seed) for seed in (0, 1)]
    drops = (0.1, 0.5)
    groups = [[{**c.report["groups"][0], "drop": drop}] for c, drop in zip(cells, drops, strict=True)]
    cells = [
        replace(c, report={**c.report, "crossfit_drop": drop, "groups": group})
        for c, drop, group in zip(cells, drops, groups, strict=True)
    ]
    assert words(*cells).findings[1] == (
        "The largest cross-fitted worst-group drop is 30.0 points (clean, minmax); the group that loses most there is "
        "fog@3, 30.0 points (means over 2 seeds)."
    )
    assert math.isclose(summarize(Study("r", "s", "", {}, tuple(cells), {}, {}, "")).combinations[0].hurt_drop, 0.3)
