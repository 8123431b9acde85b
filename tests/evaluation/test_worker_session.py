"""How much of a model a provider must take, and how a session is opened; workers and sessions are fakes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from onnxptq.cache import Cache
from onnxptq.evaluation.worker_session import LEAST_SHARE, check_taken, open_in
from onnxptq.graphs import load_model
from onnxptq.models import builtin
from onnxptq.runtimes.isolated import Opened, PlacedNode, WorkerError
from onnxptq.runtimes.provider_options import Batches
from onnxptq.runtimes.selection import resolve_runtime
from onnxptq.tasks import Signature

TENSORRT, CUDA, CPU = (f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "CPU"))


def opened(*nodes: tuple[str, str, int]) -> Opened:
    placed = tuple(PlacedNode(provider, kind, f"{kind}{n}") for provider, kind, count in nodes for n in range(count))
    return Opened(0, 0.0, (TENSORRT, CPU), Signature((), ()), placed)


@pytest.fixture
def runtime(tmp_path: Path) -> Any:
    return resolve_runtime("tensorrt", Cache(tmp_path))


def test_one_node_of_fifty_is_too_few_to_judge_a_model_on_a_provider(runtime: Any) -> None:
    session = opened((TENSORRT, "Conv", 1), (CUDA, "Conv", 24), (CPU, "Relu", 25))
    with pytest.raises(WorkerError, match="1 of 25 nodes with weights only, and CUDAExecutionProvider the others"):
        check_taken(session, runtime, LEAST_SHARE)
    check_taken(session, runtime)  # a comparison shows the share instead


def test_nodes_without_weights_do_not_count_where_there_are_others(runtime: Any) -> None:
    check_taken(opened((TENSORRT, "FusedConv", 2), (CPU, "Shape", 40)), runtime, LEAST_SHARE)


def test_a_model_without_weights_is_counted_by_all_its_nodes(runtime: Any) -> None:
    check_taken(opened((TENSORRT, "Relu", 3), (CPU, "Add", 3)), runtime, LEAST_SHARE)
    with pytest.raises(WorkerError, match="3 of 7 nodes only"):
        check_taken(opened((TENSORRT, "Relu", 3), (CPU, "Add", 4)), runtime, LEAST_SHARE)


def test_a_provider_that_took_nothing_is_refused_whatever_the_share(runtime: Any) -> None:
    with pytest.raises(WorkerError, match="all of the model would run on CPUExecutionProvider"):
        check_taken(opened((CPU, "Conv", 3)), runtime)


class Refusing:
    """A worker whose TensorRT takes the graph in several parts, between which shapes are open."""

    def __init__(self, reason: str) -> None:
        self.reason, self.asked = reason, list[dict[str, str]]()

    def open(self, model: Path, providers: Any, **keywords: Any) -> Opened:
        self.asked.append(dict(providers[0][1]))
        if "trt_profile_max_shapes" in self.asked[-1]:
            raise WorkerError("refused", self.reason)
        return opened((TENSORRT, "Conv", 1))


def test_a_graph_for_which_no_profile_can_be_written_is_opened_without(runtime: Any, tmp_path: Path) -> None:
    model = load_model(builtin().model)
    worker: Any = Refusing("User needs to provide all the dynamic shape inputs with associated profiles")
    open_in(worker, model, runtime, Cache(tmp_path), batches=Batches(64))
    assert ["trt_profile_max_shapes" in options for options in worker.asked] == [True, False]
    worker = Refusing("no kernel image")
    with pytest.raises(WorkerError, match="no kernel image"):
        open_in(worker, replace(model), runtime, Cache(tmp_path), batches=Batches(64))
    assert len(worker.asked) == 1
