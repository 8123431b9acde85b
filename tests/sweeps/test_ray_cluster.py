"""Sweeps on a Ray cluster that another process started: nothing but Ray is shared, so models and data travel."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxptq.cache import Cache
from onnxptq.errors import RuntimeUnavailableError
from onnxptq.sweeps.plan import Plan
from onnxptq.sweeps.ray_engine import RayEngine
from onnxptq.sweeps.run import open_grid, sweep
from onnxptq.sweeps.store import Store
from onnxptq.sweeps.study import DONE, Study

from .inline import InlineEngine

pytestmark = pytest.mark.ray

_CLUSTER = """
import sys

import ray

ray.init(num_cpus=1, include_dashboard=False)
print("address", ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True)
class Cluster:
    """Its address, and the cache of its machine."""

    address: str
    cache: Path


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster with a folder and a cache of its own: to our process it is another machine."""
    pytest.importorskip("ray", reason="needs Ray: pip install 'onnxptq[ray]'")
    folder = tmp_path_factory.mktemp("there")
    # `ray.init` starts a cluster that wants a token, unless it is told otherwise.
    environment = {**os.environ, "ONNXPTQ_CACHE": str(folder / "room"), "RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", _CLUSTER]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, env=environment, text=True, **pipes) as process:  # type: ignore[call-overload]
        found = next((line.split()[1] for line in process.stdout if line.startswith("address ")), None)
        assert found, "the cluster did not start"
        yield Cluster(found, folder / "room")
        process.stdin.close()
        process.wait(60)


@pytest.fixture
def plan(save_classifier: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Two cells, of a set in two parts; model and data are named as they lie in the current folder."""
    monkeypatch.chdir(tmp_path)
    save_classifier()
    rng = np.random.default_rng(0)
    np.savez("data.npz", x=rng.standard_normal((1000, 6)).astype(np.float32), y=np.arange(1000) % 4)
    return Plan(
        models=("net.onnx",), data="data.npz", corruptions=("clean",), methods=("minmax", "percentile"), calib_size=300
    )


def run(plan: Plan, empty_cache: Path, engine: Any) -> Study:
    with Store(Cache(empty_cache)) as store, engine:
        return store.study(sweep(open_grid(plan, store, engine), store, engine))


def test_what_is_named_here_is_found_there_and_what_is_made_there_comes_back(
    cluster: Cluster, plan: Plan, tmp_path: Path
) -> None:
    study = run(plan, tmp_path / "here", RayEngine(Cache(tmp_path / "here"), cluster.address))
    assert [(cell.status, cell.error) for cell in study.cells] == [(DONE, "")] * 2
    alone = run(plan, tmp_path / "alone", InlineEngine())
    for far, near in zip(study.cells, alone.cells, strict=True):
        assert (far.report, far.ranges, far.model_digest) == (near.report, near.ranges, near.model_digest)
        assert (tmp_path / "here" / far.predictions).is_file(), "predictions came back"
    assert list((cluster.cache / "v1/sweep-inputs").rglob("net.onnx")), "the model travelled"
    assert run(plan, tmp_path / "here", RayEngine(Cache(tmp_path / "here"), cluster.address)) == study


def test_a_gpu_that_the_cluster_lacks_is_an_error(cluster: Cluster, tmp_path: Path) -> None:
    with (
        RayEngine(Cache(tmp_path), cluster.address) as engine,
        pytest.raises(RuntimeUnavailableError, match="no node of the Ray cluster has one"),
    ):
        engine.identity("cuda")
