"""The bins of the histograms of float32 magnitudes: exponent and leading bits of the mantissa, kept in pages."""

from __future__ import annotations

SHIFT = 13
"""10 mantissa bits: the middle of a bin is at most 2**-11 of the value away from every value in it, which is one bin
of ONNX Runtime's 2048-bin histogram of magnitudes at worst. 14 would allow two; 12 doubles memory for no target."""

PAGE_BITS = 23 - SHIFT
PAGE = 1 << PAGE_BITS
PAGES = 512
NO_PAGE = 0xFFFFFFFF

INFINITE = 0x7F800000
SIGN = 0x80000000
"""Bits of infinity, above which lie those of NaN, and the bit of the sign."""

TOP_POSITIVE, TOP, BOTTOM, USED, FIRST, LAST = range(6)
"""Places in the state of an accumulator: the largest bits as int32, the largest and the smallest as uint32, entries of
the table in use, and the pages of the magnitudes of the array that was counted last."""
