"""Real second environments from the package index: `pytest -m runtime2`. Skipped where it cannot be reached."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.cache import Cache
from onnxptq.comparison import CompareSettings, Comparison
from onnxptq.comparison.named import compare_models
from onnxptq.errors import RuntimeUnavailableError
from onnxptq.runtimes import cpu_features
from onnxptq.runtimes.cpu import u8s8_can_saturate
from onnxptq.runtimes.environments import PythonEnvironment, add_packages, default_packages
from onnxptq.runtimes.isolated import Job, run
from onnxptq.runtimes.selection import resolve_runtime
from onnxptq.runtimes.session import Optimization

pytestmark = pytest.mark.runtime2

saturates = bool(u8s8_can_saturate(cpu_features()))
"""On x86 without VNNI the CPU provider clips sums of U8S8 products, in every version of ONNX Runtime, and OpenVINO."""

OLD = "cpu@1.20"


def build(empty_cache: Cache, name: str) -> PythonEnvironment:
    try:
        return add_packages(empty_cache, name, default_packages(name), say=str)[0]
    except RuntimeUnavailableError as error:
        pytest.skip(f"no second runtime: {error}")


@pytest.fixture(scope="module")
def empty_cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """One room for the module: every environment is built once."""
    return Cache(tmp_path_factory.mktemp("room"))


@pytest.fixture(scope="module")
def openvino(empty_cache: Cache) -> PythonEnvironment:
    return build(empty_cache, "openvino")


@pytest.fixture(scope="module")
def old(empty_cache: Cache) -> PythonEnvironment:
    return build(empty_cache, OLD)


@pytest.fixture(scope="module")
def compared(
    openvino: PythonEnvironment, old: PythonEnvironment, empty_cache: Cache, tmp_path_factory: pytest.TempPathFactory
) -> Comparison:
    """The built-in model in FP32 and INT8 on the CPU here, OpenVINO, and an old version."""
    int8 = tmp_path_factory.mktemp("models") / "digits.int8.onnx"
    settings = CompareSettings(groups=("label",), runs=10, layers=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONNXPTQ_CACHE", str(empty_cache.root))
        onnxptq.quantize(evaluate=False, output=int8)
        return compare_models([int8], ["cpu", "openvino", OLD], corruptions=["clean"], settings=settings)[0]


def test_the_old_version_is_the_one_asked_for(old: PythonEnvironment) -> None:
    assert old.description.onnxruntime.startswith("1.20.")
    assert old.description.distribution == "onnxruntime"


def test_every_model_runs_on_every_runtime(compared: Comparison) -> None:
    assert [row.status for row in compared.rows] == ["done"] * 6
    assert [runtime.identity()["distribution"] for runtime in compared.runtimes][1:] == [
        "onnxruntime-openvino",
        "onnxruntime",
    ]


def test_openvino_took_the_whole_model_and_fuses_out_of_sight(compared: Comparison) -> None:
    row = compared.rows[4]
    assert row.runtime == "openvino"
    assert row.placement.multiply_add_share == {"OpenVINOExecutionProvider": 1.0}
    assert row.placement.unfused is None


def test_an_old_version_cannot_tell_its_nodes(compared: Comparison) -> None:
    assert compared.rows[5].placement.nodes is None
    assert compared.rows[3].placement.nodes is not None


@pytest.mark.skipif(saturates, reason="U8S8 products saturate on this CPU: its kernels differ by more than steps")
def test_int8_differs_between_providers_by_single_steps(compared: Comparison) -> None:
    difference = compared.rows[4].between
    assert difference is not None
    assert not difference.equal  # it computes INT8 in its own way
    assert difference.further_apart == 0
    assert difference.flip_rate < 0.02


@pytest.mark.skipif(not saturates, reason="U8S8 products do not saturate on this CPU")
def test_saturation_is_called_an_error_of_the_kernels(compared: Comparison) -> None:
    cause = compared.rows[3].cause
    assert cause is not None
    assert cause.kernels.sqnr_db is not None and cause.quantization.sqnr_db is not None
    assert cause.kernels.sqnr_db < cause.quantization.sqnr_db


@pytest.mark.skipif(saturates, reason="U8S8 products saturate on this CPU: the error is its kernels'")
def test_the_error_is_quantizations_and_not_the_providers(compared: Comparison) -> None:
    for row in compared.rows[3:]:
        assert row.cause is not None
        assert row.cause.quantization.sqnr_db is not None
        assert row.cause.kernels.equal or (row.cause.kernels.sqnr_db or 0) > row.cause.quantization.sqnr_db


@pytest.mark.parametrize("level", ["all", "none", "exact"])
@pytest.mark.parametrize("operator", ["MatMul", "Gemm", "Conv"])
def test_openvino_clips_where_it_is_said_to(
    openvino: PythonEnvironment, empty_cache: Cache, tmp_path: Path, operator: str, level: Optimization
) -> None:
    """Products of 255 and 127 in INT8: two of them do not fit into INT16."""
    depth = 64
    shape, weight = ([1, depth, 4, 4], (8, depth, 1, 1)) if operator == "Conv" else ([4, depth], (depth, 8))
    constants = {
        "scale": np.float32(1), "zero": np.uint8(0), "w": np.full(weight, 127, np.int8), "signed_zero": np.int8(0),
        "step": np.float32(127 * depth),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "signed_zero"], ["weight"]),
        helper.make_node(operator, ["dq", "weight"], ["sum"]),
        helper.make_node("QuantizeLinear", ["sum", "step", "zero"], ["qy"]),
        helper.make_node("DequantizeLinear", ["qy", "step", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "sums.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    job = Job(path, (("OpenVINOExecutionProvider", {}),), level, feeds=({"x": np.full(shape, 255, np.float32)},))
    ((found,),) = run(job, python=openvino.python).outputs
    runtime = resolve_runtime(f"openvino:{level}", empty_cache)
    assert (found < 0.9 * 255 * 127 * depth).all() == runtime.saturates


def test_a_model_newer_than_the_old_version_is_refused_there_only(old: PythonEnvironment, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    path = tmp_path / "new.onnx"
    onnx.save(model, str(path))
    assert run(Job(path)).status == "done"
    outcome = run(Job(path), python=old.python)
    assert outcome.status == "refused"
    assert "version" in outcome.reason.lower()
