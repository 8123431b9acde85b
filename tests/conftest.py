"""Fixtures that all tests share. No test touches the user's cache room."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session", autouse=True)
def cache_room_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A cache room for the whole run: what one test prepared, the next one finds, as a user does."""
    room = tmp_path_factory.mktemp("cache-room")
    before = os.environ.get("ONNXPTQ_CACHE")
    os.environ["ONNXPTQ_CACHE"] = str(room)
    yield room
    if before is None:
        del os.environ["ONNXPTQ_CACHE"]
    else:
        os.environ["ONNXPTQ_CACHE"] = before


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with the CIFAR-10 models and data, for tests on something real."""
    folder = os.environ.get("ONNXPTQ_SHARED")
    if not folder or not (Path(folder) / "models").is_dir():
        pytest.skip("set ONNXPTQ_SHARED to the folder with models/ and data/ to run this test on CIFAR-10")
    return Path(folder)


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def onnxptq(tmp_path: Path) -> Run:
    """Runs the installed `onnxptq` command in an empty folder (`tmp_path`), as a user does."""
    beside = Path(sys.executable).parent / "onnxptq"
    command = [str(beside)] if beside.is_file() else [shutil.which("onnxptq") or "onnxptq"]

    def run(*arguments: str | Path, **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *map(str, arguments)],
            cwd=options.pop("cwd", tmp_path),
            capture_output=True,
            text=True,
            timeout=300,
            **options,
        )

    return run
