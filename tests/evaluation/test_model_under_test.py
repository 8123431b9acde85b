"""A model that crashes, hangs or eats memory ends its own process; the check says so and goes on living."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache, user_cache
from onnxptq.errors import ModelError, RuntimeUnavailableError
from onnxptq.evaluation.model_under_test import Limits, ModelInWorker, WorkerPool, explaining
from onnxptq.graphs import load_model
from onnxptq.runtimes import open_session
from onnxptq.runtimes.selection import chosen_runtime


def answer(subject: ModelInWorker, feeds: dict[str, Any]) -> Any:
    """What a model says; its failures as a user is told of them."""
    with explaining(subject, "is loaded"):
        subject.open()
    with explaining(subject, "runs"):
        return subject.run(feeds)


FEEDS = {"x": np.arange(12, dtype=np.float32).reshape(2, 6)}


def made(path: Path, nodes: list[Any], constants: dict[str, Any]) -> Path:
    """x float32 (N, 6) -> y, through nodes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["a", "b"])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_model_in_a_worker_computes_what_a_plain_one_does(save_classifier: Callable[..., Path]) -> None:
    model = load_model(save_classifier())
    plain = open_session(model.path)
    with WorkerPool(user_cache(), Limits()) as pool:
        apart = pool.in_worker(model).open()
        assert (apart.signature, apart.opened.providers[0]) == (plain.signature, plain.providers[0])
        assert apart.placement == plain.placement
        assert np.array_equal(apart.run(FEEDS)[0], plain.run(FEEDS)[0])
        assert pool.in_worker(model) is apart, "it is loaded once"


def test_a_killed_process_is_a_clean_error(save_classifier: Callable[..., Path]) -> None:
    with WorkerPool(user_cache(), Limits()) as pool:
        subject = pool.in_worker(load_model(save_classifier())).open()
        os.kill(subject.worker.pid, signal.SIGKILL)
        with pytest.raises(ModelError, match=r"net\.onnx cannot be judged: while it runs on cpu, .*SIGKILL"):
            answer(subject, FEEDS)


def test_a_model_that_eats_memory_is_stopped(tmp_path: Path) -> None:
    # As large as the input says: no constant tells it beforehand. 100,000 x 100,000 float32 are 40 GB.
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Cast", ["sum"], ["size"], to=TensorProto.INT64),
        helper.make_node("Reshape", ["size", "one"], ["list"]),
        helper.make_node("Concat", ["list", "list"], ["shape"], axis=0),
        helper.make_node("ConstantOfShape", ["shape"], ["y"]),
    ]
    path = made(tmp_path / "eater.onnx", nodes, {"one": np.array([1])})
    with WorkerPool(user_cache(), Limits(memory_bytes=2**30)) as pool:
        subject = pool.in_worker(load_model(path))
        with pytest.raises(ModelError, match=r"eater\.onnx cannot be judged.*--memory-limit"):
            answer(subject, {"x": np.full((1, 6), 100_000 / 6, np.float32)})


def test_a_model_that_hangs_is_stopped(tmp_path: Path) -> None:
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["still"]),
            helper.make_node("Identity", ["state"], ["next"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, ["a", "b"]),
        ],
        [
            helper.make_tensor_value_info("still", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, ["a", "b"]),
        ],
    )
    nodes = [helper.make_node("Loop", ["trips", "true", "x"], ["y"], body=body)]
    path = made(tmp_path / "loop.onnx", nodes, {"trips": np.array(2**62), "true": np.array(True)})
    with WorkerPool(user_cache(), Limits(seconds=2.0)) as pool:
        subject = pool.in_worker(load_model(path))
        with pytest.raises(ModelError, match=r"loop\.onnx cannot be judged.*--time-limit"):
            answer(subject, FEEDS)


def test_a_model_that_onnx_runtime_refuses_is_a_clean_error(tmp_path: Path) -> None:
    path = made(tmp_path / "odd.onnx", [helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": np.ones((5, 2), "f4")})
    with WorkerPool(user_cache(), Limits()) as pool, pytest.raises(ModelError, match=r"odd\.onnx cannot be judged"):
        answer(pool.in_worker(load_model(path)), FEEDS)


def test_a_provider_that_does_not_load_is_never_replaced_silently(
    save_classifier: Callable[..., Path], tmp_path: Path
) -> None:
    from onnxptq.runtimes import probe_all

    missing = next((status.name for status in probe_all() if status.compiled and not status.loads), None)
    if missing is None:
        pytest.skip("every provider that is compiled in loads here")
    model, empty_cache = load_model(save_classifier()), Cache(tmp_path)
    with WorkerPool(user_cache(), Limits()) as pool:
        with pytest.raises(RuntimeUnavailableError, match=missing):
            chosen_runtime(missing, empty_cache)
        subject = pool.in_worker(model, chosen_runtime(missing, empty_cache, allow_fallback=True)).open()
        assert subject.opened.providers[0] == "CPUExecutionProvider"
        assert missing in str(subject.runtime.fallback_reason)
