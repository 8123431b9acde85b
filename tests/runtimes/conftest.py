"""Models for the tests of runtimes, built in a few lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT
WEIGHTS = np.array([[1, -1, 2], [3, 0, -4]], np.float32)


def build(node: onnx.NodeProto, x: int = FLOAT, y: int = FLOAT, domain: str = "") -> onnx.ModelProto:
    """A model of one node from x (batch, 2), or from x and WEIGHTS (2, 3), to y."""
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("x", x, ["batch", 2])],
        [helper.make_tensor_value_info("y", y, ["batch", None])],
        [numpy_helper.from_array(WEIGHTS, "w")],
    )
    opsets = [helper.make_opsetid("", 13)] + ([helper.make_opsetid(domain, 1)] if domain else [])
    return helper.make_model(graph, opset_imports=opsets, ir_version=8)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """y = x @ WEIGHTS, float32 (batch, 2) to (batch, 3)."""
    return save(tmp_path / "matmul.onnx", build(helper.make_node("MatMul", ["x", "w"], ["y"])))


@pytest.fixture
def save_model(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    return lambda proto: save(tmp_path / "other.onnx", proto)


def save(file: Path, proto: onnx.ModelProto) -> Path:
    onnx.save(proto, str(file))
    return file
