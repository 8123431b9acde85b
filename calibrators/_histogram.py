"""Counting float32 values on their bits: a log-linear histogram that needs no range beforehand and merges exactly.

A bin is the float's raw bits shifted right by `SHIFT`: sign, exponent and the top 10 bits of the mantissa. Counts are
kept in pages of 1024 bins, one page a sign and exponent, allocated when a value of that magnitude first appears: an
activation spans some 20 to 50 of the 512 pages (8 KiB each).

Two counters do the same: NumPy for little data, Numba (`_histogram_compiled`) for much.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from onnxptq.calibrators._histogram_compiled import Kernels

SHIFT = 13
"""10 mantissa bits: the middle of a bin is at most 2**-11 of the value away from every value in it, which is one bin
of ONNX Runtime's 2048-bin histogram of magnitudes at worst. 14 would allow two; 12 doubles memory for no target."""

PAGE_BITS = 23 - SHIFT
PAGE = 1 << PAGE_BITS
PAGES = 512
NO_PAGE = 0xFFFFFFFF

_EXPONENT_MASK = 0x7F800000
_SIGN = 0x80000000
_BLOCK = 1 << 16
"""Values a round of NumPy: their 256 KiB stay in the L2 cache between the passes over them."""

_WORTH_COMPILING = 50_000_000
"""Values for which Numba is imported: it costs half a second (and two more, once a machine, to compile), which is what
NumPy needs for so many. Small models never wait for a compiler."""

Bits = npt.NDArray[np.uint32]


class NotFiniteError(ValueError):
    """NaN or infinity among the values."""


class Counter:
    """Chooses how to count; shared by the accumulators of one pass, not by threads.

    Attributes:
        counted: values so far.
        expected: values in all, as far as is known.
    """

    def __init__(self) -> None:
        self.counted = 0
        self.expected = 0
        self._tables: npt.NDArray[np.uint32] | None = None

    def kernels(self, size: int) -> Kernels | None:
        """What counts the next `size` values; None means NumPy."""
        self.counted += size
        if max(self.counted, self.expected) < _WORTH_COMPILING and not compiled.cache_info().currsize:
            return None
        return compiled()

    @property
    def tables(self) -> npt.NDArray[np.uint32]:
        """Two empty tables of all bins, uint32, (2, PAGES * PAGE), in which the kernels count one array."""
        if self._tables is None:
            self._tables = np.zeros((2, PAGES * PAGE), dtype=np.uint32)
        return self._tables


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
        minimum, maximum: exact. The zeros are one: -0.0 becomes 0.0, else the result depends on the order.
        count: number of values.
    """

    def __init__(self, histogram: bool = True, counter: Counter | None = None) -> None:
        self.minimum = np.float32(np.inf)
        self.maximum = np.float32(-np.inf)
        self.count = 0
        self._histogram = histogram
        self._counter = counter or Counter()
        self._offsets = np.full(PAGES, NO_PAGE, dtype=np.uint64)
        self._table = np.zeros(0, dtype=np.int64)
        self._used = 0

    def add(self, values: npt.NDArray[Any]) -> None:
        """Takes in a float32 or float16 array of any shape.

        Raises:
            NotFiniteError: NaN or infinity among the values; the accumulator is of no use afterwards.
        """
        bits: Bits = np.ascontiguousarray(values, dtype=np.float32).reshape(-1).view(np.uint32)
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
        self._extremes(int(bits.view(np.int32).max()), int(bits.max()), int(bits.min()))
        if not self._histogram:
            return
        pages = bits >> 23
        new = np.flatnonzero((np.bincount(pages, minlength=PAGES) > 0) & (self._offsets == NO_PAGE))
        self._reserve(new.size)
        self._offsets[new] = self._used + PAGE * np.arange(new.size)
        self._used += new.size * PAGE
        index = self._offsets.astype(np.intp)[pages] + ((bits >> SHIFT) & (PAGE - 1))
        self._table[: self._used] += np.bincount(index, minlength=self._used)

    def add_compiled(self, bits: Bits, kernels: Kernels) -> None:
        """Takes in float32 bits, (N,), N > 0, with compiled code. Leaves `count` alone."""
        if not self._histogram:
            self._extremes(*map(int, kernels.extremes(bits)[:3]))
            return
        tables = self._counter.tables
        top_positive, top, bottom, smallest = map(int, kernels.count(bits, tables))
        try:
            self._extremes(top_positive, top, bottom)
        except NotFiniteError:
            tables[:] = 0
            raise
        # Of nothing but zeros, `first` lies above `last` and only the zeros are moved.
        first = (smallest + 1) >> 23
        last = max(top_positive, top - _SIGN) >> 23
        missing = self._offsets.reshape(2, -1)[:, first : last + 1] == NO_PAGE
        self._reserve(int(np.count_nonzero(missing)) + 2)
        self._used = int(kernels.drain(tables, first, last, self._offsets, self._table, self._used))

    def _extremes(self, top_positive: int, top: int, bottom: int) -> None:
        """Takes in the largest bits as int32, the largest and the smallest as uint32."""
        if top_positive >= _EXPONENT_MASK or top >= _SIGN + _EXPONENT_MASK:
            raise NotFiniteError
        self.minimum = min(self.minimum, _float(top if top >= _SIGN else bottom))
        self.maximum = max(self.maximum, _float(top_positive if top_positive >= 0 else bottom))

    def _reserve(self, pages: int) -> None:
        if self._used + pages * PAGE > self._table.size:
            grown = np.zeros(max(self._used + pages * PAGE, self._table.size * 3 // 2 // PAGE * PAGE), dtype=np.int64)
            grown[: self._table.size] = self._table
            self._table = grown


def _float(bits: int) -> np.float32:
    # Adding positive zero turns -0.0 into 0.0 and changes nothing else.
    return np.float32(np.uint32(bits).view(np.float32) + np.float32(0))
