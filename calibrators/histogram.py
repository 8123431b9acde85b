"""Counting float32 values on their bits: a log-linear histogram that needs no range beforehand and merges exactly.

A bin is the float's raw bits shifted right by `SHIFT`: sign, exponent and the top 10 bits of the mantissa. Counts are
kept in pages of 1024 bins, one page a sign and exponent, allocated when a value of that magnitude first appears: an
activation spans some 20 to 50 of the 512 pages (8 KiB each).

Two counters do the same: NumPy for little data, Numba (`_histogram_compiled`) for much.
"""

from __future__ import annotations

import functools
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.histogram_bins import (
    BOTTOM,
    INFINITE,
    NO_PAGE,
    PAGE,
    PAGE_BITS,
    PAGES,
    SHIFT,
    SIGN,
    TOP,
    TOP_POSITIVE,
    USED,
)

if TYPE_CHECKING:
    from onnxptq.calibrators._histogram_compiled import Kernels

_NOTHING = 0xFFFFFFFF
"""The smallest bits of no values at all: those of a NaN."""

_BLOCK = 1 << 16
"""Values a round of NumPy: their 256 KiB stay in the L2 cache between the passes over them."""

_WORTH_COMPILING = 50_000_000
"""Values for which Numba is imported: it costs half a second (and two more, once a machine, to compile), which is what
NumPy needs for so many. Small models never wait for a compiler."""

Bits = npt.NDArray[np.uint32]


class NotFiniteError(ValueError):
    """NaN or infinity among the values."""


class Counter:
    """Chooses how to count; shared by the accumulators of one pass.

    Attributes:
        counted: values so far.
        expected: values in all, as far as is known.
    """

    def __init__(self) -> None:
        self.counted = 0
        self.expected = 0
        self._of_thread = threading.local()
        self._kernels: Kernels | None = None

    def kernels(self, size: int) -> Kernels | None:
        """What counts the next `size` values; None means NumPy."""
        self.counted += size
        if self._kernels is None:
            if max(self.counted, self.expected) < _WORTH_COMPILING and not compiled.cache_info().currsize:
                return None
            self._kernels = compiled()
        return self._kernels

    @property
    def tables(self) -> npt.NDArray[np.uint32]:
        """Two empty tables of all bins, uint32, (2, PAGES * PAGE), in which the kernels of a thread count an array."""
        tables: npt.NDArray[np.uint32] | None = getattr(self._of_thread, "tables", None)
        if tables is None:
            tables = self._of_thread.tables = np.zeros((2, PAGES * PAGE), dtype=np.uint32)
        return tables


@functools.cache
def compiled() -> Kernels | None:
    """The counters in machine code, some ten times faster than NumPy; None where Numba is not installed."""
    try:
        from onnxptq.calibrators._histogram_compiled import KERNELS
    except ImportError:
        return None
    return KERNELS


class Accumulator:
    """What is known of one tensor so far.

    Args:
        histogram: False to keep only extremes and count, which is faster.
        counter: shared with other accumulators; by default one of its own.

    Attributes:
        count: number of values.
    """

    def __init__(self, histogram: bool = True, counter: Counter | None = None) -> None:
        self.count = 0
        self._histogram = histogram
        self._counter = counter or Counter()
        self._offsets = np.full(PAGES, NO_PAGE, dtype=np.uint64)
        self._table = np.zeros(0, dtype=np.int64)
        # An array, so that compiled code changes it in place: a call a tensor and sample, and nothing around it.
        self._state = np.array([-(1 << 31), 0, _NOTHING, 0, 0, 0], dtype=np.int64)

    @property
    def minimum(self) -> np.float32:
        """The smallest value, exact; infinity without values. Zero is 0.0, else its sign depends on the order."""
        if self._state[BOTTOM] == _NOTHING:
            return np.float32(np.inf)
        return _float(self._state[TOP] if self._state[TOP] >= SIGN else self._state[BOTTOM])

    @property
    def maximum(self) -> np.float32:
        """The largest value, as `minimum`; minus infinity without values."""
        if self._state[BOTTOM] == _NOTHING:
            return np.float32(-np.inf)
        return _float(self._state[TOP_POSITIVE] if self._state[TOP_POSITIVE] >= 0 else self._state[BOTTOM])

    def add(self, values: npt.NDArray[Any]) -> None:
        """Takes in a float32 or float16 array of any shape.

        Raises:
            NotFiniteError: NaN or infinity among the values; the accumulator is of no use afterwards.
        """
        floats = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
        if not self._histogram and floats.size:
            self.count += floats.size
            floats = np.array([floats.min(), floats.max()])  # NaN is both, where there is one.
            self.add_with_numpy(floats.view(np.uint32))
            return
        bits: Bits = floats.view(np.uint32)
        kernels = self._counter.kernels(bits.size)
        if kernels is None:
            for start in range(0, bits.size, _BLOCK):
                self.add_with_numpy(bits[start : start + _BLOCK])
        elif bits.size:
            self.add_compiled(bits, kernels)
        self.count += bits.size

    def sparse(self) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
        """The bins that hold values, ascending, and their counts; both (B,)."""
        pages = np.flatnonzero(self._offsets != NO_PAGE)
        counts = self._table.reshape(-1, PAGE)[self._offsets[pages] >> PAGE_BITS]
        page, position = np.nonzero(counts)
        return ((pages[page] << PAGE_BITS) | position).astype(np.uint32), counts[page, position]

    def add_with_numpy(self, bits: Bits) -> None:
        """Takes in float32 bits, (N,), N > 0, without compiled code. Leaves `count` alone."""
        # Integer order does what float order cannot: NaN, infinity and extremes from three passes with SIMD.
        top_positive, top, bottom = int(bits.view(np.int32).max()), int(bits.max()), int(bits.min())
        if top_positive >= INFINITE or top >= SIGN + INFINITE:
            raise NotFiniteError
        state = self._state
        state[:3] = max(state[TOP_POSITIVE], top_positive), max(state[TOP], top), min(state[BOTTOM], bottom)
        if not self._histogram:
            return
        pages = bits >> 23
        new = np.flatnonzero((np.bincount(pages, minlength=PAGES) > 0) & (self._offsets == NO_PAGE))
        self._reserve(new.size)
        used = int(state[USED])
        self._offsets[new] = used + PAGE * np.arange(new.size)
        used += new.size * PAGE
        state[USED] = used
        index = self._offsets.astype(np.intp)[pages] + ((bits >> SHIFT) & (PAGE - 1))
        self._table[:used] += np.bincount(index, minlength=used)

    def add_compiled(self, bits: Bits, kernels: Kernels) -> None:
        """Takes in float32 bits, (N,), N > 0, with compiled code. Leaves `count` alone."""
        tables = self._counter.tables
        lacking = kernels.add(bits, tables, self._offsets, self._table, self._state)
        if lacking < 0:
            tables[:] = 0
            raise NotFiniteError
        if lacking:
            self._reserve(lacking)
            kernels.drain(tables, self._offsets, self._table, self._state)

    def _reserve(self, pages: int) -> None:
        needed = int(self._state[USED]) + pages * PAGE
        if needed > self._table.size:
            grown = np.zeros(max(needed, self._table.size * 3 // 2 // PAGE * PAGE), dtype=np.int64)
            grown[: self._table.size] = self._table
            self._table = grown


def _float(bits: np.int64) -> np.float32:
    # Adding positive zero turns -0.0 into 0.0 and changes nothing else.
    return np.float32(np.uint32(bits).view(np.float32) + np.float32(0))
