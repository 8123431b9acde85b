"""Predictions are what the model says, whatever the batch; they are made once and never taken from another content."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import DataError
from onnxptq.evaluation import ModelUnderTest, predict
from onnxptq.evaluation.report import sqnr_db
from onnxptq.evaluation.run import BATCH
from onnxptq.graphs import load_model
from onnxptq.runtimes.selection import chosen_runtime

EXACT = ("sample_id", "source_id", "label", "code", "fidelity")
CLOSE = ("certainty", "outputs", "signal_energy", "error_energy")


def assert_equal(one, other, close=False):
    for name in EXACT:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for name in CLOSE:
        mine, theirs = getattr(one, name), getattr(other, name)
        if close:
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-5)
        else:
            np.testing.assert_array_equal(mine, theirs)
    for name in one.groups:
        np.testing.assert_array_equal(one.groups[name], other.groups[name])


@pytest.fixture
def subject(save_classifier):
    return lambda *arguments, **options: ModelUnderTest(load_model(save_classifier(*arguments, **options)))


@pytest.fixture
def pair(subject):
    """A reference, and a model with other weights."""
    return [subject("fp32.onnx", seed=0), subject("int8.onnx", seed=1)]


@pytest.fixture
def empty_cache(tmp_path):
    return Cache(tmp_path / "room")


@pytest.fixture
def fresh(tmp_path_factory):
    """Caches in which nothing can be found."""
    return lambda: Cache(tmp_path_factory.mktemp("room"))


def run(path, values):
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"x": values})[0]


def test_predictions_are_what_the_model_says_of_every_row(pair, samples, empty_cache):
    judged = samples(count=70)
    values = np.full((len(judged), 6), np.nan, np.float32)
    for rows, feeds in judged.batches(1000):
        values[rows] = feeds["x"]
    for subject, found in zip(pair, predict(pair, judged, empty_cache), strict=True):
        logits = run(subject.model.path, values).astype(np.float64)
        top = np.sort(logits, axis=1)
        np.testing.assert_array_equal(found.code, logits.argmax(axis=1))
        np.testing.assert_allclose(found.outputs, logits, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(found.certainty, top[:, -1] - top[:, -2], rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(found.records["confidence"], 1 / np.exp(logits - top[:, -1:]).sum(axis=1), rtol=1e-3)
        for name in ("sample_id", "source_id", "label"):
            np.testing.assert_array_equal(getattr(found, name), getattr(judged, name))
        assert found.identity["model"] == {"name": subject.model.path.name, "digest": subject.model.digest}
        assert found.identity["runtime"]["provider"] == "cpu"


def test_error_energies_and_sqnr_equal_direct_computation(pair, samples, empty_cache):
    reference, model = predict(pair, samples(), empty_cache)
    exact, got = reference.outputs.astype(np.float64), model.outputs.astype(np.float64)
    np.testing.assert_allclose(model.signal_energy, (exact**2).sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(model.error_energy, ((exact - got) ** 2).sum(axis=1), rtol=1e-12)
    assert sqnr_db(model) == pytest.approx(10 * np.log10((exact**2).sum() / ((exact - got) ** 2).sum()), abs=1e-9)
    assert (reference.error_energy == 0).all()
    assert sqnr_db(reference) is None


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_predictions_do_not_depend_on_the_batch_size(pair, samples, fresh, monkeypatch, batch):
    expected = predict(pair, samples(count=70), fresh())
    monkeypatch.setattr("onnxptq.evaluation.run.BATCH", batch)
    for one, other in zip(expected, predict(pair, samples(count=70), fresh()), strict=True):
        assert_equal(one, other, close=True)


def test_a_model_of_a_fixed_batch_is_filled_up_and_says_the_same(subject, samples, fresh):
    (expected,) = predict([subject("dynamic.onnx")], samples(count=10), fresh())
    (fixed,) = predict([subject("fixed.onnx", batch=4)], samples(count=10), fresh())  # 4 + 4 + 2, twice
    assert_equal(fixed, expected, close=True)


def test_models_of_different_fixed_batches_are_refused(subject, samples, empty_cache):
    with pytest.raises(DataError, match=r"fixed different batch sizes \(\[2, 4\]\)"):
        predict([subject("a.onnx", batch=2), subject("b.onnx", batch=4)], samples(), empty_cache)


def test_what_was_made_is_found_again_without_running(pair, samples, empty_cache):
    made = predict(pair, samples(), empty_cache)
    for subject in pair:
        subject.model.path.unlink()  # Whoever ran it now would fail.
    for one, other in zip(made, predict(pair, samples(), empty_cache), strict=True):
        assert_equal(one, other)
        assert one.identity == other.identity


def test_a_reference_found_again_is_the_reference_of_a_new_model(pair, samples, empty_cache, fresh):
    together = predict(pair, samples(), fresh())
    predict(pair[:1], samples(), empty_cache)
    apart = predict(pair, samples(), empty_cache)
    for one, other in zip(together, apart, strict=True):
        assert_equal(one, other)


@pytest.mark.parametrize(
    "changed",
    [
        {"specification": {"scores": "probabilities"}},
        {"seed": 1},
        {"corruptions": ("clean", "tensor_noise@2")},
        {"corruptions": ("tensor_noise@3", "clean")},
        {"count": 39},
        {"labels": [1] * 40},
        {"attributes": {"sex": ["f"] * 40}},
        {"values": np.ones((40, 6), np.float32)},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_anything_changed_is_never_answered_from_an_old_file(pair, samples, empty_cache, fresh, changed):
    predict(pair, samples(), empty_cache)
    files = set(empty_cache.root.rglob("*.parquet"))
    found = predict(pair, samples(**changed), empty_cache)
    assert len(set(empty_cache.root.rglob("*.parquet")) - files) == 2
    for one, other in zip(found, predict(pair, samples(**changed), fresh()), strict=True):
        assert_equal(one, other)


def test_a_changed_model_of_the_same_name_is_never_answered_from_an_old_file(subject, samples, empty_cache):
    (before,) = predict([subject("m.onnx", seed=0)], samples(), empty_cache)
    (after,) = predict([subject("m.onnx", seed=1)], samples(), empty_cache)
    assert not np.allclose(before.outputs, after.outputs)


def test_a_copy_is_found_and_keeps_its_own_name(subject, samples, empty_cache):
    (first,) = predict([subject("one.onnx")], samples(), empty_cache)
    (second,) = predict([subject("two.onnx")], samples(), empty_cache)
    assert len(list(empty_cache.root.rglob("*.parquet"))) == 1
    assert_equal(first, second)
    assert second.identity["model"]["name"] == "two.onnx"


def test_equal_content_in_other_rows_of_the_source_keeps_its_own_ids(pair, samples, empty_cache):
    """As after --skip-bad, when a bad row in front has gone."""
    judged = samples()
    predict(pair[:1], judged, empty_cache)
    moved = replace(
        judged,
        dataset=replace(judged.dataset, indices=judged.dataset.indices + 1, rows=lambda i: judged.dataset.rows(i - 1)),
    )
    runs = predict(pair, moved, empty_cache)
    for found in runs:
        np.testing.assert_array_equal(found.sample_id, moved.sample_id)


def test_a_damaged_file_is_made_anew(pair, samples, empty_cache):
    made = predict(pair, samples(), empty_cache)
    for file in empty_cache.root.rglob("*.parquet"):
        file.write_bytes(file.read_bytes()[:-20])
    for one, other in zip(made, predict(pair, samples(), empty_cache), strict=True):
        assert_equal(one, other)


def test_outputs_too_large_to_keep_still_give_error_energies(pair, samples, empty_cache, fresh, monkeypatch):
    kept = predict(pair, samples(), fresh())
    monkeypatch.setattr("onnxptq.evaluation._gathering.OUTPUTS_KEPT", 3)
    for _ in range(2):
        for one, other in zip(kept, predict(pair, samples(), empty_cache), strict=True):
            assert other.outputs is None
            assert_equal(replace(one, outputs=None), replace(other, outputs=None))
    assert sqnr_db(other) == sqnr_db(one)
    # Without outputs, a file could not be compared with another reference later: none is kept.
    assert not list(empty_cache.root.rglob("*.parquet"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_named_with_its_sample(save_classifier, samples, empty_cache, value):
    """One sample, of large numbers, makes log(threshold - sum) or 1 / 0."""
    path = save_classifier()
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == "b2":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(4, np.float32), "b2"))
    last = model.graph.node[-1]
    last.output[0] = "raw"
    limit = numpy_helper.from_array(np.float32(50), "limit")
    model.graph.initializer.append(limit)
    over = [
        helper.make_node("Abs", ["raw"], ["size"]),
        helper.make_node("Sub", ["limit", "size"], ["rest"]),
        helper.make_node("Sqrt", ["rest"], ["root"])
        if np.isnan(value)
        else helper.make_node("Exp", ["size"], ["root"]),
        helper.make_node("Identity", ["root"], ["logits"]),
    ]
    model.graph.node.extend(over)
    onnx.save(model, path)
    values = np.zeros((40, 6), np.float32)
    values[23] = 1000
    judged = samples(("clean",), values=values)
    with pytest.raises(DataError, match=r"net\.onnx gives NaN or infinity for the sample 'data: row 23';"):
        predict([ModelUnderTest(load_model(path))], judged, empty_cache)
    assert not list(empty_cache.root.rglob("*.parquet"))


def test_progress_counts_every_row_of_every_model_once(pair, samples, empty_cache):
    for _ in range(2):  # Made, then found.
        counted = []
        predict(pair, samples(count=70), empty_cache, counted.append)
        assert sum(counted) == 2 * 140


def test_a_model_that_fell_back_is_judged_as_what_it_ran_on(subject, samples, empty_cache):
    from onnxptq.runtimes import probe

    if probe("tensorrt").loads:
        pytest.skip("TensorRT loads here")
    asked = replace(subject(), runtime=chosen_runtime("tensorrt", empty_cache, allow_fallback=True))
    (found,) = predict([asked], samples(), empty_cache)
    assert found.identity["runtime"]["provider"] == "cpu"
    assert "tensorrt" in found.identity["runtime"]["fallback_reason"]
    (plain,) = predict([subject()], samples(), empty_cache)
    assert len(list(Path(empty_cache.root).rglob("*.parquet"))) == 1
    assert_equal(found, plain)
    assert "fallback_reason" not in plain.identity["runtime"]


def test_several_outputs_count_in_the_error_and_the_task_reads_its_own(tmp_path, samples, empty_cache):
    """logits and, as a second output, the sum of x."""
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 6), ("logits", 4), ("s", 1))
    ]
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32), "w")
    axes = numpy_helper.from_array(np.int64([1]), "axes")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["logits"]),
        helper.make_node("ReduceSum", ["x", "axes"], ["s"], keepdims=1),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight, axes])
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "two.onnx"
    )
    judged = samples(("clean",))
    (found,) = predict([ModelUnderTest(load_model(tmp_path / "two.onnx"))], judged, empty_cache)
    assert found.outputs.shape == (40, 5)
    np.testing.assert_array_equal(found.code, found.outputs[:, :4].argmax(axis=1))


def test_narrow_outputs_of_several_batches_are_read_at_once_and_say_the_same(pair, samples, fresh, monkeypatch):
    judged, steps = samples(count=200), []
    at_once = predict(pair, judged, fresh(), steps.append)
    assert max(steps) == len(judged) > BATCH
    monkeypatch.setattr("onnxptq.evaluation.run._PORTION_BYTES", 0)
    for one, other in zip(at_once, predict(pair, judged, fresh()), strict=True):
        assert_equal(one, other)


def test_wide_outputs_are_read_batch_by_batch(pair, samples, empty_cache, monkeypatch):
    monkeypatch.setattr("onnxptq.evaluation._gathering.OUTPUTS_KEPT", 3)
    steps = []
    predict(pair, samples(count=200), empty_cache, steps.append)
    assert max(steps) == BATCH
