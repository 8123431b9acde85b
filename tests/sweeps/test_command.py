"""`onnxptq sweep`, `runs` and `report` as a user types them: a small plan, end to end, stopped and gone on with."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from onnxptq.commands.report import report
from onnxptq.commands.runs import runs
from onnxptq.commands.sweep import sweep
from onnxptq.errors import DataError, OnnxptqError, OutputError
from onnxptq.runtimes import ProviderStatus

PLAN = """
format = 1
title = "small"
calibrations = ["clean", "dark@3"]
methods = ["minmax", "percentile:percentile=99.0"]
corruptions = ["clean"]
groups = ["label"]
calib_size = 16
eval_size = 100
"""


@pytest.fixture
def plan(tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A plan of four small cells in the current folder, and a store that knows the folded model."""
    monkeypatch.chdir(tmp_path)
    for kind in ("folded-model", "datasets"):
        shutil.copytree(finished / "v1" / kind, tmp_path / "store" / "v1" / kind)
    path = tmp_path / "study.toml"
    path.write_text(PLAN)
    return path


def run(command: click.Command, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments), "--store", "store"])


def done(command: click.Command, *arguments: str | Path) -> Result:
    result = run(command, *arguments)
    assert result.exit_code == 0, (result.output, result.exception)
    return result


def test_a_plan_becomes_a_study_a_table_and_a_report(
    plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = json.loads(done(sweep, plan, "--dry-run", "--jobs", "1", "--json", "-").stdout)
    assert (ahead["cells"], ahead["distinct"], ahead["known"], ahead["todo"]) == (4, 4, 0, 4)
    made = done(sweep, plan, "--jobs", "1", "-o", "s.html", "--json", "s.json")
    assert "Of 4 combinations:" in made.stdout and "4 of 4 cells" in made.stderr
    assert Path("s.html").read_text().startswith("<!DOCTYPE html>")
    said = json.loads(Path("s.json").read_text())
    assert [cell["status"] for cell in said["cells"]] == ["done"] * 4

    (found,) = json.loads(done(runs, "list", "--json", "-").stdout)
    assert (found["run"], found["cells"], found["done"], found["failed"]) == (said["run"], 4, 4, 0)
    assert found["finished"] and said["run"] in done(runs, "list").stdout
    assert "made by: onnxptq sweep" in done(runs, "show").stdout
    assert "percentile:percentile=99.0" in done(runs, "show", "last", "--plan").stdout

    for table, columns, rows in (("cells", {"method", "status"}, 4), ("groups", {"group", "drop"}, 40)):
        extra = () if table == "cells" else (f"--{table}",)
        done(runs, "export", "last", "-o", f"{table}.csv", *extra)
        with Path(f"{table}.csv").open(newline="") as file:
            lines = list(csv.DictReader(file))
        assert len(lines) == rows and columns <= set(lines[0])
    again = run(runs, "export", "-o", "cells.csv")
    assert isinstance(again.exception, OutputError) and "exists already" in str(again.exception)

    assert "Of 4 combinations:" in done(report, "-o", "s.html").stdout, "a report may be replaced"
    text = Path("s.html").read_text()
    Path("other.html").write_text(text.replace(said["run"], "2026-01-01-other0"))
    assert "the report of the run 2026-01-01-other0" in str(run(report, "-o", "other.html").exception)
    done(report, "-o", "other.html", "--force")
    Path("mine.html").write_text("mine")
    assert "is no report" in str(run(report, "-o", "mine.html").exception)
    done(report, "-o", "mine.html", "--force")
    done(report)
    assert Path(f"{said['run']}.html").read_text().startswith("<!DOCTYPE html>")
    monkeypatch.setenv("COLUMNS", "60")
    for shown in (done(runs, "list"), done(runs, "show")):
        assert said["run"] in shown.stdout
        assert all(len(line) <= 60 for line in shown.stdout.splitlines() if "  " in line), "nothing is wider"
    reported = done(report, said["run"][:12], "-o", "r.html", "--markdown", "r.md")
    assert "Of 4 combinations:" in reported.stdout and "## small" in Path("r.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("study.toml", "--data", "x"), "says already what --data does"),
        (("study.toml", "model.onnx"), "give one plan, or models"),
        (("nothing.toml",), "there is no plan nothing.toml"),
        (("--jobs", "0"), "--jobs must be 1 or more"),
        (("--engine", "rai"), "Did you mean 'ray'"),
        (("--ray-address", "here:1"), "--ray-address is for --engine ray"),
        (("--resume",), "there is no run in store/v1/sweeps/sweeps.sqlite. Leave --resume out"),
        (("-o", "no/report.html"), "no folder no"),
        (("-o", "study.toml"), "-o study.toml names the report, which is HTML: give a name that ends in .html"),
        (("-o", "s.md"), "`onnxptq report --markdown FILE` writes Markdown"),
        (("-o", "s.PDF"), "Print the page into a PDF from a browser"),
        (("--init", "--json", "x"), "--init prints to stdout and makes no study, so --json has no use"),
        (("--schema", "--dry-run"), "--schema prints to stdout and makes no study, so --dry-run has no use"),
    ],
)
def test_wrong_use_is_explained(plan: Path, arguments: tuple[str, ...], said: str) -> None:
    refused = run(sweep, *arguments)
    assert isinstance(refused.exception, OnnxptqError) and refused.stdout == ""
    assert said in str(refused.exception)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('runtimes = ["cpy"]', "study.toml: unknown execution provider 'cpy'"),
        ('corruptions = ["fgo@3"]', "study.toml: unknown shift 'fgo'"),
        ('groups = ["lable"]', "study.toml: unknown group column 'lable'. Did you mean 'label'"),
    ],
)
def test_a_wrong_name_is_said_with_the_plan_that_it_stands_in(plan: Path, line: str, said: str) -> None:
    kept = [old for old in PLAN.splitlines() if old.partition(" ")[0] != line.partition(" ")[0]]
    plan.write_text("\n".join([*kept, line]))
    refused = run(sweep, "study.toml")
    assert str(refused.exception).startswith(said)


def test_a_set_that_chooses_by_label_is_refused_before_anything_is_computed(plan: Path, save_classifier: Any) -> None:
    save_classifier()
    np.savez("data.npz", x=np.random.default_rng(0).standard_normal((200, 6)).astype(np.float32))
    plan.write_text('models = ["net.onnx"]\ndata = "data.npz"\ncalibrations = ["clean", "imbalanced"]\n')
    refused = run(sweep, "study.toml")
    assert isinstance(refused.exception, DataError)
    assert "'imbalanced' chooses by label, and data.npz has none" in str(refused.exception)
    with sqlite3.connect("store/v1/sweeps/sweeps.sqlite") as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (0,)


def test_a_provider_that_does_not_load_is_said_without_an_option_that_sweep_lacks(
    plan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = ProviderStatus("cuda", "CUDAExecutionProvider", compiled=True, loads=False, reason="no driver")
    monkeypatch.setattr("onnxptq.runtimes.selection.probe", lambda *asked: status)
    plan.write_text(PLAN + 'runtimes = ["cuda"]\n')
    said = str(run(sweep, "study.toml").exception)
    assert said.startswith("study.toml: the execution provider 'cuda' does not load here: no driver.")
    assert "--allow-fallback" not in said


def test_without_a_terminal_a_line_comes_every_twentieth_of_the_cells(capsys: pytest.CaptureFixture[str]) -> None:
    from onnxptq.commands.sweep import _progress
    from onnxptq.sweeps.run import State

    with _progress() as progress:
        for done_now in range(101):
            progress(State(cells=100, known=0, done=done_now, failed=0, seconds_left=None))
    said = [int(line.split()[0]) for line in capsys.readouterr().err.splitlines()]
    assert said == list(range(0, 101, 5))


def test_a_dry_run_says_what_it_did_and_how_sure_it_is(plan: Path) -> None:
    said = done(sweep, plan, "--dry-run", "--jobs", "1").stdout
    assert "4 cells, 4 of them different: 0 are known, 4 are to do" in said
    assert "no cell was made" in said and "takes longer" in said
    plan.write_text(PLAN.replace('["clean", "dark@3"]', '["single-class:10"]'))
    nothing = done(sweep, plan, "--dry-run", "--jobs", "1")
    assert "cannot be estimated" in nothing.stdout
    assert "note: the estimate leaves out the cells of builtin: " in nothing.stderr
    assert "has no class '10'" in nothing.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_cpu_that_clips_is_said_before_anything_is_judged_on_it(plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxptq.runtimes.providers.cpu_features", lambda: ("avx2",))
    assert "note: cpu: this CPU has no VNNI" in done(sweep, plan, "--dry-run", "--jobs", "1").stderr
    plan.write_text(PLAN + 'runtimes = ["cpu:exact"]\n')
    assert "VNNI" not in done(sweep, plan, "--dry-run", "--jobs", "1").stderr


def test_ctrl_c_leaves_nothing_half_written_and_the_sweep_goes_on(plan: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN.replace('["clean", "dark@3"]', '["clean"]'))
    done(sweep, plan, "--jobs", "1", "-o", "before.htm")
    plan.write_text(PLAN.replace('["clean", "dark@3"]', '["clean", "dark@3", "noisy", "blur@5"]'))
    command = [str(Path(sys.executable).with_name("onnxptq")), "sweep", str(plan), "--store", "store", "--jobs", "1"]
    stopped = subprocess.Popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
    )
    assert stopped.stderr is not None
    for line in stopped.stderr:
        if "cells" in line:  # It has begun.
            break
    os.killpg(stopped.pid, signal.SIGINT)
    _, said = stopped.communicate(timeout=60)
    assert stopped.returncode == 130 and "Traceback" not in said, said
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.glob("*.html"))
    with sqlite3.connect(tmp_path / "store/v1/sweeps/sweeps.sqlite") as store:
        assert store.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert store.execute("SELECT finished FROM runs ORDER BY rowid DESC").fetchone() == (None,)
    resumed = done(sweep, "--resume", "--jobs", "1", "--json", "-")
    assert [cell["status"] for cell in json.loads(resumed.stdout)["cells"]] == ["done"] * 8
    assert "known before" in resumed.stderr


def test_two_sweeps_of_one_store_at_once_both_end_with_the_same_study(plan: Path, tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("onnxptq")), "sweep", str(plan), "--store", "store", "--jobs", "1"]
    options = {"cwd": tmp_path, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    both = [subprocess.Popen([*command, "-o", f"{n}.html", "--json", "-"], **options) for n in range(2)]  # type: ignore[call-overload]
    studies = []
    for process in both:
        stdout, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        studies.append(json.loads(stdout))
    for study in studies:
        for cell in study["cells"]:
            for part in ("calibrate", "quantize", "evaluate"):
                cell.pop(f"seconds_{part}")
    assert studies[0] == studies[1]
    with sqlite3.connect(tmp_path / "store/v1/sweeps/sweeps.sqlite") as store:
        assert store.execute("SELECT count(*) FROM runs").fetchone() == (1,)
        assert store.execute("SELECT count(*) FROM cells").fetchone() == (4,)


@pytest.mark.parametrize(
    ("preset", "plan_file", "words"),
    [
        ("full", None, "--preset quick takes a fraction"),
        ("quick", None, "--init prints the plan"),
        (None, None, "--init prints the plan"),
        (None, "p.toml", "Fewer calibrations, methods or seeds in p.toml"),
    ],
)
def test_a_long_sweep_says_once_how_to_make_it_shorter(
    capsys: pytest.CaptureFixture[str], preset: str | None, plan_file: str | None, words: str
) -> None:
    from onnxptq.commands.sweep import _saying_how_long
    from onnxptq.sweeps.run import State

    seen: list[State] = []
    watch = _saying_how_long(seen.append, preset, plan_file)
    for left in (None, 60.0, 1500.0, 2500.0):
        watch(State(cells=100, known=0, done=1, failed=0, seconds_left=left))
    said = capsys.readouterr().err
    assert said.count("note: ") == 1 and "about 25 min to go" in said and words in said
    assert len(seen) == 4
