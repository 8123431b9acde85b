"""Several models in one check, and files for CI that are written whatever happens."""

from __future__ import annotations

import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

GOOD, BAD, FLOAT, TORN = "good.int8.onnx", "[bad] int8.onnx", "model.onnx", "torn.onnx"


@pytest.fixture(scope="module")
def folder(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An FP32 model, a good INT8 model, one whose inputs were cut off, and half a file."""
    import numpy as np

    import onnxptq

    folder = tmp_path_factory.mktemp("several")
    shutil.copy(inputs / "tensor.onnx", folder / FLOAT)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 3, 16)).astype(np.float32)
    np.savez(folder / "x.npz", x=x)
    np.savez(folder / "small.npz", x=x * 0.02)
    for name, data in ((GOOD, "x.npz"), (BAD, "small.npz")):
        onnxptq.quantize(folder / FLOAT, data=str(folder / data), output=folder / name, evaluate=False)
    np.savez(folder / "judged.npz", x=rng.standard_normal((400, 3, 16)).astype(np.float32))
    (folder / TORN).write_bytes((folder / GOOD).read_bytes()[:200])
    return folder


@pytest.fixture
def at(place: Any, folder: Path) -> Any:
    """A place with a copy of the folder in it."""
    shutil.copytree(folder, place.work, dirs_exist_ok=True)
    return place


DATA = ("--data", "judged.npz", "--corruption", "clean")


def test_a_pattern_is_judged_in_one_report_and_bad_input_comes_first(at: Any, check_sarif: Callable[..., None]) -> None:
    files = ("--junit", "j.xml", "--sarif", "s.sarif", "--json", "c.json")
    environment = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": at.work / "summary.md"}
    done = at.run("check", "*int8.onnx", TORN, *DATA, *files, **environment)
    assert done.returncode == 2, done
    assert done.stdout.splitlines()[0] == "BAD INPUT 3 models: 1 bad input, 1 failed, 1 passed"
    assert f"again: onnxptq check {GOOD} --data judged.npz" in done.stdout
    values = json.loads((at.work / "c.json").read_text())
    found = {one["model"]: one["verdict"] for one in values["models"]}
    assert found == {GOOD: "PASSED", BAD: "FAILED", TORN: "BAD INPUT"}
    assert values["verdict"] == "BAD INPUT"
    suites = {suite.get("name"): suite for suite in ElementTree.parse(at.work / "j.xml").getroot()}
    assert {name: [s.get("failures") != "0", s.get("errors")] for name, s in suites.items()} == {
        GOOD: [False, "0"], BAD: [True, "0"], TORN: [False, "1"],
    }  # fmt: skip
    log = json.loads((at.work / "s.sarif").read_text())
    check_sarif(log)
    assert {
        one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for one in log["runs"][0]["results"]
    } == {"%5Bbad%5D%20int8.onnx"}
    summary = (at.work / "summary.md").read_text(encoding="utf-8")
    assert summary.count("## onnxptq check: ") == 3
    assert f"::error title=onnxptq check%3A BAD INPUT::{TORN}: " in done.stderr


def test_without_bad_input_the_worst_verdict_is_the_exit_code(at: Any) -> None:
    assert at.run("check", GOOD, BAD, *DATA).returncode == 1
    assert at.run("check", GOOD, GOOD, f"./{GOOD}", *DATA).stdout.startswith("PASSED 1 models: 1 passed")
    (at.work / BAD).unlink()
    (at.work / TORN).unlink()
    done = at.run("check", "*.onnx", *DATA, "--reference", FLOAT, "--skip-float")
    assert done.returncode == 0 and f"skipped {FLOAT}" in done.stderr, done
    assert f"again: onnxptq check {GOOD} --data judged.npz --corruption clean --reference {FLOAT}" in done.stdout
    assert at.run("check", "*.onnx", *DATA, "--reference", FLOAT).returncode == 1  # The float model fails.


def test_a_file_whose_name_looks_like_a_pattern_is_a_file(at: Any) -> None:
    done = at.run("check", BAD, *DATA, "--json", "-")
    assert done.returncode == 1 and json.loads(done.stdout)["subject"]["model"]["name"] == BAD


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.onnx",), "there is no model gone.onnx"),
        ((TORN,), TORN),
        ((GOOD, "--data", "gone.npz"), "gone.npz"),
        ((GOOD, "--policy", "nosuch"), "there is no policy 'nosuch'"),
        ((GOOD, "--data", "judged.npz", "--time-limit", "-1"), "--time-limit must be more than 0"),
        (("nothing*.onnx",), "no file fits"),
        ((FLOAT, "--skip-float"), "no model is quantized"),
        ((), "which model?"),
        ((GOOD, "--polcy", "strict"), "--polcy"),
        ((GOOD, "--time-limit", "long"), "'long' is not a valid float"),
        ((GOOD, BAD, "--baseline", "b.json"), "--baseline is of one model"),
    ],
)
def test_bad_input_is_an_error_in_junit_and_sarif(
    at: Any, check_sarif: Callable[..., None], arguments: tuple[str, ...], words: str
) -> None:
    done = at.run("check", *arguments, "--junit", "j.xml", "--sarif", "s.sarif")
    assert done.returncode == 2 and done.stdout == "" and words in done.stderr, done
    root = ElementTree.parse(at.work / "j.xml").getroot()
    assert (root.get("tests"), root.get("errors")) == ("1", "1")
    error = root.find("./testsuite/testcase/error")
    assert error is not None and words in error.get("message", "") and words in str(error.text)
    log = json.loads((at.work / "s.sarif").read_text())
    check_sarif(log)
    (notification,) = log["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert words in notification["message"]["text"]


def test_a_model_that_a_pattern_finds_is_not_replaced(at: Any) -> None:
    before = (at.work / GOOD).read_bytes()
    for option in ("--junit", "--sarif", "--json"):
        done = at.run("check", "*int8.onnx", *DATA, option, GOOD)
        assert done.returncode == 2 and "is not replaced" in done.stderr, done
        assert (at.work / GOOD).read_bytes() == before


def test_a_wrong_command_line_replaces_nothing_that_it_names(at: Any) -> None:
    before = (at.work / GOOD).read_bytes()
    for options in (("--junit", GOOD), (f"--junit={GOOD}",), ("--sarif", "--junit")):
        assert at.run("check", GOOD, "--polcy", "x", *options).returncode == 2
    assert (at.work / GOOD).read_bytes() == before
    for option in ("--polcy", "--polici"):  # A report of before is replaced.
        assert at.run("check", GOOD, option, "x", "--junit=j.xml", "--sarif", "s.sarif").returncode == 2
        assert option in (at.work / "j.xml").read_text() and option in (at.work / "s.sarif").read_text()
