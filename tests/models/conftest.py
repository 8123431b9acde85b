"""The built-in digits, read without any code of ours: pyarrow, Pillow and the numbers in the model's metadata."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pyarrow.parquet as pq
import pytest
from PIL import Image

from onnxptq.models import builtin


def _read(path: Path) -> SimpleNamespace:
    rows = pq.read_table(path).to_pylist()
    images = [Image.open(io.BytesIO(row["image"]["bytes"])) for row in rows]
    assert {(image.mode, image.format) for image in images} == {("L", "PNG")}
    return SimpleNamespace(
        pixels=np.stack([np.asarray(image) for image in images]),
        labels=np.array([row["label"] for row in rows]),
        ids=tuple(row["id"] for row in rows),
    )


@pytest.fixture(scope="session")
def read_digits() -> Callable[[Path], SimpleNamespace]:
    """Reads a Parquet file: pixels uint8 (N, 8, 8), labels int64 (N,), ids."""
    return _read


@pytest.fixture(scope="session")
def digits_train() -> SimpleNamespace:
    return _read(builtin("digits").train)


@pytest.fixture(scope="session")
def digits_test() -> SimpleNamespace:
    return _read(builtin("digits").test)


@pytest.fixture(scope="session")
def digits_metadata() -> dict[str, str]:
    return {entry.key: entry.value for entry in onnx.load(builtin("digits").model).metadata_props}


@pytest.fixture(scope="session")
def digits_feeds(digits_metadata: dict[str, str]) -> Callable[[Any], dict[str, Any]]:
    """Values in [0, 1], (N, 8, 8) -> what to feed the net, normalised as its metadata say."""
    preprocessing = json.loads(digits_metadata["onnxptq.preprocessing"])
    (mean,), (std,) = preprocessing["mean"], preprocessing["std"]
    return lambda values: {"input": ((values[:, None] - mean) / std).astype(np.float32)}


@pytest.fixture(scope="session")
def predict() -> Callable[[Path, dict[str, Any]], Any]:
    """The class that the model at a path predicts for each sample, int64 (N,)."""

    def run(path: Path, feeds: dict[str, Any]) -> Any:
        options = onnxruntime.SessionOptions()
        # On x86 without VNNI the CPU's kernels saturate; the file is judged here, not the CPU.
        options.add_session_config_entry("session.x64quantprecision", "1")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return session.run(["logits"], feeds)[0].argmax(axis=1)

    return run
