"""Ctrl-C ends the command at any moment with exit code 130 and one line, and nothing half-made stays anywhere."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from onnxptq.commands.stop import orderly_stop

EVALUATING = ("quantize", "--calib-size", "16", *(f"--corruption=fog@{severity}" for severity in range(1, 6)))
LONG = (*EVALUATING, "--calib-size", "800")
"""A second or more of evaluation, and of calibration too, where nothing of it was done before."""

Started = subprocess.Popen[str]


def reading_its_options(place: Any, cache_folder: Path, tmp_path: Path) -> Started:
    """The command has just begun, and waits for a pipe to which nobody writes."""
    pipe = tmp_path / "preprocessing.json"
    os.mkfifo(pipe)
    process: Started = place.start(*LONG, "--preprocessing", pipe, ONNXPTQ_CACHE=cache_folder)
    while process.poll() is None:
        try:
            os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # Nobody reads it yet.
            time.sleep(0.01)
        else:
            # Between opening and reading there is a moment in which Python notes a signal and blocks all the same.
            time.sleep(0.1)
            break
    return process


def at_stage(stage: str, *command: str) -> Callable[[Any, Path, Path], Started]:
    """The command has said that it began `stage`, and a moment has passed."""

    def start(place: Any, cache_folder: Path, tmp_path: Path) -> Started:
        process: Started = place.start(*command, ONNXPTQ_CACHE=cache_folder)
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith(stage):
                time.sleep(0.1)
                break
        return process

    return start


MOMENTS = {
    "reading its options": reading_its_options,
    "calibrating": at_stage("calibrating", *LONG),
    "calibrating with the stock engine": at_stage("calibrating", *LONG, "--engine", "stock", "--method", "entropy"),
    "evaluating": at_stage("evaluating", *EVALUATING),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ctrl_c_leaves_nothing_while_the_command_is(moment: str, place: Any, tmp_path: Path) -> None:
    process = MOMENTS[moment](place, tmp_path / "room", tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    assert_stopped(process, 128 + signal.SIGINT, place, tmp_path / "room")


def test_impatient_ctrl_c_does_not_cut_the_tidying_up_short(place: Any, tmp_path: Path) -> None:
    process = at_stage("calibrating", *LONG)(place, tmp_path / "room", tmp_path)
    for _ in range(20):
        os.killpg(process.pid, signal.SIGINT)
        time.sleep(0.005)
    assert_stopped(process, 128 + signal.SIGINT, place, tmp_path / "room")


@pytest.fixture
def own_signals() -> Iterator[None]:
    """A stopped command leaves its signals ignored for the end of its process, which here is that of all tests."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ignored where the tests run in the background.
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_an_interrupt_that_a_library_swallows_is_raised_again(own_signals: None) -> None:
    with orderly_stop() as stop, pytest.raises(KeyboardInterrupt):
        with suppress(KeyboardInterrupt):  # As NumPy's C code does.
            os.kill(os.getpid(), signal.SIGINT)
        assert stop.signal == signal.SIGINT
        time.sleep(30)


def test_temporary_files_that_an_interrupted_library_left_go_with_the_command(tmp_path: Path) -> None:
    before = tempfile.gettempdir()
    with orderly_stop():
        left = Path(tempfile.mkdtemp(prefix="ort.quant."))
        assert os.environ["TMPDIR"] == tempfile.gettempdir() == str(left.parent) != before
    assert not left.parent.exists()
    assert tempfile.gettempdir() == before


def test_a_terminated_command_tidies_up_too(place: Any, tmp_path: Path) -> None:
    process = at_stage("evaluating", *EVALUATING)(place, tmp_path / "room", tmp_path)
    process.terminate()
    assert_stopped(process, 128 + signal.SIGTERM, place, tmp_path / "room")


def test_after_ctrl_c_the_same_command_does_its_work(place: Any, inputs: Path, tmp_path: Path) -> None:
    command = ("quantize", str(inputs / "tensor.onnx"), "--data", str(inputs / "good.npz"), "--calib-size", "20")
    process = at_stage("calibrating", *command)(place, tmp_path / "room", tmp_path)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)
    done = place.succeeded(*command, ONNXPTQ_CACHE=tmp_path / "room")
    assert place.files() == ["tensor.clean.minmax.int8.onnx"], done


def assert_stopped(process: Started, code: int, place: Any, cache_folder: Path) -> None:
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == code, stderr
    assert stdout == ""
    said = [line for line in stderr.splitlines() if line and not line.startswith(("calibrating", "evaluating"))]
    assert said == ["onnxptq: interrupted; nothing half-made was left behind."]
    assert place.files() == []
    place.check_tidy()
    assert not list(cache_folder.rglob("*.part"))
