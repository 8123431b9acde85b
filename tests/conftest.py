"""Fixtures that all tests share. No test touches the user's cache room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_room_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache room for the whole run: what one test prepared, the next one finds, as a user does."""
    room = tmp_path_factory.mktemp("cache-room")
    before = os.environ.get("ONNXPTQ_CACHE")
    os.environ["ONNXPTQ_CACHE"] = str(room)
    os.environ.pop("COLUMNS", None)  # Tables are as wide in a test as in a pipe, whoever runs the tests.
    yield room
    if before is None:
        del os.environ["ONNXPTQ_CACHE"]
    else:
        os.environ["ONNXPTQ_CACHE"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the CIFAR-10 models and data, for tests on something real."""
    folder = os.environ.get("ONNXPTQ_SHARED")
    if not folder or not (Path(folder) / "models").is_dir():
        pytest.skip("set ONNXPTQ_SHARED to the folder with models/ and data/ to run this test on CIFAR-10")
    return Path(folder)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def onnxptq(tmp_path: Path) -> Run:
    """Runs the installed `onnxptq` command in an empty folder (`tmp_path`), as a user does."""
    beside = Path(sys.executable).parent / "onnxptq"
    command = [str(beside)] if beside.is_file() else [shutil.which("onnxptq") or "onnxptq"]

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, arguments)],
            cwd=options.pop("cwd", tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run


@pytest.fixture
def save_classifier(tmp_path: Path) -> Callable[..., Path]:
    """Writes a tiny net of seeded weights: x, float32 (batch, 6) -> logits, float32 (batch, 4)."""

    def save(
        name: str = "net.onnx", *, batch: int | str = "N", seed: int = 0, metadata: Mapping[str, str] | None = None
    ) -> Path:
        import onnx
        from onnx import TensorProto, helper, numpy_helper

        rng = np.random.default_rng(seed)
        shapes = {"w1": (6, 8), "b1": (8,), "w2": (8, 4), "b2": (4,)}
        weights = [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32), n) for n, s in shapes.items()]
        nodes = [
            helper.make_node("Gemm", ["x", "w1", "b1"], ["hidden"], "body"),
            helper.make_node("Relu", ["hidden"], ["positive"], "relu"),
            helper.make_node("Gemm", ["positive", "w2", "b2"], ["logits"], "head"),
        ]
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [batch, k]) for n, k in (("x", 6), ("logits", 4))]
        graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        helper.set_model_props(model, dict(metadata or {}))
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture
def make_dataset() -> Callable[..., Any]:
    """Makes an `onnxptq.data.Dataset` in memory: column "x" of seeded float32 rows (or the `values` given), labels."""

    def make(
        count: int = 40,
        *,
        seed: int = 0,
        classes: int | None = 4,
        labels: Sequence[int] | None = None,
        values: Any = None,
        attributes: Mapping[str, Sequence[str]] | None = None,
        source: str = "data",
    ) -> Any:
        from onnxptq.data import Dataset, fingerprint

        rng = np.random.default_rng(seed)
        if values is None:
            values = rng.standard_normal((count, 6)).astype(np.float32)
        names = () if classes is None else tuple(f"class{c}" for c in range(classes))
        codes = None if classes is None else np.asarray(np.arange(len(values)) % classes if labels is None else labels)
        columns = {name: np.asarray(column, np.str_) for name, column in (attributes or {}).items()}
        if codes is not None:
            columns["label"] = np.asarray(names, np.str_)[codes]
        return Dataset(
            source=source,
            split=None,
            rows=lambda indices: [{"x": values[i], "_name": f"row {i}"} for i in indices.tolist()],
            indices=np.arange(len(values)),
            labels=codes,
            label_names=names,
            attributes=columns,
            fingerprints=np.array([fingerprint({"x": value}) for value in values], np.str_),
        )

    return make
