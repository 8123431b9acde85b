"""Fixtures of the lint tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from .graphs import FLOAT_NETS, FloatNet


@pytest.fixture
def save(tmp_path: Path) -> Callable[[onnx.ModelProto], Path]:
    def write(model: onnx.ModelProto) -> Path:
        onnx.save(model, str(tmp_path / "model.onnx"))
        return tmp_path / "model.onnx"

    return write


@pytest.fixture
def folded(tmp_path: Path) -> Callable[[str], Path]:
    """A float net by name, as `quant_pre_process` leaves it."""

    def write(name: str) -> Path:
        from onnxruntime.quantization import quant_pre_process

        net = FloatNet(opset=17)
        raw, path = tmp_path / f"{name}.raw.onnx", tmp_path / f"{name}.onnx"
        onnx.save(net.model(FLOAT_NETS[name](net)), str(raw))
        quant_pre_process(str(raw), str(path), skip_symbolic_shape=True)
        return path

    return write
