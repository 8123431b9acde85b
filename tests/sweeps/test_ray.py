"""Sweeps on a real local Ray cluster: the same cells as in one process, and no wait for a GPU that no node has."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onnxptq.cache import Cache
from onnxptq.errors import RuntimeUnavailableError
from onnxptq.sweeps.ahead import look_ahead
from onnxptq.sweeps.engine import JobOutcome
from onnxptq.sweeps.ray_engine import RayEngine
from onnxptq.sweeps.run import open_grid, sweep
from onnxptq.sweeps.store import Store, load_study
from onnxptq.sweeps.study import DONE

from .inline import SMALL

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, finished: Path) -> Iterator[RayEngine]:
    """Two workers on this machine, and a cache that knows the folded model."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'onnxptq[ray]'")
    empty_cache = tmp_path_factory.mktemp("ray")
    for kind in ("folded-model", "datasets"):
        shutil.copytree(finished / "v1" / kind, empty_cache / "v1" / kind)
    with RayEngine(Cache(empty_cache), most=2) as engine:
        yield engine


def test_the_cells_are_those_of_one_process(cluster: RayEngine, finished: Path) -> None:
    with Store(cluster.cache) as store:
        study = store.study(sweep(open_grid(SMALL, store, cluster), store, cluster))
    assert [cell.status for cell in study.cells] == [DONE] * 4
    for made, alone in zip(study.cells, load_study("last", finished).cells, strict=True):
        assert replace(made, seconds={}) == replace(alone, seconds={})


def test_a_dry_run_measures_on_the_cluster_and_makes_no_cell(cluster: RayEngine) -> None:
    plan = replace(SMALL, calib_size=15)
    with Store(cluster.cache) as store:
        ahead = look_ahead(open_grid(plan, store, cluster), store, cluster)
        assert (ahead.known, ahead.todo) == (0, 4) and ahead.seconds


def test_a_gpu_that_no_node_has_is_an_error_and_no_endless_wait(cluster: RayEngine) -> None:
    with pytest.raises(RuntimeUnavailableError, match="needs a GPU, and no node of the Ray cluster has one"):
        cluster.identity("cuda")


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_worker_that_is_killed_costs_no_cell(cluster: RayEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = replace(SMALL, calib_size=17)
    killed: list[int] = []
    wait = RayEngine.wait

    def kill_and_wait(engine: RayEngine) -> JobOutcome:
        if not killed and (worker := _busy_worker()):
            killed.append(worker)
            os.kill(worker, signal.SIGKILL)
        return wait(engine)

    monkeypatch.setattr(RayEngine, "wait", kill_and_wait)
    with Store(cluster.cache) as store:
        study = store.study(sweep(open_grid(plan, store, cluster), store, cluster))
    assert killed and [cell.status for cell in study.cells] == [DONE] * 4


def _busy_worker() -> int | None:
    """The process that does a job: Ray names it by the task. None where the job was done before anybody looked."""
    for _ in range(100):
        for status in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError):
                if status.read_bytes().startswith(b"ray::_work"):
                    return int(status.parent.name)
        time.sleep(0.05)
    return None
