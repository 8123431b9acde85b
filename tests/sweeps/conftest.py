"""The small study, finished once and copied; and a way to sweep a plan in a test's own folder."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxptq.cache import Cache
from onnxptq.sweeps.plan import Plan
from onnxptq.sweeps.run import open_grid, sweep
from onnxptq.sweeps.store import Store
from onnxptq.sweeps.study import Study

from .inline import SMALL, InlineEngine


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store in which the small study is complete. Not to be written to: copy it."""
    empty_cache = Cache(tmp_path_factory.mktemp("finished"))
    with Store(empty_cache) as store:
        engine = InlineEngine()
        sweep(open_grid(SMALL, store, engine), store, engine)
    return empty_cache.root


@pytest.fixture
def run_plan(finished: Path, tmp_path: Path) -> Callable[..., tuple[Study, InlineEngine]]:
    """Sweeps a plan in the store at `tmp_path`, which knows the folded model; gives the study and the engine."""
    for kind in ("folded-model", "datasets"):
        shutil.copytree(finished / "v1" / kind, tmp_path / "v1" / kind, dirs_exist_ok=True)

    def run(plan: Plan = SMALL, engine: InlineEngine | None = None) -> tuple[Study, InlineEngine]:
        engine = engine or InlineEngine()
        with Store(Cache(tmp_path)) as store:
            name = sweep(open_grid(plan, store, engine), store, engine)
            return store.study(name), engine

    return run
