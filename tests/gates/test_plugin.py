"""The pytest plug-in: a model that passes passes the test, one that does not fails it with the text of the check."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from onnxptq.evaluation import save_predictions

pytest_plugins = ["pytester"]

Make = Callable[..., Any]


@pytest.fixture
def project(pytester: pytest.Pytester, make_runs: Make, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """A project with predictions of a good model, a bad one, and one on too few samples."""
    monkeypatch.delenv("PYTEST_ADDOPTS", raising=False)
    runs = {"good": make_runs(100), "bad": make_runs(100, {"label=cat": 0.5}), "few": make_runs(10)}
    for name, pair in runs.items():
        save_predictions(pytester.path / f"{name}.parquet", pair)
    pytester.makefile(".toml", policy="[average_drop]\nlimit = 0.5\n")
    return pytester


def run(project: pytest.Pytester, body: str, *, own_process: bool = False) -> pytest.RunResult:
    project.makepyfile(f"def test_model(onnxptq_check):\n    {body}")
    start = project.runpytest_subprocess if own_process else project.runpytest_inprocess
    return start("-p", "no:cacheprovider")  # The plugin itself comes by its entry point, as it does for a user.


def test_a_model_that_passes_passes_the_test(project: pytest.Pytester) -> None:
    run(project, "assert onnxptq_check(predictions='good.parquet').exit_code == 0").assert_outcomes(passed=1)


def test_a_model_that_fails_fails_the_test_with_the_verdict_and_no_traceback(project: pytest.Pytester) -> None:
    result = run(project, "onnxptq_check(predictions='bad.parquet')", own_process=True)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["FAILED int8.onnx against fp32.onnx on cpu: 2 failed*", "again: onnxptq check --predictions bad.parquet"]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_the_policy_is_the_one_that_the_test_names(project: pytest.Pytester) -> None:
    run(project, "onnxptq_check(predictions='bad.parquet', policy='policy.toml')").assert_outcomes(passed=1)


def test_too_few_samples_are_no_pass(project: pytest.Pytester) -> None:
    run(project, "onnxptq_check(predictions='few.parquet')").assert_outcomes(failed=1)
    run(project, "onnxptq_check(predictions='few.parquet', undecided='skip')").assert_outcomes(skipped=1)


def test_bad_input_fails_the_test_in_the_words_of_the_command(project: pytest.Pytester) -> None:
    result = run(project, "onnxptq_check('nosuch.onnx')")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["onnxptq: there is no model nosuch.onnx*"])


def test_the_plug_in_is_declared_and_imports_nothing_heavy() -> None:
    root = Path(__file__).resolve().parents[2]
    if (root / "setup.cfg").is_file():
        declared = (root / "setup.cfg").read_text(encoding="utf-8")
        assert "pytest11 =\n    onnxptq = onnxptq.pytest_plugin\n" in declared
    else:
        (entry,) = [e for e in importlib.metadata.entry_points(group="pytest11") if e.name == "onnxptq"]
        assert entry.value == "onnxptq.pytest_plugin"
    code = "import sys, onnxptq.pytest_plugin; print([m for m in ('numpy', 'onnx', 'onnxruntime') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
