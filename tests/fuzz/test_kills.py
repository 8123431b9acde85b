"""`kill -9` at any moment of a command: no half file under its final name, and the next run makes what an untouched one makes."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

COMMANDS = {
    "quantize": ("quantize", "--calib-size", "16", "--corruption", "clean", "--force", "-o", "out.onnx"),
    "sweep": ("sweep", "plan.toml", "--jobs", "1", "-o", "out.html"),
}

PLAN = 'format = 1\ncalibrations = ["clean", "dark@3"]\nmethods = ["minmax"]\ncalib_size = 16\neval_size = 100\ncorruptions = ["clean"]\n'


def start(name: str, folder: Path) -> subprocess.Popen[bytes]:
    (folder / "plan.toml").write_text(PLAN)
    (folder / "tmp").mkdir(exist_ok=True)
    environment = {**os.environ, "ONNXPTQ_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp")}
    with (folder / "said").open("wb") as said:
        return subprocess.Popen(
            [sys.executable, "-m", "onnxptq.cli", *COMMANDS[name]],
            cwd=folder,
            env=environment,
            stdout=said,
            stderr=said,
        )


def finish(name: str, folder: Path) -> None:
    process = start(name, folder)
    assert process.wait(300) == 0, (folder / "said").read_text()


MOMENTS = 100


@pytest.mark.kills
@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_nothing_half_made(name: str, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    finish(name, whole)
    seconds = time.monotonic() - began
    folder = tmp_path / "killed"
    folder.mkdir()
    draw = random.Random(0)
    for _ in range(MOMENTS):
        process = start(name, folder)
        time.sleep(draw.uniform(0, seconds))
        process.kill()
        process.wait()
        if (folder / "out.onnx").exists():
            onnx.checker.check_model(str(folder / "out.onnx"))
        if (folder / "out.html").exists():
            assert (folder / "out.html").read_text().rstrip().endswith("</html>")
    finish(name, folder)
    if name == "quantize":
        assert (folder / "out.onnx").read_bytes() == (whole / "out.onnx").read_bytes()
    assert [path.name for path in (folder / "tmp").iterdir() if path.name.startswith("onnxptq-run.")] == []
    verified = [sys.executable, "-m", "onnxptq.cli", "cache", "verify"]
    environment = {**os.environ, "ONNXPTQ_CACHE": str(folder / "cache")}
    done = subprocess.run(verified, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
