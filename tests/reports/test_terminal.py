"""What a person reads: one line, then the groups from the worst to the best, whatever characters their names have."""

from __future__ import annotations

import math

import pytest

from onnxptq.evaluation.report import GroupResult, Report
from onnxptq.evaluation.totals import TotalDrop
from onnxptq.reports.terminal import print_report, summary_line


def group(name="label=cat*corruption=fog@3", **changed):
    values = {
        "name": name, "n": 90, "sources": 90, "fp32": 0.9, "int8": 0.8, "drop": 0.1, "drop_low": 0.02,
        "drop_high": 0.18, "int8_low": 0.7, "int8_high": 0.87, "flips": 0.125, "p_value": 0.03, "judged": True,
    }  # fmt: skip
    return GroupResult(**{**values, **changed})


def report(*groups, **changed):
    values = {
        "measure": "accuracy", "model": "m.int8.onnx", "reference": "m.onnx", "provider": "cpu", "n": 900,
        "sources": 90, "fp32_average": 0.95, "int8_average": 0.912, "average_drop": 0.038, "average_drop_low": 0.01,
        "average_drop_high": 0.06, "worst_group": "label=cat*corruption=fog@3", "worst_accuracy": 0.8,
        "largest_drop_group": "label=dog", "largest_drop": 0.123, "crossfit_drop": 0.1, "crossfit_drop_low": 0.0,
        "crossfit_drop_high": 0.2, "cvar10_drop": 0.11, "flip_rate": 0.05, "sqnr_db": 23.456, "minimum_samples": 20,
        "groups": tuple(groups) or (group(),),
    }  # fmt: skip
    return Report(**{**values, **changed})


@pytest.fixture
def printed(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)

    def printed(made, *, every=False):
        print_report(made, every=every)
        return capsys.readouterr().out

    return printed


def test_the_line_has_average_worst_group_largest_drop_and_size():
    line = summary_line(report(), 98_460, 4_567_890)
    assert line == (
        "m.int8.onnx on cpu: average accuracy 95.0 % -> 91.2 %; worst group label=cat*corruption=fog@3 at 80.0 %; "
        "largest drop +12.3 in label=dog; cross-fitted worst-group drop +10.0; 98 KB -> 4.57 MB"
    )
    assert "KB" not in summary_line(report())


def test_the_line_says_where_no_group_can_be_judged():
    line = summary_line(report(worst_group=None, worst_accuracy=math.nan, largest_drop=math.nan))
    assert "no group has the 20 samples that it takes to be judged" in line
    assert "nan" not in line


def test_a_row_has_n_accuracies_drop_interval_flips_and_significance(printed):
    (row,) = (line for line in printed(report()).splitlines() if "label=cat" in line)
    cells = [cell.strip() for cell in row.strip("│┃").split("│")]
    expected = ["label=cat · corruption=fog@3", "90", "90.0 %", "80.0 %", "+10.0", "+2.0 to +18.0", "12.5 %", "*"]
    assert cells == expected


@pytest.mark.parametrize(
    ("changed", "mark"),
    [({"p_value": 0.06}, ""), ({"p_value": None}, ""), ({"p_value": None, "judged": False}, "few"), ({}, "*")],
)
def test_the_mark_tells_what_differs_and_what_is_too_small(printed, changed, mark):
    out = printed(report(group(**changed)))
    (row,) = (line for line in out.splitlines() if "label=cat" in line)
    assert row.strip("│┃").split("│")[-1].strip() == mark
    assert ("(label=cat" in row) == (mark == "few")
    assert ("never called worst" in out) == (mark == "few")


def test_rows_keep_the_order_of_the_report(printed):
    out = printed(report(*(group(name) for name in ("label=b", "label=a", "label=c"))))
    assert out.index("label=b") < out.index("label=a") < out.index("label=c")


def test_the_worst_ten_groups_are_shown_and_how_to_see_all(printed):
    many = report(*(group(f"label={i:03d}") for i in range(100)))
    out, whole = printed(many), printed(many, every=True)
    assert [i for i in range(100) if f"label={i:03d}" in out] == list(range(10))
    assert "The 10 worst of 100 groups: --all-groups prints all" in out
    assert all(f"label={i:03d}" in whole for i in range(100)) and "--all-groups" not in whole
    assert "--all-groups" not in printed(report(*(group(f"label={i:03d}") for i in range(10))))


@pytest.mark.parametrize("name", ["label=[b]cat[/b]", "label=[/nothing]", "label=:cat:", "label=[red]", "label=größe"])
def test_names_of_groups_and_files_are_printed_as_they_are(printed, name):
    out = printed(report(group(name), model="m[1].onnx", reference="[bold]m.onnx"))
    assert name in out
    assert "m[1].onnx against [bold]m.onnx" in out


def test_the_legend_says_what_the_numbers_are(printed):
    out = printed(report())
    assert "Overall: flips 5.0 %, worst tenth of groups +11.0, output SQNR 23.5 dB." in out
    assert "No labels" not in out
    assert "corrected for 2 groups" in printed(report(group(), group(), group(p_value=None, judged=False)))
    assert "McNemar" not in printed(report(group(p_value=None)))
    out = printed(report(measure="agreement", sqnr_db=None, cvar10_drop=math.nan))
    assert "No labels: accuracy here is agreement with FP32" in out
    assert "SQNR" not in out
    assert "worst tenth of groups -" in out


def test_scores_that_are_no_accuracy_are_called_by_their_name(printed):
    f1 = report(
        group(flips=math.nan), measure="F1 at IoU 0.5", binary=False, against="truth", flip_rate=math.nan, sqnr_db=None
    )
    assert summary_line(f1).startswith("m.int8.onnx on cpu: average F1 at IoU 0.5 95.0 % -> 91.2 %")
    out = printed(f1)
    assert "F1 at IoU 0.5 of m.int8.onnx against m.onnx" in out
    assert "sign flips of original samples, corrected for 1 groups" in out
    assert "Overall: worst tenth of groups +11.0." in out  # Continuous answers always differ: no flips.
    assert not any(word in out for word in ("accuracy", "McNemar", "nan"))
    assert f1.to_dict()["binary"] is False and f1.to_dict()["groups"][0]["flips"] is None
    fidelity = report(measure="fidelity", binary=False, against="reference")
    assert "No truth: fidelity says how near the answers are to those of FP32." in printed(fidelity)


def test_totals_stand_beside_the_groups(printed):
    found = TotalDrop("mAP@.5", 0.389, 0.371, 0.018, 0.005, 20, 64, 64)
    unsure = TotalDrop("mAP small", math.nan, math.nan, math.nan, math.nan, 20, 64, 64)
    made = report(measure="F1 at IoU 0.5", binary=False, totals=(found, unsure))
    out = printed(made)
    assert "mAP@.5: 38.9 -> 37.1, drop +1.8 (95 % interval -3.9 to +7.5)." in out
    assert "mAP small: not defined on these samples." in out
    assert [total["name"] for total in made.to_dict()["totals"]] == ["mAP@.5", "mAP small"]
    assert "totals" not in report().to_dict()


def test_the_report_of_a_classifier_has_the_keys_that_it_always_had():
    assert not {"binary", "against"} & set(report().to_dict())
    assert not {"binary", "against"} & set(report(measure="agreement", against="reference").to_dict())


def test_a_wide_table_is_not_cut_where_there_is_no_terminal(printed):
    name = "label=" + "x" * 60
    assert name in printed(report(group(name)))


def test_on_a_narrow_terminal_the_table_fits_and_names_its_columns_once(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    print_report(report(group(), group("label=dog*corruption=motion_blur@3", judged=False, n=12345)))
    said = capsys.readouterr().out
    rows = [line for line in said.splitlines() if line[0] in "│┃┏┡└"]
    assert all(len(line) <= 80 for line in rows)
    assert "label · corruption" in rows[1] and "95 % interval" in rows[1]
    assert "cat · fog@3" in said and "12345" in said and "(dog ·" in said and "motion_blur@3)" in said
    assert "A wider terminal shows flips as well" in said
    print_report(report(group(), group("corruption=fog@3")))
    assert "label=cat · " in capsys.readouterr().out  # Of other columns: each with its names.
