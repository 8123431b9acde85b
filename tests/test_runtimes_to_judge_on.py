"""`--ep` of evaluate, quantize and check: any runtime, and INT8 sums that are exact on any CPU."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.cache import cache_room
from onnxptq.errors import ModelError, UsageError
from onnxptq.gates.check import check
from onnxptq.runtimes import open_session
from onnxptq.runtimes.cpu import u8s8_saturates
from onnxptq.runtimes.environments import add_interpreter
from onnxptq.runtimes.isolated import Worker


@pytest.fixture(scope="module", autouse=True)
def production() -> None:
    """Another environment, with this interpreter."""
    add_interpreter(cache_room(), "production", Path(sys.executable), force=True)


@pytest.fixture
def data(tmp_path: Path) -> str:
    """x float32 (N, 6) and a label of four."""
    x = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, label=np.arange(400) % 4)
    return str(tmp_path / "data.npz")


@pytest.fixture
def saturating(tmp_path: Path) -> Path:
    """A QDQ MatMul whose products are all 255 * 127: two of them do not fit into INT16."""
    depth = 64
    one, zero = np.float32(1), np.uint8(0)
    constants = {"scale": one, "zero": zero, "w": np.full((depth, 8), 127, np.int8), "signed_zero": np.int8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["dq"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "signed_zero"], ["weight"]),
        helper.make_node("MatMul", ["dq", "weight"], ["product"]),
        helper.make_node("QuantizeLinear", ["product", "step", "zero"], ["qy"]),
        helper.make_node("DequantizeLinear", ["qy", "step", "zero"], ["y"]),
    ]
    constants["step"] = np.float32(255 * 127 * depth / 250)
    graph = helper.make_graph(
        nodes,
        "saturating",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", depth])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 8])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "saturating.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_exact_sums_are_exact_on_every_cpu(saturating: Path) -> None:
    feeds = {"x": np.full((4, 64), 255, np.float32)}
    exact = 255 * 127 * 64
    (here,) = open_session(saturating, optimization="exact").run(feeds)
    assert here == pytest.approx(np.full((4, 8), exact), rel=1e-6)
    with Worker() as worker:
        (apart,) = worker.run(worker.open(saturating, optimization="exact"), feeds)
    assert (apart == here).all()
    (plain,) = open_session(saturating).run(feeds)
    assert (plain < 0.99 * exact).all() == u8s8_saturates()


def test_evaluate_takes_a_runtime_of_another_environment(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    model = save_classifier()
    made = onnxptq.quantize(model, data=data, output=tmp_path / "int8.onnx", corruptions=["clean"], provider="cpu")
    there = onnxptq.evaluate([made.output], data=data, corruptions=["clean"], provider="production:exact")
    assert there.reports[0].provider == "production:exact"
    assert there.predictions[1].identity["runtime"]["optimization"] == "exact"
    exact = onnxptq.evaluate([made.output], data=data, corruptions=["clean"], provider="cpu:exact")
    assert (there.predictions[1].outputs == exact.predictions[1].outputs).all()


def test_check_judges_on_it_and_compares_it_with_others(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    model, policy = save_classifier(), tmp_path / "policy.toml"
    made = onnxptq.quantize(model, data=data, output=tmp_path / "int8.onnx", corruptions=["clean"])
    policy.write_text('format = 1\n[provider_agreement]\nproviders = ["cpu:exact", "production:none"]\nlimit = 0.9\n')
    found = check(made.output, data=data, policy=policy, provider="production", corruptions=["clean"])
    said = [rule.explanation for rule in found.rules]
    assert len(said) == 2
    assert said[0].startswith("cpu:exact predicts what production does on ")
    assert said[1].startswith("production:none predicts what production does on ")


def test_a_runtime_that_there_is_not_says_how_to_add_it(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=r"onnxptq runtimes add cpu@1\.2"):
        onnxptq.quantize(save_classifier(), data=data, output=tmp_path / "int8.onnx", provider="cpu@1.2")
    assert not (tmp_path / "int8.onnx").exists()


def test_a_model_that_a_runtime_refuses_is_named(
    save_classifier: Callable[..., Path], data: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from onnxptq.evaluation.lane import Lane
    from onnxptq.runtimes.isolated import WorkerError

    def refuse(self: Lane, room: object) -> None:
        raise WorkerError("refused", "no kernel for QLinearConv")

    made = onnxptq.quantize(save_classifier(), data=data, output=tmp_path / "int8.onnx", corruptions=["clean"])
    monkeypatch.setattr(Lane, "load", refuse)
    with pytest.raises(ModelError, match=r"int8\.onnx .*production.*no kernel for QLinearConv"):
        onnxptq.evaluate([made.output], data=data, corruptions=["clean"], provider="production:basic")


@pytest.mark.parametrize(
    ("features", "provider", "said"),
    [(("avx2",), "cpu", True), (("avx2",), "cpu:exact", False), (("avx2", "avx512_vnni"), "cpu", False)],
)
def test_a_cpu_that_clips_is_said_where_int8_was_judged_on_it(
    features: tuple[str, ...],
    provider: str,
    said: bool,
    save_classifier: Callable[..., Path],
    data: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("onnxptq.runtimes.selection.cpu_features", lambda: features)
    made = onnxptq.quantize(
        save_classifier(), data=data, output=tmp_path / "int8.onnx", corruptions=["clean"], provider=provider
    )
    assert any("no VNNI" in warning for warning in made.warnings) == said
