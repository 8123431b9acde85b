"""Models that packages ship go through inspect, quantize, evaluate and check, whatever comes out of them."""

from __future__ import annotations

import json
import os

import pytest

pytestmark = pytest.mark.real

NOTHING_TO_QUANTIZE = {"chars2vec"}
"""Recurrent nets alone: ONNX Runtime's static quantizer has no INT8 for them, and that is what must be said."""


@pytest.fixture
def ask(run_here, tmp_path):
    """Runs a command in this process, and gives its exit code and what it said."""

    def run(*arguments, expected=(0,)):
        done = run_here([str(one) for one in arguments], tmp_path, dict(os.environ))
        assert done.returncode in expected, f"{' '.join(map(str, arguments))}\n{done.stderr[-2000:]}"
        return done

    return run


def test_it_is_quantized_without_data_and_without_a_question(real, model_file, ask, tmp_path):
    if real.name in NOTHING_TO_QUANTIZE:
        done = ask("quantize", model_file, "--calib", "random", "--no-evaluate", *real.without_data, expected=(2,))
        assert "nothing of the model was quantized" in done.stderr
        return
    ask(
        "quantize",
        model_file,
        "--calib",
        "random",
        "--calib-size",
        "4",
        "--no-evaluate",
        "-o",
        tmp_path / "q.onnx",
        *real.without_data,
    )
    assert (tmp_path / "q.onnx").is_file()


def test_it_goes_all_the_way(real, model_file, samples, ask, tmp_path, worked):
    if real.name in NOTHING_TO_QUANTIZE:
        pytest.skip("nothing of it can be quantized")
    ask("inspect", model_file, "--json", tmp_path / "inspect.json")
    said = json.loads((tmp_path / "inspect.json").read_text())
    assert said["task"]
    int8 = tmp_path / "int8.onnx"
    reading = ("--data", samples, "--corruption", "clean")
    ask("quantize", model_file, *reading, "--calib-size", "4", "-o", int8, "--json", tmp_path / "q.json")
    judged = json.loads((tmp_path / "q.json").read_text())
    assert judged["judged"]
    assert 0 <= judged["int8_average"] <= 1
    ask("evaluate", int8, "--reference", model_file, *reading)
    # 24 samples are too few to pass, and noise is no data to fail on: what counts is that there is a verdict.
    ask("check", int8, "--reference", model_file, *reading, expected=(0, 1, 3))
    worked[real.name] = f"{judged['measure']} of {', '.join(judged['judged'])}: {judged['int8_average']:.3f}"
