"""FP32 that is wrong itself: every command says so before INT8 is blamed, with the likely cause."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.audit import audit_calibration
from onnxptq.errors import DataError
from onnxptq.inputs import DataOptions

CLASSES = 4
R = np.random.default_rng(0)
LABEL = np.arange(400) % CLASSES
X = (np.eye(CLASSES)[LABEL] + R.normal(0, 0.1, (400, CLASSES))).astype(np.float32)
ORDER = np.array([1, 2, 3, 0])
"""The label of each output."""


def write(folder: Path, label: np.ndarray, **keys: object) -> Path:
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="matmul")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", CLASSES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", CLASSES])],
        [numpy_helper.from_array(np.eye(CLASSES, dtype=np.float32), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "fp32.onnx")
    (folder / "fp32.json").write_text(json.dumps({"task": "tensor-classification", **keys}))
    np.savez(folder / "d.npz", x=X, label=label)
    return folder


@pytest.fixture(scope="module")
def turned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model that is always right, with data whose labels are in another order; and its INT8 file."""
    folder = write(tmp_path_factory.mktemp("turned"), ORDER[LABEL])
    onnxptq.quantize(
        folder / "fp32.onnx", data=str(folder / "d.npz"), corruptions=["clean"], output=folder / "int8.onnx"
    )
    (folder / "plan.toml").write_text(PLAN)
    yield folder


PLAN = """
models = ["fp32.onnx"]
data = "d.npz"
calibrations = ["clean"]
methods = ["minmax"]
corruptions = ["clean"]
seeds = [0]
"""
DATA = ["--data", "d.npz"]
COMMANDS = {
    "quantize": ["quantize", "fp32.onnx", *DATA, "-o", "again.onnx"],
    "evaluate": ["evaluate", "int8.onnx", "--reference", "fp32.onnx", *DATA],
    "check": ["check", "int8.onnx", "--reference", "fp32.onnx", *DATA],
    "audit": ["audit", "fp32.onnx", *DATA],
    "compare": ["compare", "fp32.onnx", "int8.onnx", "--no-speed", *DATA],
    "diagnose": ["diagnose", "fp32.onnx", "int8.onnx", *DATA],
    "sweep": ["sweep", "plan.toml", "--jobs", "1"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_says_first_that_labels_are_in_another_order(command, turned, run_here):
    done = run_here(COMMANDS[command], turned, dict(os.environ))
    said = (done.stderr + done.stdout).lower()
    assert done.returncode in (0, 1, 3), said
    assert "is right on 0.0 % of the samples" in said
    assert "output 0 is label 1, 1 is label 2, 2 is label 3, 3 is label 0" in said
    assert 'give "classes" in the order of the outputs' in said
    if command == "check":
        assert done.returncode == 3


def test_a_promise_that_is_kept_is_silent_and_one_that_is_broken_is_told(tmp_path):
    noisy = np.where(R.random(400) < 0.4, R.integers(0, CLASSES, 400), LABEL)
    for promised, told in ((0.7, False), (0.95, True)):
        folder = tmp_path / str(promised)
        folder.mkdir()
        write(folder, noisy, expected_score=promised)
        made = onnxptq.quantize(
            folder / "fp32.onnx", data=str(folder / "d.npz"), corruptions=["clean"], output=folder / "q.onnx"
        )
        assert any("promises 95 %" in line and "the preprocessing" in line for line in made.warnings) == told
        carried = json.loads(
            {p.key: p.value for p in onnx.load(folder / "q.onnx").metadata_props}["onnxptq.preprocessing"]
        )
        assert carried["expected_score"] == promised
        audited = audit_calibration(folder / "fp32.onnx", options=DataOptions(data=str(folder / "d.npz")))
        assert ("promises 95 %" in str(audited.warnings[:1])) == told


def test_a_promise_is_a_share(tmp_path):
    write(tmp_path, LABEL, expected_score=95)
    with pytest.raises(DataError, match="'expected_score' must be a number from 0 to 1"):
        onnxptq.quantize(tmp_path / "fp32.onnx", data=str(tmp_path / "d.npz"), output=tmp_path / "q.onnx")


def test_graded_answers_that_are_worth_nothing_are_told(tmp_path):
    folder = write(tmp_path, LABEL, task="tensor-regression", error_scale=0.01)
    np.savez(folder / "d.npz", x=X, target=X + 5)
    made = onnxptq.quantize(
        folder / "fp32.onnx", data=str(folder / "d.npz"), corruptions=["clean"], output=folder / "q.onnx"
    )
    assert any("expected answers that can get worse" in line for line in made.warnings), made.warnings
