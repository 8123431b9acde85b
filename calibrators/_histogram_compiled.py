"""The counters of `histogram` as machine code. Importing this module imports Numba (half a second).

The machine code is kept where Numba keeps it (`__pycache__`, or the user's cache folder where that is read-only): it is
compiled once a machine, in about two seconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np

from onnxptq.calibrators.histogram_bins import (
    BOTTOM,
    FIRST,
    INFINITE,
    LAST,
    NO_PAGE,
    PAGE,
    PAGES,
    SHIFT,
    SIGN,
    TOP,
    TOP_POSITIVE,
    USED,
)

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
    """The compiled functions, each compiled or loaded at its first call. `state` is that of an accumulator.

    Attributes:
        add: (bits, tables, offsets, table, state) -> 0, or -1 where NaN or infinity is among the values, or the number
            of pages that `table` lacks. Counts in the two tables, every other value in each, and drains them.
        drain: (tables, offsets, table, state) -> 0, or as above. Moves what the tables hold to the pages of one tensor
            and leaves them empty.
    """

    add: Callable[..., int]
    drain: Callable[..., int]


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _extremes(bits: Any) -> Any:
    """The largest bits as int32, the largest and the smallest as uint32, and the smallest magnitude less one.

    Zeros have no magnitude here; of nothing but zeros the last is 0xFFFFFFFF.
    """
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
def _take_in(found: Any, state: Any) -> Any:
    if found[0] >= INFINITE or found[1] >= SIGN + INFINITE:
        return -1
    state[TOP_POSITIVE] = max(state[TOP_POSITIVE], found[0])
    state[TOP] = max(state[TOP], found[1])
    state[BOTTOM] = min(state[BOTTOM], found[2])
    # Of nothing but zeros, the first page lies above the last.
    state[FIRST] = (np.int64(found[3]) + 1) >> 23
    state[LAST] = max(np.int64(found[0]), np.int64(found[1]) - SIGN) >> 23
    return 0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _lacking(offsets: Any, table: Any, state: Any) -> Any:
    """Pages that the table may lack: 0 where it is large enough whatever the values were."""
    pages = 2  # Of the two zeros.
    for sign in range(2):
        for page in range(state[FIRST], state[LAST] + 1):
            if offsets[sign * _HALF + page] == _NO_PAGE:
                pages += 1
    return pages if state[USED] + pages * PAGE > table.size else 0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _drain(tables: Any, offsets: Any, table: Any, state: Any) -> Any:
    lacking = _lacking(offsets, table, state)
    if lacking:
        return lacking
    first, last, used = state[FIRST], state[LAST], state[USED]
    for sign in range(2):
        # A tensor without negative values (after a Relu) has half the pages to look at.
        if (state[TOP_POSITIVE] < 0) if sign == 0 else (state[TOP] < SIGN):
            continue
        # The zeros lie in the first bin of page 0, far from the other magnitudes.
        if first > 0:
            used = _move(tables, sign * _HALF, 1, offsets, table, used)
        for page in range(first, last + 1):
            used = _move(tables, sign * _HALF + page, PAGE, offsets, table, used)
    state[USED] = used
    return 0


@numba.njit(nogil=True, cache=True)  # type: ignore[untyped-decorator]
def _add(bits: Any, tables: Any, offsets: Any, table: Any, state: Any) -> Any:
    if _take_in(_count(bits, tables), state) < 0:
        return -1
    return _drain(tables, offsets, table, state)


KERNELS = Kernels(_add, _drain)
