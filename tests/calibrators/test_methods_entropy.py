from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
from onnxruntime.quantization import calibrate

from onnxptq.calibrators.histogram import Accumulator
from onnxptq.calibrators.methods import RANGE_METHODS, QuantizationType
from onnxptq.calibrators.methods.entropy import best_interval, divergence
from onnxptq.calibrators.statistics import TensorStatistics
from onnxptq.errors import UsageError

ENTROPY = RANGE_METHODS.get("entropy")


def of(values) -> TensorStatistics:
    accumulator = Accumulator()
    accumulator.add(np.asarray(values, np.float32))
    bins, counts = accumulator.sparse()
    return TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, bins, counts)


def drawn(kind, count=30_000):
    rng = np.random.default_rng(1)
    return {
        "normal": rng.standard_normal(count),
        "relu": np.maximum(rng.standard_normal(count), 0),
        "heavy": rng.standard_t(2, count),
        "skewed": rng.gamma(1.5, 2, count) - 1,
        "two modes": np.concatenate([rng.normal(-1, 0.1, count), rng.normal(4, 1, count // 10)]),
    }[kind].astype(np.float32)


KINDS = ["normal", "relu", "heavy", "skewed", "two modes"]


def onnx_runtime_search(values, bins, quantized_bins, monkeypatch):
    """ONNX Runtime's histogram, its divergence for every candidate, and its range."""
    curve = []
    real = calibrate.entropy
    monkeypatch.setattr(calibrate, "entropy", lambda p, q: curve.append(real(p, q)) or curve[-1])
    collector = calibrate.HistogramCollector("entropy", False, bins, quantized_bins, 99, "same")
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect({"t": [values]})
        chosen = collector.compute_collection_result()["t"][:2]
    return collector.histogram_dict["t"], np.array(curve), chosen


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("bins", "quantized_bins"), [(256, 128), (511, 64), (400, 128)])
def test_on_onnx_runtimes_histogram_our_choice_is_within_one_percent_of_its_minimum(
    kind, bins, quantized_bins, monkeypatch
):
    histogram, curve, _ = onnx_runtime_search(drawn(kind), bins, quantized_bins, monkeypatch)
    counts = histogram[0]
    assert len(curve) == counts.size // 2 - quantized_bins // 2 + 1
    ours = [divergence(counts, quantized_bins // 2 + i, quantized_bins) for i in range(len(curve))]
    np.testing.assert_allclose(ours, curve, rtol=2e-3, atol=1e-6)
    start, _ = best_interval(counts, quantized_bins)
    assert curve[counts.size // 2 - start - quantized_bins // 2] <= curve.min() * 1.01 + 1e-7


@pytest.mark.parametrize("kind", KINDS)
def test_from_our_statistics_the_choice_is_as_good_on_onnx_runtimes_histogram(kind, monkeypatch):
    values = drawn(kind)
    histogram, curve, _ = onnx_runtime_search(values, 512, 128, monkeypatch)
    low, high = ENTROPY.range([of(values)], QuantizationType(), bins=512)
    # Which of the candidates it is: the bound that the extremes did not cut says so.
    edges = histogram[1]
    bound = low if low > values.min() else high
    half = 256 - int(np.argmin(np.abs(edges - bound))) if bound is low else int(np.argmin(np.abs(edges - bound))) - 257
    half = 256 if (low, high) == (values.min(), values.max()) else half
    assert curve[half - 64] <= curve.min() * 1.03 + 1e-4


@pytest.mark.parametrize("kind", KINDS)
def test_by_default_entropy_is_minmax_in_onnx_runtime_and_here(kind, monkeypatch):
    values = drawn(kind)
    ours = ENTROPY.range([of(values)], QuantizationType())
    assert ours == (values.min(), values.max())
    assert ours == onnx_runtime_search(values, 128, 128, monkeypatch)[2]


def test_a_real_search_clips_a_heavy_tail():
    values = drawn("heavy")
    low, high = ENTROPY.range([of(values)], QuantizationType(), bins=2048)
    assert values.min() < low < 0 < high < values.max()


def test_bins_must_suffice():
    with pytest.raises(UsageError, match="at least as many bins"):
        ENTROPY.range([of([1.0])], QuantizationType(), bins=64)
