"""The small commands, and how the command behaves as a program: help, version, exit codes, pipes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from onnxptq import cli
from onnxptq.calibrators import SAMPLERS
from onnxptq.commands import calibs as calibs_module
from onnxptq.data.shifts import SHIFTS

HEAVY = {"onnx", "onnxruntime", "numpy", "datasets", "pyarrow", "rich", "PIL", "numba", "pandas", "torch"}


@pytest.mark.parametrize("command", ["--version", "--help", *(f"{name} --help" for name in cli.COMMANDS)])
def test_help_and_version_import_nothing_heavy(command: str, place: Any) -> None:
    done = place.with_processes.succeeded(*command.split(), PYTHONPROFILEIMPORTTIME="1")
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "onnxptq.cli" in imported
    assert not {name.partition(".")[0] for name in imported} & HEAVY


def test_the_version_is_the_package_s(place: Any) -> None:
    assert re.fullmatch(r"onnxptq \d+\.\d+\.\d+\n", place.succeeded("--version").stdout)


def test_help_names_every_command_and_the_exit_codes(place: Any) -> None:
    said = place.succeeded("--help").stdout
    for word in (*cli.COMMANDS, "0 done", "1 a verdict that failed", "2 wrong use", "3", "70 a bug of ours", "130"):
        assert word in said
    assert place.succeeded("-h").stdout == said


def test_calibs_lists_every_set_with_what_it_does_and_its_source(place: Any) -> None:
    rows = {row["name"]: row for row in place.json("calibs")}
    for row in rows.values():
        assert set(row) == {"name", "kind", "summary", "source"}
        assert all(row.values())
    for sampler in SAMPLERS:
        assert any(re.fullmatch(rf"{re.escape(sampler.name)}(:.*)?", name) for name in rows)
    assert {f"{shift.name}@{shift.default_severity}" for shift in SHIFTS} <= set(rows)
    assert rows["shifted"]["summary"].startswith("the same as dark@3; where the input is no image: quiet@5, ")
    assert rows["noisy"]["summary"].startswith("the same as gaussian@3; where the input is no image: ")
    assert {"random", "foreign:SOURCE"} <= set(rows)


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("shifts", {"name", "default_severity", "family", "modality", "min_size", "summary", "source"}),
        ("methods", {"name", "parameters", "summary", "when", "source"}),
    ],
)
def test_shifts_and_methods_say_what_each_does_and_where_it_comes_from(command: str, keys: set, place: Any) -> None:
    rows = place.json(command)
    assert all(set(row) == keys for row in rows)
    assert all(row["summary"] and row["source"] for row in rows)
    names = {row["name"] for row in rows}
    assert {"shifts": {"dark", "fog", "mixup"}, "methods": {"minmax", "entropy", "percentile"}}[command] <= names


@pytest.mark.parametrize("command", ["calibs", "shifts", "methods", "providers"])
def test_the_tables_show_all_that_the_json_has(command: str, place: Any) -> None:
    answer = place.json(command)
    rows = answer["providers"] if command == "providers" else answer
    shown = place.succeeded(command, COLUMNS="160").stdout
    assert "…" not in shown
    for row in rows:
        assert row["name"].partition("@")[0].partition(":")[0] in shown
    place.succeeded(command, "--json", "answer.json")
    assert json.loads((place.work / "answer.json").read_text()) == answer


@pytest.mark.parametrize("command", ["calibs", "shifts", "methods", "targets", "lint --rules"])
def test_a_narrow_terminal_shows_sentences_below_each_other_and_names_whole(command: str, place: Any) -> None:
    names = [row.get("name") or row["id"] for row in place.json(*command.split())]
    lines = place.succeeded(*command.split(), COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert "│" not in "".join(lines)
    heads = [line for line in lines[1:] if line and not line.startswith(" ")]
    assert [head.partition("@")[0] for head in heads] == [name.partition("@")[0] for name in names]


def test_the_cache_shows_what_it_holds_and_forgets_it(place: Any, tmp_path: Path) -> None:
    cache_folder = tmp_path / "room"
    files = {"v1/predictions/ab/abc.parquet": 10, "v1/predictions/ff/fff.parquet": 20, "v1/folded-model/01/012.onnx": 5}
    for name, size in files.items():
        (cache_folder / name).parent.mkdir(parents=True, exist_ok=True)
        (cache_folder / name).write_bytes(bytes(size))
    (cache_folder / "mine.txt").write_text("not onnxptq's")
    answer = json.loads(place.succeeded("cache", "info", "--json", "-", ONNXPTQ_CACHE=cache_folder).stdout)
    assert answer["room"] == str(cache_folder)
    assert answer["kinds"]["predictions"] == {"files": 2, "bytes": 30}
    assert answer["kinds"]["folded-model"] == {"files": 1, "bytes": 5}
    said = place.refused("cache", "clear", "prediction", ONNXPTQ_CACHE=cache_folder)
    assert "nothing of kind 'prediction'" in said
    assert "Did you mean 'predictions'" in said
    place.succeeded("cache", "clear", "predictions", ONNXPTQ_CACHE=cache_folder)
    assert [path.name for path in cache_folder.rglob("*") if path.is_file() and path.suffix != ".txt"] == ["012.onnx"]
    place.succeeded("cache", "clear", ONNXPTQ_CACHE=cache_folder)
    assert [path.name for path in cache_folder.rglob("*")] == ["mine.txt"]
    assert "empty" in place.succeeded("cache", "info", ONNXPTQ_CACHE=cache_folder).stdout


@pytest.mark.parametrize("command", [["calibs"], ["shifts", "--json", "-"], ["--help"], ["--version"]])
def test_a_reader_that_closes_the_pipe_ends_the_command_quietly(command: list[str], place: Any) -> None:
    process = place.start(*command)
    process.stdout.close()
    _, stderr = process.communicate(timeout=60)
    assert stderr == ""
    assert process.returncode == 128 + signal.SIGPIPE  # Neither done nor a verdict.


def test_a_bug_of_ours_gives_70_and_says_how_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(calibs_module, "_rows", lambda: 1 / 0)
    monkeypatch.delenv("ONNXPTQ_DEBUG", raising=False)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as stop:
        cli.main(["calibs"])
    assert stop.value.code == 70
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "a bug of ours: ZeroDivisionError: division by zero" in printed.err
    assert "Please report it" in printed.err
    assert "Traceback" not in printed.err
    assert signal.getsignal(signal.SIGINT) is before


def test_python_m_onnxptq_is_the_same_command(place: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "onnxptq", "--version"], cwd=place.work, capture_output=True, text=True, check=False
    )
    assert done.stdout == place.succeeded("--version").stdout
