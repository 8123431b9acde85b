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

DROPS = {"safe": (0.0, 0.005), "unsafe": (0.3, 0.31), "near": (0.0, 0.03), "above": (0.0, 0.06)}
"""Ends of the interval."""


def cell(says="safe", group="fog@3", **place):
    """A cell that is safe, unsafe, undecided (near or above the limit), failed, or too small to be judged."""
    key = {"model": "m.onnx", "calibration": "clean", "strategy": "", "method": "minmax"}
    key |= {"target": "cpu", "runtime": "cpu", "seed": 0}
    where = CellKey(**{**key, **place})
    if says == "failed":
        return Cell(where, FAILED, error="killed")
    low, high = DROPS.get(says, (None, None))
    drop = None if low is None else (low + high) / 2
    names = group if isinstance(group, tuple) else (group,)
    groups = [{"name": f"corruption={n}", "sources": 900, "judged": drop is not None, "drop": drop} for n in names]
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
        (("failed", "failed"), "Nothing can be chosen by this study: see why cells failed (onnxptq runs show run-1)."),
        (("near", "above"), "Nothing was shown to be safe, and nothing to be unsafe (2 undecided): do not choose"),
        (("near", "failed"), "Nothing was shown to be safe, and nothing to be unsafe (1 undecided, 1 failed)"),
        (("unsafe", "unsafe"), "Everything here is unsafe."),
        (
            ("unsafe", "near"),
            "Nothing was shown to be safe: 1 of 2 combinations is unsafe, and the others may be too (1",
        ),
        (
            ("unsafe", "small"),
            "Nothing was shown to be safe: 1 of 2 combinations is unsafe, and the others may be too (1",
        ),
        (("safe", "safe"), "Everything is safe: choose what is smallest or fastest, and gate it with onnxptq check."),
        (
            ("safe", "near", "safe"),
            "Choose among the 2 safe combinations, the smallest or fastest of them, and gate it",
        ),
        (("safe", "unsafe"), "One combination was shown to be safe: gate it with onnxptq check."),
        (("safe", "failed"), "One combination was shown to be safe: gate it with onnxptq check."),
    ],
)
def test_the_last_advice_follows_what_was_shown(says, begins):
    made = sets(*says)
    assert made.advice[-1].startswith(begins), made.advice
    assert ("Everything is safe" in made.advice[-1]) == (set(says) == {"safe"})
    open_ones = len(says) - sum(one in ("safe", "unsafe") for one in says)
    assert ("not shown to be safe" in made.advice[-1]) == ("safe" in says and open_ones > 0)


def test_exactly_one_row_of_the_table_applies_to_any_study():
    for safe, unsafe, undecided, unjudged, failed, waiting in itertools.product((0, 2), repeat=6):
        found = Tally(safe, unsafe, undecided, unjudged, failed, waiting, 9, 0, 0, 0)
        if found.combinations:
            assert sum(row.applies(found) for row in CLOSING) == 1, found


def test_a_study_that_has_begun_is_not_taken_for_a_safe_one():
    one = cell("safe")
    made = words(one, calibrations=[f"dark@{i}" for i in range(1, 6)], seeds=[0, 1, 2])
    assert made.headline == "Of 5 combinations: none safe, none unsafe, 1 undecided, 4 without a result yet."
    assert made.findings[0] == "With clean: minmax undecided (not every seed was judged)."
    assert "do not choose by this study yet" in made.advice[-1]
    assert "1 of 15 cells has a result" in made.caveats[0]


@pytest.mark.parametrize(
    ("says", "more", "why"),
    [
        (("failed", "failed"), {}, "Nothing was judged: every cell failed."),
        (
            ("small", "small"),
            {},
            "Nothing was judged: no group has enough original samples (the largest has 900, and it takes 1000), so "
            "nothing can be called safe.",
        ),
        (
            ("small", "failed"),
            {},
            "Nothing was judged: 1 of 2 cells failed; in 1 of 2 cells no group has enough original samples (the "
            "largest has 900, and it takes 1000).",
        ),
        (
            ("failed",),
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
            {"robust": "safe safe", "mse": "safe unsafe"},
            "If you cannot vouch for the calibration set, take robust: all 2",
        ),
        (
            {"robust": "safe near", "mse": "safe unsafe"},
            "If you cannot vouch for the calibration set, look at robust first: none of its 2 combinations is "
            "unsafe, 1 is shown to be safe",
        ),
        (
            {"robust": "safe unsafe", "mse": "unsafe unsafe"},
            "No method is safe whatever the calibration set, so choose the set with care. robust has the fewest un",
        ),
        (
            {"robust": "safe unsafe unsafe unsafe", "mse": "unsafe failed failed failed"},
            "No method is safe whatever the calibration set, so choose the set with care. robust has the fewest unsafe "
            "combinations: 0 of the 1 judged with each",
        ),
        (
            {"robust": "safe unsafe", "mse": "safe unsafe"},
            "The methods are alike (1 of 2 combinations unsafe with each",
        ),
        ({"robust": "safe safe", "mse": "safe safe"}, "The methods are alike (none of 2 combinations unsafe with"),
        # A method is not the better one for failing where the others are judged, or unsafe where they fail.
        (
            {"robust": "safe failed", "mse": "safe unsafe"},
            "The methods are alike where each was judged (none of 1 combination",
        ),
        ({"robust": "unsafe safe", "mse": "failed unsafe"}, "No method is safe whatever the calibration set"),
    ],
)
def test_a_method_is_named_for_what_it_was_shown_to_be(says, begins):
    (line,) = methods(**says)
    assert line.startswith(begins)
    assert "take" not in line or says["robust"] == "safe safe"


def test_no_method_is_advised_where_there_is_nothing_to_compare():
    assert methods(robust="safe safe") == []
    assert methods(robust="safe safe", mse="failed failed") == []
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
            [("unsafe", "safe"), ("unsafe", "near"), ("safe", "safe")],
            "Add autocontrast: of 2 unsafe combinations 1 becomes safe and 1 becomes undecided (dark@1 and dark@2); "
            "none that was not unsafe becomes so.",
        ),
        (
            [("unsafe", "safe"), ("safe", "unsafe")],
            "autocontrast is for some sets only: of 1 unsafe combination 1 becomes safe (dark@1), and 1 that was not "
            "unsafe becomes so (dark@2).",
        ),
        (
            [("safe", "unsafe"), ("unsafe", "unsafe")],
            "Do without autocontrast: it makes 1 combination unsafe (dark@1) and repairs none.",
        ),
        (
            [("unsafe", "above"), ("safe", "near")],
            "Try autocontrast: of 1 unsafe combination 1 becomes undecided (dark@1); none that was not unsafe becomes "
            "so.",
        ),
        ([("safe", "safe"), ("unsafe", "unsafe")], None),
        ([("unsafe", "failed"), ("unsafe", "small")], None),
    ],
)
def test_a_strategy_repairs_what_it_was_judged_to_repair(pairs, said):
    assert strategy(*pairs) == ([] if said is None else [said])


def test_a_verdict_that_depends_on_the_runtime_names_it():
    cells = [
        cell(one, calibration="dark@3", method=method, runtime=runtime)
        for method, text in {"minmax": "unsafe safe", "mse": "safe safe"}.items()
        for runtime, one in zip(("cpu", "cpu:exact"), text.split(), strict=True)
    ]
    assert words(*cells).findings[0] == "With dark@3: mse safe; minmax unsafe on cpu, safe on cpu:exact."


def test_only_what_decides_is_named_and_the_rest_is_said_once():
    said = {("cpu", "cpu"): "unsafe", ("cpu", "ov"): "unsafe", ("trt", "cpu"): "near", ("trt", "ov"): "near"}
    cells = [cell(one, target=target, runtime=runtime) for (target, runtime), one in said.items()]
    assert words(*cells).findings[0] == (
        "With clean: minmax unsafe for target cpu, undecided (within the limit) for target trt."
    )
    said = {**dict.fromkeys(said, "safe"), ("cpu", "cpu"): "unsafe"}
    cells = [cell(one, target=target, runtime=runtime) for (target, runtime), one in said.items()]
    assert words(*cells).findings[0] == "With clean: minmax unsafe for target cpu on cpu, else safe."


def test_every_method_is_safe_only_where_each_is_and_was_judged_everywhere():
    cells = [cell(method=method, runtime=runtime) for method in ("minmax", "mse") for runtime in ("cpu", "ov")]
    assert words(*cells).findings[0] == "Every method is safe with clean."
    assert words(*cells[:-1]).findings[0] == "With clean: minmax safe; mse safe on cpu."
    assert words(*cells, methods=["minmax", "mse", "lp"]).findings[0] == "With clean: minmax and mse safe."


def test_what_has_a_result_in_some_places_is_said_of_those():
    places = list(itertools.product(("cpu", "trt"), ("cpu", "ov")))
    cells = [cell("safe", target=target, runtime=runtime) for target, runtime in places]
    others = [cell("safe", calibration="dark@3", target=target, runtime=runtime) for target, runtime in places[:3]]
    assert words(*cells, *others).findings[:2] == (
        "With clean: minmax safe.",
        "With dark@3: minmax safe for target cpu on cpu, for target cpu on ov and for target trt on cpu.",
    )


def test_a_runtime_that_the_plan_still_has_to_judge_is_not_spoken_for():
    made = words(cell("safe", runtime="cpu:exact"), runtimes=["cpu:exact", "cpu"])
    assert made.findings[0] == "With clean: minmax safe on cpu:exact."


def test_groups_that_lose_as_much_are_all_named():
    fog, both = cell("unsafe", "fog@3"), cell("unsafe", ("fog@3", "blur@3"), method="mse")
    motion = cell("unsafe", "motion_blur@3", calibration="dark@3")
    again = cell("unsafe", "motion_blur@3", calibration="dark@3", method="mse")
    findings = words(fog, both, motion, again).findings
    assert findings[2] == (
        "Among the 4 unsafe combinations, fog@3 and motion_blur@3 are the groups that lose most, each in 2."
    )
    assert "the groups that lose most there are blur@3 and fog@3, 30.5 points each" in words(both).findings[1]


def test_all_drops_are_means_over_the_seeds():
    """The group too: that it lost 50 points in one draw is not set beside a mean of 30."""
    cells = [cell("unsafe", seed=seed) for seed in (0, 1)]
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
