"""What the set is held against: BatchNormalization, samples not drawn, copies, and groups that are missing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.audit.bounds import SIGMAS, batch_norm_ranges
from onnxptq.audit.missing import missing_groups
from onnxptq.audit.probe import augmented_parts, undrawn_parts
from onnxptq.cache import user_cache
from onnxptq.calibrators import CalibrationSet
from onnxptq.calibrators.samples import CalibrationSamples, draw
from onnxptq.data import Dataset
from onnxptq.graphs import fold, load_model
from onnxptq.inputs import DataOptions, Inputs, resolve_for_quantization


@pytest.fixture(scope="module")
def digits() -> Inputs:
    return resolve_for_quantization(None, DataOptions(), user_cache(), needs_data=True, evaluate=True)


@pytest.fixture(scope="module")
def side(digits: Inputs) -> Dataset:
    assert digits.calibration is not None
    return digits.calibration


def drawn(digits: Inputs, calib: str, size: int | None = None) -> CalibrationSamples:
    return draw(CalibrationSet.parse(calib), digits.task, digits.calibration, size=size)


def bn_net(path: Path, beta: list[float], gamma: list[float]) -> Path:
    """Conv, BatchNormalization, Clip to at most 6."""
    arrays = {
        "w": np.ones((2, 1, 1, 1)),
        "gamma": np.array(gamma),
        "beta": np.array(beta),
        "mean": np.zeros(2),
        "var": np.ones(2),
        "low": np.array(0),
        "high": np.array(6),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("BatchNormalization", ["c", "gamma", "beta", "mean", "var"], ["z"], name="bn"),
        helper.make_node("Clip", ["z", "low", "high"], ["y"], name="clip"),
    ]
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", c, 4, 4]) for n, c in (("x", 1), ("y", 2))]
    weights = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "net", values[:1], values[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_batch_normalization_says_how_far_a_tensor_reaches_and_a_clip_ends_it(tmp_path: Path) -> None:
    folded = fold(load_model(bn_net(tmp_path / "net.onnx", [0.5, 1.0], [-0.5, 4.0])), user_cache())
    ranges = batch_norm_ranges(folded)
    assert ranges["z"] == (1.0 - SIGMAS * 4, 1.0 + SIGMAS * 4)
    assert ranges["y"] == (0.0, 6.0)


def test_the_probe_holds_no_drawn_sample_and_equal_shares_of_each_label(digits: Inputs, side: Dataset) -> None:
    samples = drawn(digits, "single-class", 30)
    assert samples.dataset is not None
    parts = undrawn_parts(digits.task, side, samples)
    assert [part.name for part in parts] == [f"label={digit}" for digit in range(10)]
    assert {len(part.samples) for part in parts} == {12}
    taken = set(samples.dataset.fingerprints.tolist())
    assert not any(taken & set(part.samples.dataset.fingerprints.tolist()) for part in parts)


def test_many_groups_are_looked_at_together(digits: Inputs, side: Dataset) -> None:
    crowded = replace(side, attributes={"id": side.fingerprints})
    assert [part.name for part in undrawn_parts(digits.task, crowded, drawn(digits, "clean"))] == ["all"]


def test_copies_keep_the_shifts_of_the_set_and_leave_out_what_does_not_fit(digits: Inputs) -> None:
    parts = augmented_parts(digits.task, drawn(digits, "dark@3"))
    assert "permute_channels@3" not in {part.name for part in parts}  # The digits are gray.
    assert all(part.samples.shifts[0] == ("dark", 3) and len(part.samples.shifts) > 1 for part in parts)


def test_without_data_only_copies_are_left(digits: Inputs) -> None:
    noise = draw(CalibrationSet.parse("random"), digits.task, None)
    assert undrawn_parts(digits.task, None, noise) == ()
    assert augmented_parts(digits.task, noise)


def test_missing_groups_are_named_and_identifiers_are_no_groups(digits: Inputs, side: Dataset) -> None:
    side = replace(side, attributes={**side.attributes, "id": side.fingerprints})
    of = draw(CalibrationSet.parse("missing-group:3"), digits.task, side).dataset
    (missing,) = missing_groups(side, of)
    assert (missing.attribute, missing.values, missing.of) == ("label", ("3",), 10)
    assert missing_groups(side, None) == ()
