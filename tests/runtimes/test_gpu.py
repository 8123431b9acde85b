"""CUDA and TensorRT, on a machine that has them: `pytest -m gpu`. Skipped with the reason from `onnxptq providers`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.comparison import CompareSettings
from onnxptq.comparison.named import compare_models
from onnxptq.graphs import load_model
from onnxptq.runtimes import probe
from onnxptq.runtimes.isolated import Worker
from onnxptq.runtimes.provider_options import DeviceSettings
from onnxptq.runtimes.selection import resolve_runtime

from .conftest import WEIGHTS

pytestmark = pytest.mark.gpu
X = np.array([[1, 2], [-3, 0.5]], np.float32)


def require(name: str) -> None:
    if not (status := probe(name)).loads:
        pytest.skip(f"{name} does not load here: {status.reason}")


@pytest.fixture(scope="session")
def symmetric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model as TensorRT wants it."""
    path = tmp_path_factory.mktemp("models") / "digits.tensorrt.onnx"
    onnxptq.quantize(evaluate=False, target="tensorrt", output=path)
    return path


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_io_binding_times_as_many_runs_as_asked_for_and_leaves_the_outputs_right(model: Path, name: str) -> None:
    require(name)
    runtime = resolve_runtime(name, user_cache(), DeviceSettings(memory_bytes=2**30, workspace_bytes=2**28))
    with Worker(timeout_s=300) as worker:
        session = worker.open(model, runtime.session_providers(user_cache(), load_model(model)))
        assert session.providers[0] == runtime.provider.ort_name
        assert len(worker.time(session, {"x": X}, runs=20, warmup=5, device="cuda")) == 20
        np.testing.assert_allclose(worker.run(session, {"x": X})[0], X @ WEIGHTS, rtol=1e-2)


def test_tensorrt_leaves_its_engine_and_timings_in_the_cache_room(model: Path) -> None:
    require("tensorrt")
    runtime = resolve_runtime("tensorrt", user_cache())
    (_, options), *_ = providers = runtime.session_providers(user_cache(), load_model(model))
    with Worker(timeout_s=300) as worker:
        worker.run(worker.open(model, providers), {"x": X})
    assert any(Path(options["trt_engine_cache_path"]).iterdir())
    assert any(Path(options["trt_timing_cache_path"]).iterdir())


@pytest.mark.parametrize("name", ["cuda", "tensorrt"])
def test_the_built_in_model_in_int8_agrees_with_the_cpu_and_is_placed_on_the_gpu(symmetric: Path, name: str) -> None:
    require(name)
    settings = CompareSettings(groups=("label",), runs=20, timeout_s=300)
    comparison, _ = compare_models([symmetric], ["cpu", name], corruptions=["clean"], settings=settings)
    assert [row.status for row in comparison.rows] == ["done"] * 4
    on_gpu = comparison.rows[3]
    assert on_gpu.flips is not None
    assert on_gpu.flips.flip_rate < 0.02
    assert (on_gpu.placement.multiply_add_share or {}).get(probe(name).ort_name, 0) > 0.9
