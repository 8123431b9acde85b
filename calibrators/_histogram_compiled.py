"""The counters of `_histogram` as machine code. Importing this module imports Numba (half a second).

The machine code is kept where Numba keeps it (`__pycache__`, or the user's cache folder where that is read-only): it is
compiled once a machine, in about two seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from onnxptq.calibrators._histogram import NO_PAGE, PAGE, PAGES, SHIFT

_BLOCK = 1 << 14
"""Values a round: 64 KiB, which the second loop over them finds in the L2 cache and partly in L1."""

_ONE = np.uint32(1)
_MAGNITUDE = np.uint32(0x7FFFFFFF)
_LARGEST = np.uint32(0xFFFFFFFF)
_SHIFT = np.uint32(SHIFT)
_NO_PAGE = np.uint64(NO_PAGE)
_HALF = PAGES // 2


@dataclass(frozen=True)
class Kernels:
    """The compiled functions, each compiled or loaded at its first call.

    Attributes:
        extremes: bits -> the largest as int32, the largest and the smallest as uint32, and the smallest magnitude less
            one, zeros left out; of nothing but zeros that is 0xFFFFFFFF.
        count: (bits, tables) -> the same; adds the counts of all bins to two tables, every other value to each.
        drain: (tables, first, last, offsets, table, used) -> used. Moves what the tables hold, of both signs from page
            `first` to `last` and of the two zeros, to the pages of one tensor, and leaves the tables empty.
    """

    extremes: Callable[..., tuple[Any, Any, Any, Any]]
    count: Callable[..., tuple[Any, Any, Any, Any]]
    drain: Callable[..., Any]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _extremes(bits: Any) -> Any:
    top_positive, top, bottom, smallest = np.int32(-(2**31)), np.uint32(0), _LARGEST, _LARGEST
    for i in range(bits.size):
        value = bits[i]
        top_positive = max(top_positive, np.int32(value))
        top = max(top, value)
        bottom = min(bottom, value)
        # Less one, zero wraps round to the largest number: no branch, so that the loop becomes SIMD.
        smallest = min(smallest, np.uint32((value & _MAGNITUDE) - _ONE))
    return top_positive, top, bottom, smallest


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]  # Numba ships no types
def _count(bits: Any, tables: Any) -> Any:
    top_positive, top, bottom, smallest = np.int32(-(2**31)), np.uint32(0), _LARGEST, _LARGEST
    # Two tables, because an increment of the bin that was just incremented (runs of zeros) waits for the store.
    even, odd = tables[0], tables[1]
    for start in range(0, bits.size, _BLOCK):
        block = bits[start : start + _BLOCK]
        found = _extremes(block)
        top_positive, top = max(top_positive, found[0]), max(top, found[1])
        bottom, smallest = min(bottom, found[2]), min(smallest, found[3])
        pairs = block.size // 2 * 2
        for i in range(0, pairs, 2):
            even[block[i] >> _SHIFT] += _ONE
            odd[block[i + 1] >> _SHIFT] += _ONE
        if pairs < block.size:
            even[block[pairs] >> _SHIFT] += _ONE
    return top_positive, top, bottom, smallest


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _move(tables: Any, page: Any, bins: Any, offsets: Any, table: Any, used: Any) -> Any:
    """Moves the first `bins` bins of one page; allocates the page when it holds anything."""
    even = tables[0, page * PAGE : page * PAGE + bins]
    odd = tables[1, page * PAGE : page * PAGE + bins]
    held = np.uint32(0)
    for i in range(bins):
        held |= even[i] | odd[i]
    if held == 0:
        return used
    if offsets[page] == _NO_PAGE:
        offsets[page] = used
        used += PAGE
    start = np.int64(offsets[page])
    counts = table[start : start + bins]
    for i in range(bins):
        counts[i] += np.int64(even[i]) + np.int64(odd[i])
        even[i] = 0
        odd[i] = 0
    return used


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _drain(tables: Any, first: Any, last: Any, offsets: Any, table: Any, used: Any) -> Any:
    for sign in range(2):
        # The zeros lie in the first bin of page 0, far from the other magnitudes.
        if first > 0:
            used = _move(tables, sign * _HALF, 1, offsets, table, used)
        for page in range(first, last + 1):
            used = _move(tables, sign * _HALF + page, PAGE, offsets, table, used)
    return used


KERNELS = Kernels(_extremes, _count, _drain)
