"""Mutations of small files: seeded, so that a case that fails can be had again by its number."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

EXTREMES = (b"\x00", b"\xff", b"\xff" * 9 + b"\x01", b"\x80" * 10, b"\x7f\xff\xff\xff", b"\x00" * 16, b"\xff" * 16)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four small damages: bits, bytes, slices cut, doubled, moved, or replaced by extreme numbers."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        at = int(rng.integers(len(out)))
        length = int(min(len(out) - at, rng.geometric(0.1)))
        kind = rng.integers(8)
        if kind == 0:
            out[at] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            out[at] = int(rng.integers(256))
        elif kind == 2:
            del out[at : at + length]
        elif kind == 3:
            out[at:at] = out[at : at + length]
        elif kind == 4:
            piece = bytes(out[at : at + length])
            to = int(rng.integers(len(out)))
            out[to : to + length] = piece
        elif kind == 5:
            extreme = EXTREMES[rng.integers(len(EXTREMES))]
            out[at : at + len(extreme)] = extreme
        elif kind == 6:
            out[at:at] = rng.bytes(length)
        elif rng.random() < 0.3:
            del out[at:]
    return bytes(out)


@pytest.fixture
def mutants() -> Callable[[bytes, int, int], Iterator[bytes]]:
    """`mutants(data, seed, count)`."""

    def make(data: bytes, seed: int, count: int) -> Iterator[bytes]:
        for number in range(count):
            yield mutate(data, np.random.default_rng([seed, number]))

    return make


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each test that takes `cases` runs twice: a few by default, thousands under the marker `fuzz`."""
    if "cases" in metafunc.fixturenames:
        few, many = metafunc.function.cases
        metafunc.parametrize("cases", [few, pytest.param(many, marks=pytest.mark.fuzz)])
