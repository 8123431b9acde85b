"""What a range cuts off is the exact share of values, and the energy of what is lost over the variance."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnxptq.audit.clipping import clipping, covered, quantized_range
from onnxptq.calibrators.histogram import Accumulator, Counter
from onnxptq.calibrators.statistics import TensorStatistics


def statistics(values: np.ndarray) -> TensorStatistics:
    accumulator = Accumulator(True, Counter())
    accumulator.add(np.asarray(values, np.float32))
    bins, counts = accumulator.sparse()
    return TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, bins, counts)


def test_a_range_that_holds_everything_cuts_nothing() -> None:
    values = np.random.default_rng(0).standard_normal(5000)
    cut = clipping(statistics(values), (float(np.float32(values.min())), float(np.float32(values.max()))), "p", "k")
    assert (cut.share, cut.distortion) == (0.0, 0.0)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 2), st.floats(0.01, 2))
def test_share_and_distortion_are_those_of_the_values(seed: int, below: float, above: float) -> None:
    values = np.random.default_rng(seed).standard_normal(3000).astype(np.float32).astype(np.float64)
    cut = clipping(statistics(values), (-below, above), "p", "k")
    lost = values - values.clip(-below, above)
    # A bin is a thousandth of its value wide.
    assert cut.share == pytest.approx((lost != 0).mean(), abs=0.003)
    assert cut.distortion == pytest.approx((lost**2).mean() / values.var(), rel=0.01, abs=1e-5)


def test_replacing_all_by_a_bound_costs_at_least_the_variance() -> None:
    values = np.random.default_rng(0).uniform(1, 2, 1000)
    assert clipping(statistics(values), (0.0, 0.5), "p", "k").distortion > 1


def test_a_constant_that_is_cut_off_is_lost_and_one_that_is_kept_is_not() -> None:
    constant = statistics(np.full(10, 3.0))
    assert clipping(constant, (0.0, 1.0), "p", "k").distortion == 1
    assert clipping(constant, (0.0, 4.0), "p", "k").distortion == 0


def test_the_range_is_what_the_quantizer_makes_of_the_extremes() -> None:
    seen = statistics(np.array([0.5, 2.0]))
    assert quantized_range(seen, symmetric=False) == (0.0, 2.0)
    assert quantized_range(seen, symmetric=True) == (-2.0, 2.0)


def test_covered_is_a_share_of_the_reference() -> None:
    assert covered((-1.0, 1.0), (-2.0, 2.0)) == 0.5
    assert covered((-9.0, 9.0), (-2.0, 2.0)) == 1.0
    assert covered((0.0, 0.0), (0.0, 0.0)) == 1.0
