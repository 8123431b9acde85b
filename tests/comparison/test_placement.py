from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.comparison._placement import placement
from onnxptq.comparison.multiply_adds import multiply_adds
from onnxptq.comparison.placement_limits import check_limits, parse_limits
from onnxptq.errors import UsageError
from onnxptq.runtimes.isolated import Kernel, PlacedNode

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def save(folder: Path, nodes: list[onnx.NodeProto], shape: list[int | str], **weights: tuple[int, ...]) -> Path:
    """A model from x to y with weights of the given shapes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.ones(size, np.float32), name) for name, size in weights.items()],
    )
    path = folder / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.mark.parametrize(
    ("node", "shape", "weights", "expected"),
    [
        # 4 filters of 3*3*3 at 6 x 6 places
        (("Conv", {"pads": [1] * 4}), ["n", 3, 6, 6], {"w": (4, 3, 3, 3)}, 4 * 27 * 36),
        # depthwise: each of 8 channels has one 3x3 filter
        (("Conv", {"pads": [1] * 4, "group": 8}), [1, 8, 5, 5], {"w": (8, 1, 3, 3)}, 8 * 9 * 25),
        # each of 3*4*4 inputs is spread by 5 filters of 2*2
        (("ConvTranspose", {"strides": [2, 2]}), [1, 3, 4, 4], {"w": (3, 5, 2, 2)}, 48 * 20),
        (("Gemm", {"transB": 1}), ["n", 7], {"w": (5, 7)}, 35),
        (("MatMul", {}), [1, 9, 4], {"w": (4, 6)}, 9 * 4 * 6),
    ],
)
def test_multiply_adds_are_counted_for_one_sample(
    tmp_path: Path,
    node: tuple[str, dict[str, object]],
    shape: list[int | str],
    weights: dict[str, tuple[int, ...]],
    expected: int,
) -> None:
    operator, attributes = node
    made = helper.make_node(operator, ["x", "w"], ["y"], name="layer", **attributes)
    assert multiply_adds(save(tmp_path, [made], shape, **weights)) == {"layer": expected}


@pytest.fixture
def two_layers(tmp_path: Path) -> Path:
    """A product of 24 multiply-adds, one of 6, and a Relu."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="big"),
        helper.make_node("MatMul", ["h", "b"], ["i"], name="small"),
        helper.make_node("Relu", ["i"], ["y"], name="relu"),
    ]
    return save(tmp_path, nodes, ["n", 4], a=(4, 6), b=(6, 1))


def test_shares_are_of_multiply_adds_not_of_nodes(two_layers: Path) -> None:
    nodes = [PlacedNode(CUDA, "MatMul", "big"), PlacedNode(CPU, "MatMul", "small"), PlacedNode(CPU, "Relu", "relu")]
    found = placement(two_layers, nodes, None)
    assert found.nodes == {CUDA: 1, CPU: 2}
    assert found.multiply_add_share == {CUDA: pytest.approx(0.8), CPU: pytest.approx(0.2)}


def test_a_node_that_basic_optimization_renamed_is_found_again(two_layers: Path) -> None:
    nodes = [PlacedNode(CUDA, "Gemm", "big/MatMulAddFusion"), PlacedNode(CPU, "MatMul", "small")]
    assert placement(two_layers, nodes, None).multiply_add_share == {
        CUDA: pytest.approx(0.8),
        CPU: pytest.approx(0.2),
    }


def test_an_old_runtime_that_ran_everything_on_one_provider_has_shares_but_no_nodes(two_layers: Path) -> None:
    found = placement(two_layers, None, [Kernel(CPU, "FusedMatMul", "fused", 1)])
    assert (found.nodes, found.multiply_add_share) == (None, {CPU: 1.0})


def test_an_old_runtime_that_mixed_providers_is_unknown(two_layers: Path) -> None:
    kernels = [Kernel(CPU, "MatMul", "small", 1), Kernel(CUDA, "MatMul", "big", 1)]
    assert placement(two_layers, None, kernels).multiply_add_share is None


def test_nothing_is_known_of_a_runtime_that_tells_nothing(two_layers: Path) -> None:
    found = placement(two_layers, None, None)
    assert (found.nodes, found.multiply_add_share, found.unfused, found.copies) == (None, None, None, None)


def test_quantizers_at_inputs_and_outputs_of_the_graph_are_not_counted_as_unfused(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    path = save(tmp_path, nodes, [1, 4], s=())
    kernels = [Kernel(CPU, name, str(i), 1) for i, name in enumerate(["QuantizeLinear", "DequantizeLinear"] * 3)]
    assert placement(path, [], kernels).unfused == 4


def test_what_a_provider_fuses_in_its_own_graph_is_unknown(two_layers: Path) -> None:
    kernels = [Kernel("OpenVINOExecutionProvider", "OpenVINO-EP-subgraph_1", "g", 1)]
    assert placement(two_layers, None, kernels).unfused is None


def test_copies_between_host_and_device_are_counted(two_layers: Path) -> None:
    kernels = [
        Kernel(CUDA, "MemcpyFromHost", "a", 1),
        Kernel(CUDA, "MatMul", "b", 1),
        Kernel(CUDA, "MemcpyToHost", "c", 1),
    ]
    assert placement(two_layers, None, kernels).copies == 2


def comparison(share: float | None, status: str = "done") -> SimpleNamespace:
    shares = None if share is None else {CUDA: share, CPU: 1 - share}
    row = SimpleNamespace(
        runtime="cuda", model="m.onnx", status=status, placement=SimpleNamespace(multiply_add_share=shares)
    )
    runtime = SimpleNamespace(name="cuda", provider=SimpleNamespace(ort_name=CUDA), fallback_reason=None)
    return SimpleNamespace(rows=(row,), runtimes=(runtime,))


@pytest.mark.parametrize(
    ("share", "status", "passed"),
    [(0.95, "done", True), (0.949, "done", False), (None, "done", None), (1.0, "crashed", False)],
)
def test_a_required_placement_passes_fails_or_is_undecided(
    share: float | None, status: str, passed: bool | None
) -> None:
    limits = parse_limits(["cuda=95%"], ["cpu", "cuda"])
    (verdict,) = check_limits(comparison(share, status), limits)  # type: ignore[arg-type]
    assert verdict.passed is passed


@pytest.mark.parametrize("text", ["cuda", "cuda=many", "cuda=101%", "=5"])
def test_a_required_placement_that_is_none_is_an_error(text: str) -> None:
    with pytest.raises(UsageError, match="RUNTIME=PERCENT"):
        parse_limits([text], ["cuda"])


def test_a_required_placement_of_a_runtime_that_is_not_compared_is_an_error() -> None:
    with pytest.raises(UsageError, match="'cuda'"):
        parse_limits(["cudo=95%"], ["cuda"])
