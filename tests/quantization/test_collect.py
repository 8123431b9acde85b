"""One pass: what the stock quantizer would have written, in any order, on any shards. More in test_facts.py."""

from __future__ import annotations

import contextlib
import random
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.calibrators.statistics import merge
from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.quantization.collect import CalibrationPass, collect
from onnxptq.quantization.plan import plan_calibration
from onnxptq.quantization.reference_quantizer import quantize_with_ranges
from onnxptq.quantization.settings import QuantizerSettings

SETTINGS = {
    "uint8": QuantizerSettings(),
    "uint8 per channel": QuantizerSettings(per_channel=True),
    "int8 symmetric": QuantizerSettings(
        activation_type="QInt8", per_channel=True, extra_options={"ActivationSymmetric": True}
    ),
}


def file_bytes(statistics, folder):
    statistics.save(folder / "statistics")
    return (folder / "statistics").read_bytes()


def minmax_file(path, statistics, plan, settings, output):
    method = RANGE_METHODS.get("minmax")
    ranges = {name: (np.float32(0), np.float32(0)) for name in plan.cached}
    for name in plan.observed:
        ranges[name] = method.range(statistics.per_environment(name), settings.quantization)
    quantize_with_ranges(path, ranges, output, settings)
    return output.read_bytes()


@pytest.mark.parametrize("target", SETTINGS)
@pytest.mark.parametrize("histograms", [True, False])
def test_minmax_writes_the_file_that_the_stock_quantizer_writes(model_path, tmp_path, draw, stock, target, histograms):
    samples = draw(model_path)
    plan = plan_calibration(model_path, SETTINGS[target])
    statistics = collect(model_path, samples, plan.observed, histograms=histograms)
    ours = minmax_file(model_path, statistics, plan, SETTINGS[target], tmp_path / "ours.onnx")
    assert ours == stock(model_path, samples, **SETTINGS[target].to_kwargs())


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), shards=st.integers(1, 4))
def test_the_state_does_not_depend_on_order_or_sharding(build_graph, tmp_path, draw, seed, shards):
    path = build_graph("residual")
    samples = draw(path, count=7)
    tensors = ("x", "relu1", "add3")
    whole = file_bytes(collect(path, samples, tensors), tmp_path)
    rng = random.Random(seed)
    rng.shuffle(samples)
    # A pass that is used again remembers nothing of the set before.
    opened = CalibrationPass(path, tensors)
    parts = [opened.collect(samples[i::shards]) for i in range(shards) if samples[i::shards]]
    rng.shuffle(parts)
    while len(parts) > 1:
        parts.append(merge(parts.pop(rng.randrange(len(parts))), parts.pop(rng.randrange(len(parts)))))
    assert file_bytes(parts[0], tmp_path) == whole


def test_the_state_does_not_depend_on_the_number_of_cores(model_path, tmp_path, draw):
    tensors = plan_calibration(model_path, QuantizerSettings()).observed
    one, three = (file_bytes(collect(model_path, draw(model_path), tensors, workers=n), tmp_path) for n in (1, 3))
    assert one == three


@pytest.mark.parametrize("size", [10, 11, 14])
def test_a_conv_whose_last_bits_depend_on_threads_leaves_the_same_state_on_any_machine(
    small_maps, tmp_path, monkeypatch, size
):
    """ONNX Runtime's unoptimized 3 x 3 Conv on small maps: the session of a pass has one thread, whatever else has."""
    path = small_maps(size)
    rng = np.random.default_rng(1)
    samples = [(str(i), {"x": rng.standard_normal((1, 3, size, size)).astype(np.float32)}) for i in range(5)]
    tensors = [f"relu{i}" for i in (1, 3, 5, 7)]
    depends = len({_bits_of(path, samples[0][1], tensors, threads) for threads in (1, 2, 4)}) > 1
    states = set()
    for cores in (1, 2, 4):
        monkeypatch.setattr("onnxptq.runtimes.cpu._most_cores", cores)
        states.add(file_bytes(collect(path, samples, tensors), tmp_path))
    assert len(states) == 1
    if not depends:
        pytest.skip("on this CPU no number of threads changes a bit, so nothing was shown")


def _bits_of(path, feeds, tensors, threads):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors[:-1])
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return b"".join(value.tobytes() for value in session.run(None, feeds))


def test_several_samples_run_at_once_and_the_first_error_in_their_order_is_told(build_graph, draw):
    path = build_graph("conv_relu")
    samples = draw(path, count=9)
    together = threading.Barrier(3, timeout=20)
    opened = CalibrationPass(path, ("x", "relu1"), workers=3)
    run = opened.run

    def meet(feeds, sample_id=""):
        if sample_id in {name for name, _ in samples[1:4]}:
            together.wait()  # Only three at once get past it.
        return run(feeds, sample_id)

    opened.run = meet
    assert opened.collect(samples).samples == {"": 9}
    for position in (7, 5):
        samples[position] = (f"bad{position}", {"x": np.full((1, 3, 8, 8), np.nan, np.float32)})
    with pytest.raises(DataError, match="'bad5'"):
        CalibrationPass(path, ("x", "relu1"), workers=3).collect(samples)


def test_a_fixed_batch_size_changes_no_range(build_graph, tmp_path, draw):
    path = build_graph("conv_relu")
    samples = draw(path)
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, tmp_path / "fixed.onnx")
    free = collect(path, samples, ("x", "relu1")).environments[""]
    fixed = collect(tmp_path / "fixed.onnx", samples, ("x", "relu1")).environments[""]
    for name in free:
        assert (fixed[name].minimum, fixed[name].maximum) == (free[name].minimum, free[name].maximum)
        np.testing.assert_array_equal(fixed[name].counts, 4 * free[name].counts)


def test_variable_shapes_are_streamed(build_graph, draw):
    path = build_graph("attention")
    rng = np.random.default_rng(0)
    samples = [(str(n), {"x": rng.standard_normal((1, n, 8)).astype(np.float32)}) for n in (3, 9, 5)]
    statistics = collect(path, samples, ("x",))
    assert statistics.environments[""]["x"].count == 8 * (3 + 9 + 5)


def test_collecting_prints_nothing(build_graph, draw, capfd):
    path = build_graph("residual")
    plan = plan_calibration(path, QuantizerSettings())
    collect(path, draw(path), plan.observed)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


@pytest.mark.parametrize("links", [True, False])
def test_external_data_is_found(build_graph, tmp_path, draw, monkeypatch, links):
    if not links:
        monkeypatch.setattr("os.link", lambda *_: (_ for _ in ()).throw(OSError))
    path = build_graph("conv_relu")
    samples = draw(path)
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "model.onnx"
    onnx.save_model(onnx.load(path), apart, save_as_external_data=True, location="weights", size_threshold=0)
    assert collect(apart, samples, ("relu1",)) == collect(path, samples, ("relu1",))


def test_an_optimised_graph_sees_the_same_tensors(build_graph, draw):
    path = build_graph("depthwise_clip")
    tensors = plan_calibration(path, QuantizerSettings()).observed
    plain, fast = (collect(path, draw(path), tensors, optimized=flag).environments[""] for flag in (False, True))
    for name in tensors:
        assert fast[name].count == plain[name].count
        np.testing.assert_allclose(fast[name].maximum, plain[name].maximum, rtol=1e-4)


def test_environments_are_kept_apart(build_graph, draw):
    path = build_graph("conv_relu")
    dark, clean = (
        collect(path, draw(path, seed=i), ("x",), environment=name) for i, name in enumerate(("dark", "clean"))
    )
    both = merge(dark, clean)
    assert set(both.environments) == {"dark", "clean"}
    assert sum(part.count for part in both.per_environment("x")) == sum(
        one.per_environment("x")[0].count for one in (dark, clean)
    )


def test_what_does_not_fit_is_named(build_graph, draw):
    path = build_graph("conv_relu")
    wrong = [("odd", {"x": np.zeros((1, 5, 8, 8), np.float32)})]
    with pytest.raises(DataError, match=r"'odd' does not fit .*float32 \[1, 5, 8, 8\]"):
        collect(path, wrong, ("x",))
    with pytest.raises(DataError, match="empty"):
        collect(path, [], ("x",))
    with pytest.raises(UsageError, match=r"unknown .*provider 'gpu'"):
        collect(path, draw(path), ("x",), provider="gpu")
    with pytest.raises(ModelError, match="nosuch"):
        collect(path, draw(path), ("nosuch",))
    (path.parent / "broken.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"broken\.onnx"):
        collect(path.parent / "broken.onnx", draw(path), ("x",))
    with contextlib.suppress(DataError):
        collect(path, [("s", {"z": np.zeros((1, 3, 8, 8), np.float32)})], ("x",))
