"""The counters of `_histogram` as machine code. Importing this module imports Numba."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from onnxptq.calibrators._histogram import NO_PAGE, PAGE, PAGES, SHIFT

_BLOCK = 1 << 14
"""Values a round: 64 KiB, which the second loop over them finds in the L2 cache and partly in L1."""

_HALF = PAGES // 2


@dataclass(frozen=True)
class Kernels:
    """The compiled functions.

    Attributes:
        extremes: bits -> largest as int32, largest and smallest as uint32, smallest magnitude but zero.
        count: (bits, tables) -> the same, and the counts of all bins in two tables together.
        drain: (tables, first, last, offsets, table, used) -> used. Moves what the tables hold, for both signs of the
            exponents `first` to `last` and for zero, to the pages of one tensor, and leaves the tables empty.
    """

    extremes: Callable[..., tuple[Any, Any, Any, Any]]
    count: Callable[..., tuple[Any, Any, Any, Any]]
    drain: Callable[..., int]


def build() -> Kernels:
    """Compiles lazily: each function at its first call."""
    extremes = numba.njit(_extremes, nogil=True)
    globals()["_extremes_compiled"] = extremes
    return Kernels(extremes, numba.njit(_count, nogil=True), numba.njit(_drain, nogil=True))


def _extremes(bits: Any) -> Any:
    top_positive, top = np.int32(-(2**31)), np.uint32(0)
    bottom, smallest = np.uint32(0xFFFFFFFF), np.uint32(0xFFFFFFFF)
    for i in range(bits.size):
        value = bits[i]
        top_positive = max(top_positive, np.int32(value))
        top = max(top, value)
        bottom = min(bottom, value)
        # Less one, zero wraps round to the largest number: no branch, so that the loop becomes SIMD.
        smallest = min(smallest, np.uint32((value & np.uint32(0x7FFFFFFF)) - np.uint32(1)))
    return top_positive, top, bottom, np.uint32(smallest + np.uint32(1)) if smallest != 0xFFFFFFFF else smallest


_extremes_compiled = _extremes


def _count(bits: Any, tables: Any) -> Any:
    return bits, tables


def _drain(tables: Any, first: Any, last: Any, offsets: Any, table: Any, used: Any) -> Any:
    return used
