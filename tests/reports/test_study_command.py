"""`onnxptq report` on a store: files beside each other, words on stdout, errors that say what to do."""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from onnxptq.commands.report import report
from onnxptq.errors import OnnxptqError
from onnxptq.sweeps.store import Store, cache_of


@pytest.fixture
def store(tmp_path, make_study):
    made = make_study(seeds=(0,))
    with Store(cache_of(tmp_path / "store")) as opened:
        keys = [f"{i:064d}" for i in range(len(made.cells))]
        opened.start(made, "d" * 64, keys)
        opened.put(dict(zip(keys, made.cells, strict=True)))
    return tmp_path / "store"


def run(*arguments):
    return CliRunner().invoke(report, [str(one) for one in arguments])


def test_it_writes_html_csv_markdown_and_json(store, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    targets = ("-o", out / "r.html", "--csv", out / "csv", "--markdown", out / "r.md", "--json", out / "r.json")
    done = run("2026-11", "--store", store, *targets)
    assert done.exit_code == 0, done.output
    assert "No method passed with dark@3." in done.stdout
    assert (out / "r.html").read_text().startswith("<!DOCTYPE html>")
    assert (out / "r.md").read_text().startswith("## Synthetic study")
    assert (out / "csv" / "cells.csv").is_file()
    value = json.loads((out / "r.json").read_text())
    assert value["limit"] == 0.02
    assert len(value["combinations"]) == 12


def test_the_limit_can_be_another(store, tmp_path):
    done = run("last", "--store", store, "-o", tmp_path / "r.html", "--limit", "0.9", "--json", "-")
    value = json.loads(done.stdout)
    assert {one["verdict"] for one in value["combinations"]} == {"passed"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nope",), "there is no run 'nope'"),
        (("last", "-o", "no-folder/r.html"), "there is no folder no-folder"),
        (("last", "-o", "r.html", "--markdown", "r.html"), "named for two outputs"),
        (("last", "-o", "r.md"), "give a name that ends in .html. `onnxptq report --markdown FILE` writes Markdown"),
        (("last", "-o", "r.pdf"), "Print the page into a PDF"),
        (("last", "-o", "report"), "give a name that ends in .html"),
    ],
)
def test_bad_input_is_explained_and_nothing_is_written(store, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    done = run(*arguments, "--store", store)
    assert isinstance(done.exception, OnnxptqError)
    assert said in str(done.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["store"]


def test_a_run_without_a_result_is_refused(tmp_path, make_study):
    made = make_study(seeds=(0,))
    with Store(cache_of(tmp_path / "store")) as opened:
        opened.start(made, "d" * 64, [f"{i:064d}" for i in range(len(made.cells))])
    done = run("last", "--store", tmp_path / "store", "-o", tmp_path / "r.html")
    assert "no result yet" in str(done.exception)
