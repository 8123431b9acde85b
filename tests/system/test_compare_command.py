"""`onnxptq compare` and `onnxptq runtimes`: exit codes, what goes where, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from onnxptq.commands.compare import _exit_code
from onnxptq.runtimes import probe


@pytest.fixture(scope="session")
def int8(new_place: Any, inputs: Path) -> Path:
    """A small model in INT8."""
    place = new_place()
    data = ["--data", inputs / "good.npz", "--corruption", "clean"]
    place.succeeded("quantize", inputs / "tensor.onnx", *data, "-o", "int8.onnx")
    return Path(place.work / "int8.onnx")


@pytest.fixture
def arguments(int8: Path, inputs: Path) -> list[str | Path]:
    data = ["--data", inputs / "good.npz", "--corruption", "clean", "--runs", "5"]
    return ["compare", int8, "--reference", inputs / "tensor.onnx", *data]


def test_json_on_stdout_is_json_with_a_row_for_every_model_and_runtime(place: Any, arguments: list[Any]) -> None:
    found = place.json(*arguments, "--ep", "cpu", "--ep", "cpu:none", "--batch-size", "1", "--batch-size", "3")
    assert [(row["model"], row["runtime"]) for row in found["rows"]] == [
        ("tensor.onnx", "cpu"), ("tensor.onnx", "cpu:none"), ("int8.onnx", "cpu"), ("int8.onnx", "cpu:none"),
    ]  # fmt: skip
    assert [speed["batch"] for speed in found["rows"][0]["speed"]] == [1, 3]
    assert found["rows"][3]["cause"]["kernels"]["equal"] is True


def test_the_tables_name_models_runtimes_and_versions(place: Any, arguments: list[Any]) -> None:
    import onnxruntime

    said = place.succeeded(*arguments, "--ep", "cpu", "--ep", "cpu:basic", "--layers", "--wide").stdout
    for word in ("int8.onnx", "cpu:basic", onnxruntime.__version__, "100 %", "breaks fusion", "McNemar p", "peak MB"):
        assert word in said


def test_the_tables_fit_80_columns_and_a_sentence_says_what_they_mean(place: Any, arguments: list[Any]) -> None:
    said = place.succeeded(*arguments, "--ep", "cpu", "--ep", "cpu:none", COLUMNS="80").stdout.splitlines()
    tables = [line for line in said if line.startswith(("│", "┃", "┏"))]
    assert len(tables) == 2 * 2 + 2 * 4 and all(len(line) <= 80 for line in tables)
    sentences = [line for line in said if line.startswith("int8.onnx on ")]
    assert [line.split()[2] for line in sentences] == ["cpu", "cpu:none"]
    for line in sentences:
        assert re.search(
            r"(as fast|slower), .* (smaller|larger) and .* (in its worst group|on average) .*compared with FP32\.$",
            line,
        )
    assert "--wide" in said[-1]


def test_predictions_of_every_row_are_written(place: Any, arguments: list[Any]) -> None:
    place.succeeded(*arguments, "--no-speed", "--ep", "cpu", "--ep", "cpu:none", "--predictions", "p.parquet")
    table = pq.read_table(place.work / "p.parquet")
    assert set(table["run"].to_pylist()) == {0, 1, 2, 3}


def test_a_required_placement_that_is_met_gives_0_and_says_passed(place: Any, arguments: list[Any]) -> None:
    done = place.succeeded(*arguments, "--no-speed", "--require-placement", "cpu=95%")
    assert done.stdout.startswith("PASSED placement of tensor.onnx on cpu: 100.0 %")


@pytest.mark.parametrize(
    ("failed", "passed", "code"),
    [(False, [], 0), (True, [], 1), (False, [True, False], 1), (False, [True, None], 3), (True, [None], 1)],
)
def test_exit_codes(failed: bool, passed: list[bool | None], code: int) -> None:
    assert _exit_code(failed, passed) == code


@pytest.mark.skipif(sys.platform == "win32", reason="the interpreter is a shell script")
def test_a_provider_that_crashes_gives_1_and_a_row_that_says_so(
    place: Any, arguments: list[Any], tmp_path: Path
) -> None:
    setup = tmp_path / "setup.py"
    setup.write_text(
        "import os, runpy, sys\n"
        "if sys.argv[1].endswith('worker.py'):\n"
        "    import onnxruntime\n"
        "    onnxruntime.InferenceSession.run = lambda *arguments: os.abort()\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -P "{setup}" "$@"\n')
    python.chmod(0o755)
    cache_folder = tmp_path / "room"
    place.succeeded("runtimes", "add", "broken", "--python", python, ONNXPTQ_CACHE=cache_folder)
    done = place.run(*arguments, "--ep", "cpu", "--ep", "broken", "--json", "-", ONNXPTQ_CACHE=cache_folder)
    assert done.returncode == 1, done.stderr
    rows = {(row["model"], row["runtime"]): row for row in json.loads(done.stdout)["rows"]}
    assert rows["int8.onnx", "broken"]["status"] == "crashed"
    assert "SIGABRT" in rows["int8.onnx", "broken"]["reason"]
    assert rows["int8.onnx", "cpu"]["status"] == "done"
    text = place.run(*arguments, "--ep", "cpu", "--ep", "broken", ONNXPTQ_CACHE=cache_folder)
    assert "int8.onnx on broken: crashed: its process was killed by SIGABRT" in text.stdout


def test_a_provider_that_does_not_load_gives_2_with_the_reason(place: Any, arguments: list[Any]) -> None:
    if (status := probe("tensorrt")).loads:
        pytest.skip("TensorRT loads here")
    assert status.reason in place.refused(*arguments, "--ep", "cpu", "--ep", "tensorrt")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--ep", "cpu@0.1"], "onnxptq runtimes add cpu@0.1"),
        (["--ep", "cpu:best"], "unknown optimization level 'best'"),
        (["--require-placement", "cuda=95%"], "which is not compared"),
        (["--batch-size", "0"], "a batch size must be 1 or more"),
        (["--ep-option", "cpu:arena=1"], "'cpu' takes no options"),
        (["--ep-option", "openvin:device_type=GPU"], "which is not compared"),
        (["--gpu-memory", "much"], "--gpu-memory must be a size"),
        (["--group", "labbel"], "unknown group column 'labbel'"),
        (["--json", "a", "--predictions", "a"], "named for two outputs"),
    ],
)
def test_wrong_use_gives_2_before_any_work(place: Any, arguments: list[Any], wrong: list[str], message: str) -> None:
    assert message in place.refused(*arguments, *wrong)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_ctrl_c_leaves_no_worker_and_no_file(place: Any, arguments: list[Any]) -> None:
    process = place.start(*arguments, "--runs", "100000000")
    for line in process.stderr:
        if line.startswith("timing"):
            break
    time.sleep(0.5)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    place.check_tidy()
    assert not [folder for folder in Path("/proc").glob("[0-9]*") if str(place.temporary).encode() in _environ(folder)]


def _environ(folder: Path) -> bytes:
    """The variables of a process by its folder in /proc; a worker has those of the command that started it."""
    try:
        return (folder / "environ").read_bytes()
    except OSError:
        return b""


def test_runtimes_are_added_listed_and_removed(place: Any, tmp_path: Path) -> None:
    cache_folder = tmp_path / "room"
    added = place.succeeded("runtimes", "add", "production", "--python", sys.executable, ONNXPTQ_CACHE=cache_folder)
    assert added.stdout.startswith("added: production: onnxruntime")
    listed = place.succeeded("runtimes", "list", "--json", "-", ONNXPTQ_CACHE=cache_folder)
    (found,) = json.loads(listed.stdout)
    assert (found["name"], found["provider"], found["managed"]) == ("production", "cpu", False)
    assert "production" in place.succeeded("runtimes", "list", ONNXPTQ_CACHE=cache_folder).stdout
    place.succeeded("runtimes", "remove", "production", ONNXPTQ_CACHE=cache_folder)
    assert "none yet" in place.succeeded("runtimes", "list", ONNXPTQ_CACHE=cache_folder).stdout


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["add", "mine"], "does not say what to install"),
        (["add", "mine", "--python", "/nowhere/python"], "cannot be started"),
        (["add", "mine", "--python", "p", "--package", "q"], "either --package or --python"),
        (["remove", "mine"], "there is no runtime 'mine'"),
    ],
)
def test_wrong_use_of_runtimes_gives_2(place: Any, wrong: list[str], message: str) -> None:
    assert message in place.refused("runtimes", *wrong)
