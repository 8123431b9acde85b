from __future__ import annotations

import json
import random
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxptq.calibrators import histogram
from onnxptq.calibrators.histogram import Accumulator, NotFiniteError
from onnxptq.calibrators.statistics import (
    CalibrationStatistics,
    TensorStatistics,
    merge,
    merge_tensors,
    value_histogram,
)
from onnxptq.errors import DataError, OutputError, UsageError

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 60), elements=FLOATS)


def of(values, histogram=True):
    accumulator = Accumulator(histogram)
    accumulator.add(np.asarray(values))
    bins, counts = accumulator.sparse()
    return TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, bins, counts)


def run_of(*arrays, environment="", provenance=None):
    pool = merge_tensors([of(array) for array in arrays])
    return CalibrationStatistics({environment: {"t": pool}}, {environment: len(arrays)}, provenance or {"model": "a"})


@given(ARRAYS)
def test_every_value_lies_in_its_bin_and_the_extremes_are_exact(values):
    found = of(values)
    assert (found.minimum, found.maximum, found.count) == (values.min(), values.max(), values.size)
    histogram = value_histogram(found)
    assert histogram.counts.sum() == values.size
    assert np.all(np.diff(histogram.lower) > 0)
    inside = (values[:, None] >= histogram.lower) & (values[:, None] <= histogram.upper)
    inside |= (np.abs(values[:, None]) < 2e-41) & (histogram.lower == 0) & (histogram.upper == 0)
    assert inside.any(axis=1).all()
    np.testing.assert_array_equal(inside.sum(axis=0) >= 1, True)


@given(ARRAYS)
def test_the_middle_of_a_bin_is_within_2_to_the_minus_11_of_its_values(values):
    histogram = value_histogram(of(values))
    largest = np.maximum(np.abs(histogram.lower), np.abs(histogram.upper))
    normal = largest > 1e-37
    assert np.all((histogram.upper - histogram.lower)[normal] / 2 <= largest[normal] * 2**-11)


@given(st.lists(ARRAYS, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_merging_gives_the_bytes_of_one_pass_in_whatever_order_and_grouping(tmp_path_factory, arrays, rng):
    folder = tmp_path_factory.mktemp("stats")
    run_of(np.concatenate(arrays)).save(folder / "whole")
    parts = [run_of(array) for array in arrays]
    parts = [CalibrationStatistics(p.environments, {"": 0}, p.provenance) for p in parts]
    parts[0] = CalibrationStatistics(parts[0].environments, {"": 1}, parts[0].provenance)
    rng.shuffle(parts)
    while len(parts) > 1:
        taken = [parts.pop(rng.randrange(len(parts))) for _ in range(rng.randint(2, len(parts)))]
        parts.append(merge(*taken))
    parts[0].save(folder / "merged")
    assert (folder / "merged").read_bytes() == (folder / "whole").read_bytes()


@settings(deadline=None)
@given(st.lists(ARRAYS, min_size=1, max_size=5))
def test_the_compiled_counter_equals_the_numpy_one(arrays):
    kernels = histogram.compiled()
    if kernels is None:
        pytest.skip("Numba is not installed")
    plain, fast, brief = Accumulator(), Accumulator(), Accumulator(histogram=False)
    for array in arrays:
        bits = array.view(np.uint32)
        plain.add_with_numpy(bits)
        fast.add_compiled(bits, kernels)
        brief.add(array)
    assert (plain.minimum, plain.maximum) == (fast.minimum, fast.maximum) == (brief.minimum, brief.maximum)
    for one, other in zip(plain.sparse(), fast.sparse(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not fast._counter.tables.any()


def test_a_counter_that_refused_nan_counts_nothing_of_that_array_for_the_next_accumulator():
    """All accumulators of a pass share the tables of one counter; what a refused array left there must be gone."""
    kernels = histogram.compiled()
    if kernels is None:
        pytest.skip("Numba is not installed")
    counter = histogram.Counter()
    refusing, next_one = Accumulator(counter=counter), Accumulator(counter=counter)
    with pytest.raises(NotFiniteError):
        refusing.add_compiled(np.array([1.0, -2.0, np.nan], np.float32).view(np.uint32), kernels)
    assert not counter.tables.any()
    values = np.array([0.5, 1.0, -3.0], np.float32)
    next_one.add_compiled(values.view(np.uint32), kernels)
    alone = Accumulator()
    alone.add_compiled(values.view(np.uint32), kernels)
    for one, other in zip(next_one.sparse(), alone.sparse(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert next_one.sparse()[1].sum() == 3


def test_without_numba_everything_is_counted_by_numpy(monkeypatch):
    values = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    monkeypatch.setattr(histogram, "_WORTH_COMPILING", 0)
    fast = of(values)
    monkeypatch.setitem(sys.modules, "onnxptq.calibrators._histogram_compiled", None)
    histogram.compiled.cache_clear()
    try:
        assert histogram.compiled() is None
        assert of(values) == fast
    finally:
        histogram.compiled.cache_clear()


def test_little_data_never_imports_numba():
    code = (
        "import sys, numpy as np\n"
        "from onnxptq.calibrators.histogram import Accumulator\n"
        "Accumulator().add(np.ones(1000, np.float32))\n"
        "assert 'numba' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_arrays_larger_than_a_block_are_counted_once():
    values = np.random.default_rng(0).standard_normal(3 * histogram._BLOCK + 17).astype(np.float32)
    found = of(values)
    assert found.counts.sum() == found.count == values.size
    assert found == merge_tensors([of(values[:100]), of(values[100:])])


def test_extremes_alone_are_the_same_without_a_histogram():
    values = np.random.default_rng(0).standard_normal((4, 5, 6)).astype(np.float32)
    full, short = of(values), of(values, histogram=False)
    assert (full.minimum, full.maximum, full.count) == (short.minimum, short.maximum, short.count)
    with pytest.raises(UsageError, match="only minimum and maximum"):
        value_histogram(short)


def test_the_two_zeros_are_one():
    for values in ([0.0, -0.0], [-0.0, 0.0], [-0.0]):
        found = of(np.array(values, np.float32))
        assert not np.signbit(found.minimum)
        assert not np.signbit(found.maximum)
        assert value_histogram(found).lower.tolist() == [0.0]


def test_half_precision_is_exact():
    values = np.random.default_rng(0).standard_normal(500).astype(np.float16)
    assert of(values) == of(values.astype(np.float32))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("others", [[1.0, 2.0], [-1.0, -2.0], [], [-1.0, 1.0]])
@pytest.mark.parametrize("histogram", [True, False])
def test_what_is_not_finite_is_refused(bad, others, histogram):
    with pytest.raises(NotFiniteError):
        of(np.array([*others, bad], np.float32), histogram)


def test_statistics_are_those_of_the_environments_that_are_named():
    both = merge(run_of(np.float32([1, 2]), environment="a"), run_of(np.float32([-5]), environment="b"))
    assert [part.minimum for part in both.per_environment("t", ["a"])] == [1]
    assert [part.count for part in both.per_environment("t")] == [2, 1]
    with pytest.raises(UsageError, match="no environment 'c'"):
        both.per_environment("t", ["c"])
    with pytest.raises(UsageError, match="'u' was not observed"):
        both.per_environment("u")


def test_parts_that_do_not_belong_together_are_refused():
    one = run_of(np.float32([1]))
    with pytest.raises(DataError, match="model 'a' cannot be merged with model 'b'"):
        merge(one, run_of(np.float32([1]), provenance={"model": "b"}))
    other = CalibrationStatistics({"": {"u": of(np.float32([1]))}}, {"": 1}, {"model": "a"})
    with pytest.raises(DataError, match="other tensors"):
        merge(one, other)
    with pytest.raises(DataError, match="no statistics to merge"):
        merge()


def test_what_is_saved_is_loaded(tmp_path):
    rng = np.random.default_rng(0)
    saved = merge(
        run_of(rng.standard_normal(1000).astype(np.float32), environment="dark"),
        run_of(rng.standard_normal(500).astype(np.float32), np.float32([7]), environment="clean"),
    )
    saved.save(tmp_path / "s")
    loaded = CalibrationStatistics.load(tmp_path / "s")
    assert loaded == saved
    assert loaded.samples == {"dark": 1, "clean": 2}
    assert loaded.provenance == {"model": "a"}
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_counts_beyond_32_bits_survive_the_file(tmp_path):
    bins, counts = np.array([5, 9], np.uint32), np.array([1, 1 << 40])
    part = TensorStatistics(np.float32(0), np.float32(1), int(counts.sum()), bins, counts)
    saved = CalibrationStatistics({"": {"t": part, "u": of(np.float32([-1, 2]))}}, {"": 1}, {})
    saved.save(tmp_path / "s")
    assert CalibrationStatistics.load(tmp_path / "s") == saved


def test_damaged_or_foreign_files_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "s"
    run_of(np.random.default_rng(0).standard_normal(1000).astype(np.float32)).save(path)
    whole = path.read_bytes()
    rng = random.Random(0)
    for _ in range(20):
        path.write_bytes(whole[: rng.randrange(len(whole))])
        with pytest.raises(DataError, match="truncated or damaged"):
            CalibrationStatistics.load(path)
    for position in (whole.index(b"PK\x01\x02") + 8, whole.index(b"PK\x01\x02") + 10):  # Encrypted; unknown packing.
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        with pytest.raises(DataError, match="truncated or damaged"):
            CalibrationStatistics.load(path)
    with pytest.raises(DataError, match="missing"):
        CalibrationStatistics.load(tmp_path / "nosuch")
    monkeypatch.setattr("onnxptq.calibrators.statistics_file.VERSION", 3)
    run_of(np.float32([1])).save(path)
    monkeypatch.undo()
    with pytest.raises(DataError, match="version 3"):
        CalibrationStatistics.load(path)


def test_a_folder_that_does_not_exist_is_said_so(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        run_of(np.float32([1])).save(tmp_path / "no" / "s")


def test_parts_of_different_gpus_are_not_merged_and_only_what_differs_is_named():
    def made(**facts):
        runtime = json.dumps({"provider": "cuda", "gpu": "H100", "cudnn": "91200", **facts}, sort_keys=True)
        return CalibrationStatistics({"": {}}, {"": 1}, {"runtime": runtime})

    merge(made(), made())
    with pytest.raises(DataError, match=r"runtime 'cudnn=91200' cannot be merged with runtime 'cudnn=91300'"):
        merge(made(), made(cudnn="91300"))
