from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxptq.calibrators.histogram import Accumulator
from onnxptq.calibrators.methods import RANGE_METHODS, QuantizationType, RangeMethod
from onnxptq.calibrators.methods._linear import resample
from onnxptq.calibrators.statistics import TensorStatistics, value_histogram
from onnxptq.errors import UsageError

UINT8 = QuantizationType()
INT8_SYMMETRIC = QuantizationType(signed=True, symmetric=True)


def of(values) -> TensorStatistics:
    accumulator = Accumulator()
    accumulator.add(np.asarray(values, np.float32))
    bins, counts = accumulator.sparse()
    return TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, bins, counts)


def choose(name, values, quantization=UINT8, **parameters):
    parts = values if isinstance(values, list) else [values]
    return RANGE_METHODS.get(name).range([of(part) for part in parts], quantization, **parameters)


def tailed(count=99_991, seed=0):
    return np.random.default_rng(seed).standard_t(3, count).astype(np.float32)


FINITE = st.floats(-1e6, 1e6, width=32)


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.integers(1, 50), elements=FINITE),
    st.sampled_from(["minmax", "percentile", "entropy", "mse", "lp"]),
    st.sampled_from([UINT8, INT8_SYMMETRIC, QuantizationType(bits=4)]),
)
def test_every_range_is_finite_ordered_and_no_wider_than_the_symmetric_extremes(values, name, quantization):
    low, high = choose(name, values, quantization)
    assert (low.dtype, high.dtype) == (np.float32, np.float32)
    largest = np.abs(values).max()
    assert -largest <= low <= high <= largest


@pytest.mark.parametrize("name", ["minmax", "percentile", "entropy", "mse", "lp"])
@pytest.mark.parametrize("values", [np.zeros(5), np.full(5, 3.0), np.full(5, -3.0)])
def test_constant_tensors_are_kept(name, values):
    low, high = choose(name, values)
    assert min(low, 0) <= values[0] <= max(high, 0)


def test_minmax_is_the_extremes_over_environments():
    assert choose("minmax", [np.float32([1, 2]), np.float32([-3, 1])]) == (-3, 2)
    assert choose("minmax", np.float32([1, 2])) == (1, 2)
    assert choose("minmax", np.float32([-3, 2]), symmetric=True) == (-3, 3)


@pytest.mark.parametrize("share", [50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 100.0])
@pytest.mark.parametrize("symmetric", [True, False])
def test_percentiles_are_exact_to_2_to_the_minus_11(share, symmetric):
    values = tailed()
    low, high = choose("percentile", values, percentile=share, symmetric=symmetric)
    if symmetric:
        exact = np.percentile(np.abs(values), share, method="inverted_cdf")
        wanted = max(-exact, values.min()), min(exact, values.max())
    else:
        tail = (100 - share) / 2
        wanted = (
            -np.percentile(-values, 100 - tail, method="inverted_cdf"),
            np.percentile(values, 100 - tail, method="inverted_cdf"),
        )
    np.testing.assert_allclose((low, high), wanted, rtol=2**-11, atol=1e-7)


def test_a_percentile_at_an_exact_rank_is_not_pushed_to_the_next_value():
    # 99.999 % of 100,000 values is the 99,999th exactly; in floating point ONNX Runtime takes the 100,000th.
    values = np.append(np.linspace(0, 1, 99_999), 1000.0)
    assert choose("percentile", values)[1] == pytest.approx(1.0, rel=2**-11)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("symmetric", [True, False])
def test_percentiles_are_within_one_bin_of_onnx_runtime(seed, symmetric, capsys):
    from onnxruntime.quantization.calibrate import HistogramCollector

    values = tailed(seed=seed)
    collector = HistogramCollector("percentile", symmetric, 2048, 2048, 99.9, "same")
    collector.collect({"t": [values]})
    theirs = collector.compute_collection_result()["t"][:2]
    width = np.abs(values).max() / (2048 if symmetric else 1024)
    ours = choose("percentile", values, percentile=99.9, symmetric=symmetric)
    assert np.abs(np.subtract(ours, theirs)).max() <= width


@pytest.mark.parametrize("symmetric", [True, False])
def test_percentile_one_hundred_is_minmax(symmetric):
    values = tailed()
    assert choose("percentile", values, percentile=100.0, symmetric=symmetric) == choose("minmax", values)


@given(hnp.arrays(np.float32, st.integers(1, 60), elements=FINITE), st.integers(1, 40))
def test_resampling_loses_no_value_and_errs_only_next_to_edges(values, bins):
    histogram = value_histogram(of(values))
    low, high = float(values.min()), float(values.max())
    edges = np.linspace(low, high if high > low else low + 1, bins + 1)
    counts = resample(histogram, edges)
    assert counts.sum() == values.size
    assert counts.min() >= 0
    # Moving every edge past the values of the bin that it cuts bounds the running total on both sides.
    slack = np.abs(edges) * 2**-9 + 1e-37
    below = np.concatenate([[0], np.cumsum(counts)])[1:-1]
    certain = (values[:, None] < (edges - slack)[1:-1]).sum(axis=0)
    possible = (values[:, None] <= (edges + slack)[1:-1]).sum(axis=0)
    assert np.all((certain <= below) & (below <= possible))


def quantize(values, low, high, quantization):
    from onnxruntime.quantization.quant_utils import compute_scale_zp, get_qmin_qmax_for_qType

    kind = {True: 3, False: 2}[quantization.signed]
    qmin, qmax = get_qmin_qmax_for_qType(kind, symmetric=quantization.symmetric)
    zero, scale = compute_scale_zp(np.array(low), np.array(high), qmin, qmax, quantization.symmetric)
    integers = np.clip(np.rint(values.astype(np.float64) / scale) + zero, qmin, qmax)
    return (integers - zero) * scale


@pytest.mark.parametrize("quantization", [UINT8, INT8_SYMMETRIC], ids=["asymmetric", "symmetric"])
@pytest.mark.parametrize(("name", "power"), [("mse", 2.0), ("lp", 2.4)])
@pytest.mark.parametrize("one_sided", [True, False])
def test_the_chosen_range_has_less_error_under_the_real_quantizer_than_any_other_method(
    quantization, name, power, one_sided
):
    values = tailed(20_000)
    values = np.maximum(values, 0) if one_sided else values

    def error(bounds):
        return float(np.mean(np.abs(values - quantize(values, *bounds, quantization)) ** power))

    ours = error(choose(name, values, quantization))
    assert ours <= error(choose("minmax", values))
    for share in (99.0, 99.9, 99.99):
        assert ours <= error(choose("percentile", values, percentile=share)) * 1.02


def test_fewer_bits_clip_more():
    values = tailed(20_000)
    widths = [np.subtract(*choose("mse", values, QuantizationType(bits=bits))[::-1]) for bits in (8, 6, 4, 2)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < widths[0]


def test_a_larger_norm_clips_less():
    values = tailed(20_000)
    four = QuantizationType(bits=4)
    widths = [np.subtract(*choose("lp", values, four, p=p)[::-1]) for p in (1.0, 2.0, 2.4, 4.0, 40.0)]
    assert widths == sorted(widths)
    assert choose("lp", values, four, p=2.0) == choose("mse", values, four)


def test_mse_gives_every_environment_one_vote():
    four = QuantizationType(bits=4)
    narrow, wide = np.random.default_rng(0).uniform(0, 0.2, 50_000), np.random.default_rng(1).uniform(0, 10, 50)
    alone = choose("mse", narrow, four)[1]
    assert alone < 0.25
    assert choose("mse", [narrow, wide], four)[1] > 5


def test_zeros_do_not_sway_mse():
    values = np.abs(tailed(5_000))
    with_zeros = np.concatenate([values, np.zeros(100_000, np.float32)])
    assert choose("mse", with_zeros) == choose("mse", values)


def test_methods_are_found_by_name_and_refuse_what_they_do_not_know():
    assert set(RANGE_METHODS.names()) >= {"minmax", "percentile", "entropy", "mse", "lp"}
    assert [method.name for method in RANGE_METHODS if not method.needs_histogram] == ["minmax"]
    with pytest.raises(UsageError, match=r"no parameter 'percentil'.*'percentile'"):
        choose("percentile", [1.0], percentil=99)
    with pytest.raises(UsageError, match="between 0 and 100, got 101"):
        choose("percentile", np.float32([1.0]), percentile=101)
    with pytest.raises(UsageError, match="must be positive"):
        choose("lp", np.float32([1.0]), p=0)
    with pytest.raises(UsageError, match="at least one environment"):
        RANGE_METHODS.get("minmax").range([], UINT8)


def test_a_stranger_can_register_a_method():
    mine = RangeMethod("half", "half", "me", "never", lambda statistics, quantization: (np.float32(0), np.float32(0.5)))
    try:
        RANGE_METHODS.register(mine)
        assert choose("half", np.float32([1.0])) == (0, 0.5)
    finally:
        RANGE_METHODS._entries.pop("half")
