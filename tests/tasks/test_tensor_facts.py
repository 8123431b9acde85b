"""What is known of tensor inputs: declared bounds, kinds and moments, the graph's own, and what follows from them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxptq.errors import UsageError
from onnxptq.flags import parse_ranges
from onnxptq.tasks import Normalizer, Signature, TensorSpec
from onnxptq.tasks.tensor_input import TensorInput, build

OUTPUT = TensorSpec("y", "float32", (None, 3))
TABLE = TensorSpec("x", "float32", (None, 2))
STANDARDIZED = TensorSpec("x", "float32", (None, 2), normalizer=Normalizer((40.0, 300.0), (12.0, 250.0)))
MEL = TensorSpec("x", "float32", (None, 1, 40, 61))


def task(*inputs: TensorSpec, **specification: Any) -> TensorInput:
    return build(specification, Signature(inputs, (OUTPUT,)))


def test_declared_bounds_are_bounds_and_come_back_from_the_specification() -> None:
    for given in ([-0.8, 4], {"x": [-0.8, 4]}):
        made = task(MEL, input_range=given, kind="log-mel")
        assert made.input_bounds() == {"x": (-0.8, 4.0)}
        assert made.input_facts()["x"].kind == "log-mel"
        assert task(MEL, **made.specification) == made


def test_the_graphs_normalizer_is_known_and_the_specification_wins() -> None:
    made = task(STANDARDIZED)
    np.testing.assert_array_equal(made.input_facts()["x"].mean, [40, 300])
    assert task(TABLE, **made.specification).input_facts() == made.input_facts()
    declared = task(STANDARDIZED, normalizer={"mean": [1, 2], "std": [3, 4]}).input_facts()["x"]
    assert (declared.means, declared.deviations) == ((1.0, 2.0), (3.0, 4.0))


@pytest.mark.parametrize(
    ("spec", "specification", "copies", "cleaned"),
    [
        (STANDARDIZED, {}, ["normal@3"], "cut_outliers@3"),
        (TABLE, {}, ["tensor_noise@3", "impute@3"], ""),
        (MEL, {"input_range": [0, 1]}, ["stretch@3", "stretch@3+negate@3"], ""),
        (MEL, {"normalizer": {"mean": 0, "std": 1}}, ["restandardize@3"], ""),
        (MEL, {}, ["widen@2"], ""),
        (TensorSpec("x", "float32", (None, 16000)), {}, ["stretch@3"], ""),
        (TensorSpec("x", "int64", (None, 5)), {}, [], ""),
    ],
)
def test_copies_follow_from_what_is_known(spec: Any, specification: Any, copies: list[str], cleaned: str) -> None:
    made = task(spec, **specification)
    assert set(copies) <= set(made.augmentations())
    assert bool(copies) == bool(made.augmentations())
    assert made.cleaned() == cleaned
    for chain in (*made.augmentations(), *filter(None, [made.cleaned()])):
        assert [made.fits(shift) for shift in chain.split("+")] == [None] * len(chain.split("+"))


def test_a_shift_that_would_change_nothing_is_refused_with_what_it_needs() -> None:
    assert "--input-range" in str(task(MEL).fits("stretch"))
    assert "normalizer" in str(task(TABLE).fits("normal"))
    assert "table" in str(task(TABLE).fits("time_flip"))
    assert "takes none" in str(task(MEL).fits("impute"))


def test_noise_without_data_is_like_the_training_data() -> None:
    rows = task(STANDARDIZED).noise(500, seed=0)["x"]
    np.testing.assert_allclose(rows.mean(axis=0) / [40, 300], 1, atol=0.15)
    filled = task(MEL, input_range=[2, 3]).noise(4, seed=0)["x"]
    assert 2 <= filled.min() < 2.1
    assert 2.9 < filled.max() <= 3


@pytest.mark.parametrize(
    ("specification", "message"),
    [
        ({"input_range": [1, 0]}, "least and its greatest number.*got \\[1, 0\\]"),
        ({"input_range": {"z": [0, 1]}}, "names the input 'z', which the model lacks"),
        ({"kind": "picture"}, "one of table, log-mel, audio, tensor, got 'picture'"),
        ({"normalizer": {"mean": [1, 2, 3], "std": [1, 2, 3]}}, "3 means and 3 deviations along axis -1"),
        ({"normalizer": {"mean": [1, 2], "std": [1, 0]}}, "std above 0"),
        ({"normalizer": {"mean": [1, 2]}}, "std above 0; got"),
    ],
)
def test_what_cannot_be_is_refused(specification: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        task(TABLE, **specification)


def test_a_comment_is_no_key_and_several_inputs_need_names() -> None:
    assert task(TABLE, _columns=["age", "days"]) == task(TABLE)
    with pytest.raises(UsageError, match="must name its input"):
        task(TABLE, TensorSpec("z", "float32", (None, 2)), input_range=[0, 1])


def test_ranges_on_the_command_line() -> None:
    assert parse_ranges(["x=-1:1", "y=0:2.5"]) == {"x": [-1, 1], "y": [0, 2.5]}
    assert parse_ranges(["-1:1"]) == [-1, 1]
    for wrong in ("x=1", "x=2:1", "x=a:b", "x=0:inf"):
        with pytest.raises(UsageError, match="NAME=LOW:HIGH"):
            parse_ranges([wrong])
    with pytest.raises(UsageError, match="each must name its input"):
        parse_ranges(["0:1", "x=0:1"])
