"""The built-in model in INT8, and interpreters that misbehave in one chosen way."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.comparison import CompareSettings
from onnxptq.evaluation import Predictions
from onnxptq.inputs import DataOptions
from onnxptq.models import builtin
from onnxptq.runtimes.environments import PythonEnvironment, add_interpreter

QUICK = CompareSettings(groups=("label",), speed=False, timeout_s=60)

Misbehaving = Callable[[str, str], PythonEnvironment]


@pytest.fixture(scope="session")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model, quantized on clean samples."""
    path = tmp_path_factory.mktemp("models") / "digits.int8.onnx"
    onnxptq.quantize(evaluate=False, output=path)
    return path


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> DataOptions:
    """The first 130 test images of the built-in model: three batches."""
    path = tmp_path_factory.mktemp("data") / "digits.parquet"
    pq.write_table(pq.read_table(builtin().test).slice(0, 130), path)
    return DataOptions(data=str(path))


@pytest.fixture
def misbehaving(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Misbehaving:
    """Registers a runtime `name`: this interpreter, which runs `code` in a worker before anything else.

    `code` sees `Session`, the class onnxruntime.InferenceSession. The cache is one of the test's own.
    """
    if sys.platform == "win32":
        pytest.skip("the interpreter is a shell script")
    monkeypatch.setenv("ONNXPTQ_CACHE", str(tmp_path / "room"))

    def register(name: str, code: str) -> PythonEnvironment:
        return add_interpreter(user_cache(), name, interpreter(tmp_path / f"python-{name}", code))

    return register


def interpreter(path: Path, code: str) -> Path:
    """A script that is called as a Python interpreter is: `path -I worker.py`."""
    setup = path.with_suffix(".setup.py")
    setup.write_text(
        "import runpy, sys\n"
        "if sys.argv[1].endswith('worker.py'):\n"
        "    from onnxruntime import InferenceSession as Session\n"
        + "".join(f"    {line}\n" for line in code.splitlines())
        + "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    path.write_text(f'#!/bin/sh\nshift\nexec "{sys.executable}" -P "{setup}" "$@"\n')
    path.chmod(0o755)
    return path


def predictions(
    prediction: list[int], label: list[int], outputs: list[list[float]] | None = None, group: list[str] | None = None
) -> Predictions:
    """Made up by hand; every row is a source of its own."""
    rows = len(prediction)
    nothing = np.full(rows, np.nan)
    return Predictions(
        sample_id=np.array([f"s{i}" for i in range(rows)]),
        source_id=np.array([f"s{i}" for i in range(rows)]),
        groups={"kind": np.array(group or ["all"] * rows)},
        label=np.array(label, np.int64),
        code=np.array(prediction, np.int64),
        certainty=np.ones(rows, np.float32),
        outputs=None if outputs is None else np.array(outputs, np.float32),
        signal_energy=nothing,
        error_energy=nothing,
        identity={"model": {"name": "m.onnx", "digest": "0"}, "runtime": {"provider": "cpu"}},
    )
