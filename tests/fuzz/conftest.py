"""Mutations of small files: seeded, so that a case that fails can be had again by its number."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Helpers lie beside the tests, which pytest imports by path.
sys.path.insert(0, str(Path(__file__).parent))
from _counts import COUNTS
from _mutations import mutate


@pytest.fixture
def mutants() -> Callable[[bytes, int, int], Iterator[bytes]]:
    """`mutants(data, seed, count)`."""

    def make(data: bytes, seed: int, count: int) -> Iterator[bytes]:
        for number in range(count):
            yield mutate(data, np.random.default_rng([seed, number]))

    return make


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """How many inputs ended how; a crash, a hang, or an error that is not ours fails its test and is not counted."""
    if COUNTS:
        counted = f"{COUNTS['accepted']} accepted (exit code 0), {COUNTS['refused']} refused (2)"
        failed = len(terminalreporter.stats.get("failed", ()))
        terminalreporter.write_line(
            f"fuzz: {COUNTS.total()} inputs: {counted}; tests with a crash, a hang or 70: {failed}"
        )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that takes `cases` runs twice: a few by default, thousands under the marker `fuzz`."""
    if "cases" in metafunc.fixturenames:
        few, many = metafunc.function.cases
        metafunc.parametrize("cases", [few, pytest.param(many, marks=pytest.mark.fuzz)])


@pytest.fixture(scope="session")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built-in model in INT8: 43 KB, of which most is the graph."""
    import onnxptq

    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    onnxptq.quantize(output=path, evaluate=False)
    return path


@pytest.fixture(scope="session")
def make_predictions(int8: Path) -> Callable[[], Any]:
    """The built-in model and its INT8 file, judged."""
    import onnxptq

    made = onnxptq.evaluate([int8], corruptions=["clean"]).predictions
    return lambda: made
