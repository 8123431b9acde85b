from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from onnxptq.runtimes import isolated
from onnxptq.runtimes.isolated import Job, Worker, WorkerError

from .conftest import WEIGHTS, build

SaveModel = Callable[[onnx.ModelProto], Path]
X = np.array([[1, 2], [-3, 0.5]], np.float32)
CPU = (("CPUExecutionProvider", {}),)

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")


@pytest.fixture
def worker() -> Iterator[Worker]:
    with Worker(timeout_s=60) as started:
        yield started


def signal_soon(worker: Worker, number: int) -> None:
    """Sends a signal as soon as the worker is busy with the call that follows."""

    def send() -> None:
        time.sleep(0.3)
        os.kill(worker.pid, number)

    threading.Thread(target=send).start()


def test_outputs_equal_those_of_the_model_and_come_in_its_order(worker: Worker, model: Path) -> None:
    session = worker.open(model)
    (y,) = worker.run(session, {"x": X})
    np.testing.assert_allclose(y, X @ WEIGHTS, rtol=1e-6)
    assert [spec.name for spec in session.signature.outputs] == ["y"]
    assert session.seconds > 0


def test_every_dtype_and_strings_travel_unchanged(worker: Worker, save_model: SaveModel) -> None:
    for kind, array in (
        (TensorProto.STRING, np.array([["ä", "longer"]], dtype=object)),
        (TensorProto.FLOAT16, np.array([[0.5, -2]], np.float16)),
        (TensorProto.INT8, np.array([[-128, 127]], np.int8)),
    ):
        session = worker.open(save_model(build(helper.make_node("Identity", ["x"], ["y"]), kind, kind)))
        (y,) = worker.run(session, {"x": array})
        assert y.tolist() == array.tolist()


def test_the_placement_names_every_node_with_its_provider(worker: Worker, model: Path) -> None:
    placed = worker.open(model).placement
    assert placed is not None
    assert [(node.provider, node.operator) for node in placed] == [("CPUExecutionProvider", "MatMul")]


def test_a_profile_names_the_kernels_that_ran_and_how_often(worker: Worker, model: Path) -> None:
    session = worker.open(model, profile=True)
    worker.run(session, {"x": X})
    worker.run(session, {"x": X})
    (kernel,) = worker.kernels(session)
    assert (kernel.provider, kernel.operator, kernel.runs) == ("CPUExecutionProvider", "MatMul", 2)


@pytest.mark.parametrize("device", [None, "cpu"])
def test_as_many_runs_are_timed_as_were_asked_for(worker: Worker, model: Path, device: str | None) -> None:
    seconds = worker.time(worker.open(model), {"x": X}, runs=7, warmup=2, device=device)
    assert len(seconds) == 7
    assert min(seconds) > 0


def test_the_optimization_level_and_the_threads_reach_the_session(worker: Worker, save_model: SaveModel) -> None:
    proto = build(helper.make_node("MatMul", ["x", "w"], ["product"]))
    proto.graph.node.append(helper.make_node("Identity", ["product"], ["y"]))
    file = save_model(proto)
    counts = [len(worker.open(file, optimization=level).placement or ()) for level in ("none", "all")]
    assert counts == [2, 1]
    with pytest.raises(WorkerError, match="incompatible function arguments"):
        worker.open(file, threads="many")  # type: ignore[arg-type]


def test_an_exception_of_onnx_runtime_is_refused_and_the_worker_lives_on(
    worker: Worker, model: Path, tmp_path: Path
) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(WorkerError, match="Protobuf parsing failed") as caught:
        worker.open(tmp_path / "broken.onnx")
    assert caught.value.failure == "refused"
    assert worker.run(worker.open(model), {"x": X})[0].shape == (2, 3)


@posix_only
@pytest.mark.parametrize("name", ["SIGKILL", "SIGABRT", "SIGSEGV"])
def test_a_worker_that_a_signal_ends_has_crashed_and_the_signal_is_named(
    worker: Worker, model: Path, name: str
) -> None:
    session = worker.open(model)
    signal_soon(worker, getattr(signal, name))
    with pytest.raises(WorkerError, match=name) as caught:
        worker.time(session, {"x": X}, runs=10**9)
    assert caught.value.failure == "crashed"
    with pytest.raises(WorkerError, match=name):  # and so it stays
        worker.run(session, {"x": X})


@posix_only
def test_a_worker_that_does_not_answer_in_time_is_killed_and_hung(worker: Worker, model: Path) -> None:
    session = worker.open(model)
    os.kill(worker.pid, signal.SIGSTOP)
    with pytest.raises(WorkerError, match=r"within 0\.3 seconds") as caught:
        worker.run(session, {"x": X}, timeout_s=0.3)
    assert caught.value.failure == "hung"
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


@posix_only
def test_nothing_is_left_of_a_worker_that_was_closed(model: Path) -> None:
    with Worker() as worker:
        folder = Path(worker._folder.name)
        worker.open(model)
        assert folder.is_dir()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(worker.pid, 0)


def test_a_job_that_runs_is_done_with_its_outputs(model: Path) -> None:
    outcome = isolated.run(Job(model, feeds=({"x": X}, {"x": 2 * X})))
    assert (outcome.status, outcome.reason) == ("done", "")
    np.testing.assert_allclose(outcome.outputs[1][0], 2 * X @ WEIGHTS, rtol=1e-6)


def test_a_job_keeps_the_runs_before_the_one_that_was_refused(model: Path) -> None:
    outcome = isolated.run(Job(model, feeds=({"x": X}, {"x": np.zeros((2, 9), np.float32)})))
    assert outcome.status == "refused"
    assert "Got invalid dimensions" in outcome.reason
    assert len(outcome.outputs) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux enforces the limit")
def test_a_job_over_its_memory_limit_is_out_of_memory(save_model: SaveModel) -> None:
    # One float becomes 2**30 of them, 4 GiB.
    proto = build(helper.make_node("Expand", ["x", "shape"], ["y"]))
    proto.graph.initializer.append(helper.make_tensor("shape", TensorProto.INT64, [3], [2**29, 1, 2]))
    outcome = isolated.run(Job(save_model(proto), feeds=({"x": X[:1]},)), memory_bytes=2**30)
    assert outcome.status == "out of memory"


def test_an_interpreter_that_is_not_there_is_missing(model: Path, tmp_path: Path) -> None:
    outcome = isolated.run(Job(model), python=tmp_path / "python")
    assert outcome.status == "missing"
    assert "No such file" in outcome.reason


@posix_only
def test_an_interpreter_that_talks_nonsense_is_missing(model: Path, tmp_path: Path) -> None:
    script = tmp_path / "python"
    script.write_text("#!/bin/sh\necho hello\nexec cat > /dev/null\n")
    script.chmod(0o755)
    outcome = isolated.run(Job(model), python=script)
    assert outcome.status == "missing"
    assert "hello" in outcome.reason


def test_what_a_provider_prints_neither_reaches_stdout_nor_the_protocol(
    model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # TensorRT that does not load prints "EP Error" on stdout.
    job = Job(model, providers=(("TensorrtExecutionProvider", {}), *CPU), feeds=({"x": X},))
    assert isolated.run(job).status in ("done", "refused")
    assert capfd.readouterr() == ("", "")
