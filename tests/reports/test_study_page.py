"""The HTML file: whole, small, escaped, asking nothing of a network, with the study's own numbers."""

from __future__ import annotations

import base64
import csv
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onnxptq.reports.study import answer_questions, study_markdown, summarize, write_csv, write_report
from onnxptq.reports.study.payload import SCALE, payload
from onnxptq.reports.study.phrases import group_words
from onnxptq.reports.study.summary import place_of
from onnxptq.reports.study.words import points
from onnxptq.sweeps.study import DONE, Cell, CellKey, Study

VOID = {"meta", "link", "br", "input", "img", "hr"}


class Page(HTMLParser):
    """Collects ids and tables, and fails on tags that do not match."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.attributes, self.text = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        if tag not in VOID:
            self.open.append(tag)
        self.attributes += [(tag, *pair) for pair in attributes]
        self.ids += [value for name, value in attributes if name == "id"]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)


@pytest.fixture
def written(tmp_path):
    def written(study, **options):
        write_report(study, tmp_path / "report.html", **options)
        return (tmp_path / "report.html").read_text(encoding="utf-8")

    return written


def embedded(text):
    packed = re.search(r'<script type="text/plain" id="data">(.*?)</script>', text, re.DOTALL).group(1)
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_the_page_is_well_formed_and_has_every_section_in_order(written, make_study):
    page = Page(written(make_study()))
    assert len(page.ids) == len(set(page.ids))
    sections = ["verdict", "heat", "groups", "scatter", "ranges", "providers", "questions", "reproduce"]
    assert [name for name in page.ids if name in sections] == sections
    links = [value[1:] for tag, name, value in page.attributes if name == "href" and value.startswith("#")]
    assert set(links) <= set(page.ids)


def test_nothing_in_the_page_points_anywhere_else(written, make_study):
    text = written(make_study())
    page = Page(text)
    pointers = [value for _, name, value in page.attributes if name in ("src", "href", "action", "srcset", "data")]
    assert all(value.startswith(("#", "data:,")) for value in pointers)
    assert "default-src 'none'" in text
    assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}


def test_names_never_become_markup(written, make_study):
    evil = '</script><img src=x onerror="alert(1)">&amp;$title'
    text = written(make_study(calibrations=("clean", evil), methods=(evil,), name=evil))
    assert "<img" not in text
    page = Page(text)
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    assert evil in "".join(page.text)
    assert embedded(text)["levels"]["method"] == [evil]


def test_the_numbers_are_those_of_the_study(written, make_study):
    made = make_study(runtimes=("cpu", "openvino"), fails=lambda key: key.seed == 2 and key.calibration == "noisy")
    data = embedded(written(made))
    levels = data["levels"]
    for entry, cell in zip(data["cells"], made.cells, strict=True):
        assert [levels[name][entry[name]] for name in levels if name != "seed"] == list(
            vars(place_of(cell.key)).values()
        )
        assert [levels["seed"][k] for k in entry["seeds"]] == [cell.key.seed]
        if cell.error:
            assert (entry["verdict"], entry["error"]) == ("broken", cell.error)
            assert entry["crossfit_drop"] is entry["groups"] is None
            continue
        for name in ("average_drop", "crossfit_drop", "crossfit_drop_low", "cvar10_drop", "flip_rate"):
            assert shown(entry[name]) == points(cell.report[name])
        worst = [group["name"] for group in cell.report["groups"] if group["drop"] == cell.report["largest_drop"]]
        assert sorted(data["groupNames"][k] for k in entry["hurt"]) == sorted(map(group_words, worst))
        drops = group_columns(data, entry)["drop"]
        assert {name: shown(drop) for name, drop in drops.items()} == {
            group_words(group["name"]): points(group["drop"]) for group in cell.report["groups"]
        }


def test_verdicts_and_means_of_combinations_are_those_of_the_summary(written, make_study):
    """Markdown and CSV are made from the summary: the page says the same, to the digit."""
    made = make_study(fails=lambda key: key.seed == 2 and key.calibration == "noisy")
    data = embedded(written(made))
    for entry, one in zip(data["combinations"], summarize(made).combinations, strict=True):
        assert (entry["verdict"], entry["failed"]) == (one.verdict, one.failed)
        assert entry["standing"].startswith(one.verdict)
        for name in ("average_drop", "crossfit_drop", "cvar10_drop", "flip_rate"):
            assert shown(entry[name]) == points(getattr(one, name))
        assert [shown(entry[f"crossfit_drop_{end}"]) for end in ("low", "high")] == [points(one.low), points(one.high)]
        cells = [cell for cell in made.cells if place_of(cell.key) == one.place and not cell.error]
        columns = group_columns(data, entry)
        for name, drop in columns["drop"].items():
            drops = [
                group["drop"] for cell in cells for group in cell.report["groups"] if group_words(group["name"]) == name
            ]
            assert shown(drop) == points(sum(drops) / len(drops))
            assert [shown(columns[end][name]) for end in ("least", "most")] == [points(min(drops)), points(max(drops))]


def bounded(groups, high):
    """The groups with this upper end of the first one's drop."""
    return [{**group, "drop_high": high if number == 0 else 0.0} for number, group in enumerate(groups)]


@pytest.mark.parametrize("high", [0.1, 0.1000217])
def test_a_bound_that_only_rounding_brings_to_the_tolerance_does_not_pass_anywhere(written, make_study, tmp_path, high):
    made = make_study(calibrations=("clean",), strategies=("",), methods=("minmax",))
    reports = [{**cell.report, "crossfit_drop": 0.01, "crossfit_drop_low": 0.0} for cell in made.cells]
    cells = [
        replace(cell, report={**report, "groups": bounded(report["groups"], high if cell.key.seed == 0 else 0.05)})
        for cell, report in zip(made.cells, reports, strict=True)
    ]
    made = replace(made, cells=tuple(cells))
    text = written(made)
    data, expected = embedded(text), "passed" if high <= 0.1 else "undecided"
    assert data["combinations"][0]["verdict"] == data["cells"][0]["verdict"] == expected
    assert data["cells"][1]["verdict"] == "passed"
    summary, answers = summarize(made), answer_questions(made)
    assert f"{expected}, 1.0 points" in study_markdown(summary, answers)
    assert f"{expected}, 1.0 points" in Page(text).text
    write_csv(summary, answers, tmp_path)
    with (tmp_path / "combinations.csv").open(newline="", encoding="utf-8") as file:
        assert [row["verdict"] for row in csv.DictReader(file)] == [expected]


@settings(max_examples=300, deadline=None)
@given(st.floats(-1.0, 1.0))
@example(0.0025)
@example(0.071496)
def test_a_number_of_the_page_rounds_as_the_words_do(value):
    (entry,) = payload(summarize(of_one_cell(value)))["combinations"]
    assert shown(entry["crossfit_drop"]) == points(value)


def of_one_cell(drop):
    key = CellKey("m", "clean", "", "minmax", "cpu", "cpu", 0)
    cell = Cell(key, DONE, report={"crossfit_drop": drop, "groups": []})
    return Study("run", "s", "2026-11-25T12:00:00Z", {}, (cell,), {}, {}, "onnxptq sweep")


def shown(hundredths):
    """As `points` in base.js shows a number of the payload: with one decimal."""
    return "not known" if hundredths is None else points(hundredths / SCALE)


def group_columns(data, entry):
    """Columns of an entry's groups, by the names of the groups."""
    table = data["groupTables"][entry["groups"]]
    names = [data["groupNames"][k] for k in data["shapes"][table["shape"]]["names"]]
    return {key: dict(zip(names, column, strict=True)) for key, column in table.items() if key != "shape"}


def test_ranges_are_the_mean_over_seeds_with_the_narrowest_and_the_widest(make_study):
    """Of one target: another one makes other ranges, which is no spread of seeds. Failed seeds are left out."""
    made = make_study(targets=("cpu", "tensorrt"), fails=lambda key: key.seed == 1 and key.method == "minmax")
    data = payload(summarize(made))
    factors = ("model", "calibration", "strategy", "method")
    for *place, entry in data["ranges"]["entries"]:
        named = {factor: data["levels"][factor][k] for factor, k in zip(factors, place, strict=True)}
        cells = [
            cell for cell in made.cells if cell.ranges and vars(cell.key) | named | {"target": "cpu"} == vars(cell.key)
        ]
        assert (
            entry["seeds"]
            == [cell.key.seed for cell in cells]
            == ([0, 2] if named["method"] == "minmax" else [0, 1, 2])
        )
        for k, name in enumerate(data["ranges"]["tensorLists"][entry["tensors"]]):
            widths = np.array([cell.ranges[name][1] - cell.ranges[name][0] for cell in cells])
            assert entry["high"][k] - entry["low"][k] == pytest.approx(widths.mean(), rel=1e-3)
            found = np.array([entry["least"][k], entry["most"][k]]) * widths.mean() / 1000
            assert found == pytest.approx([widths.min(), widths.max()], rel=1e-3)
    alone = payload(summarize(make_study(seeds=(7,))))["ranges"]["entries"][0][-1]
    assert alone["seeds"] == [7] and "least" not in alone


def test_a_thousand_cells_stay_under_two_megabytes(written, make_study):
    made = make_study(
        calibrations=[f"set{i}" for i in range(14)],
        strategies=("", "autocontrast", "diverse"),
        methods=[f"method{i}" for i in range(8)],
        classes=[f"class{i}" for i in range(20)],
        tensors=60,
    )
    assert len(made.cells) == 1008
    assert len(written(made).encode()) < 2_000_000


def test_a_study_of_failures_alone_still_has_a_page(written, make_study):
    text = written(make_study(fails=lambda key: True))
    Page(text)
    assert "12 broken" in text


def test_every_table_is_a_csv(tmp_path, make_study):
    made = make_study(runtimes=("cpu", "openvino"))
    files = write_csv(summarize(made), answer_questions(made), tmp_path / "new" / "csv")
    names = {"cells", "groups", "ranges", "combinations", "providers", "questions", "levels", "variance"}
    assert {file.stem for file in files} == names
    with (tmp_path / "new" / "csv" / "combinations.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(made.cells) / 3
    drops = [cell.report["crossfit_drop"] for cell in made.cells[:6] if cell.key.runtime == "cpu"]
    assert float(rows[0]["crossfit_drop"]) == pytest.approx(sum(drops) / 3)


def test_a_folder_of_tables_keeps_none_of_an_earlier_run(tmp_path, make_study):
    for runtimes in (("cpu", "openvino"), ("cpu",)):
        made = make_study(runtimes=runtimes)
        files = write_csv(summarize(made), answer_questions(made), tmp_path)
        assert {*files} == {*tmp_path.glob("*.csv")}
        assert (tmp_path / "providers.csv").exists() == (len(runtimes) > 1)


def test_the_page_carries_the_plan_as_toml_the_commands_and_the_digests(written, make_study):
    made = make_study(seeds=(0, 1))
    plan = {**made.plan, "models": ["net.onnx"], "strategies": ["", "autocontrast"], "targets": ["cpu"]}
    origin = {"model": "5ca1ab1e", "data": "ca11ab1e", "system": "Plan9"}
    cells = tuple(replace(cell, report={**cell.report, "origin": origin}) for cell in made.cells)
    page = Page(written(replace(made, plan=plan, cells=cells, command="onnxptq sweep p.toml --json - -o r.html")))
    text = "".join(page.text)
    assert "onnxptq sweep p.toml" in text and "--json" not in text
    plan_there = text[text.index("format = 1") :]
    assert 'calibrations = ["clean", "noisy", "dark@3"]' in plan_there
    assert text.count("onnxptq quantize net.onnx") >= len(cells)
    for said in ("5ca1ab1e", "data to calibrate net.onnx with", "ca11ab1e", "Plan9"):
        assert said in text


def test_the_commands_say_what_quantize_judges_otherwise(written, make_study):
    made = make_study()
    plan = {**made.plan, "models": ["net.onnx"]}
    same = "What writes the INT8 model of each cell, and judges it under the same corruptions"
    for asked, said in (
        ({}, same),
        ({"eval_size": 200}, f"{same}, on all samples where the study took 200"),
        ({"minimum_samples": 139}, f"{same}, groups from 20 samples on where the study asked for 139"),
    ):
        assert said in Page(written(replace(made, plan={**plan, **asked}))).text


def test_groups_reach_the_page_in_the_words_of_the_text(make_study):
    made = make_study(classes=("a=b", "7"), seeds=(0,))
    assert {"a=b, fog@3", "label 7, fog@3"} <= {*payload(summarize(made))["groupNames"]}
