"""Raw outputs: whatever a model gives is compared with what FP32 gives, and the worst of it counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from onnxptq.errors import UsageError
from onnxptq.heads.raw import build, output_fidelity
from onnxptq.signature import Signature, TensorSpec


def ragged(*arrays):
    found = np.empty(len(arrays), object)
    for number, array in enumerate(arrays):
        found[number] = np.asarray(array)
    return found


@pytest.mark.parametrize(
    ("output", "reference", "expected"),
    [
        ([[3.0, 4.0]], [[3.0, 4.0]], 1.0),
        ([[3.0, 4.5]], [[3.0, 4.0]], 0.9),  # 20 dB
        ([[0.0, 0.0]], [[3.0, 4.0]], 0.0),
        ([[-9.0, 4.0]], [[3.0, 4.0]], 0.0),
        ([[0.0, 0.0]], [[0.0, 0.0]], 1.0),
        ([[0.0, 1e-9]], [[0.0, 0.0]], 0.0),
        ([[np.nan, 4.0]], [[3.0, 4.0]], 0.0),
        ([[3.0, np.inf]], [[3.0, 4.0]], 0.0),
        ([[3.0, -np.inf]], [[3.0, -np.inf]], 1.0),
        ([[3.0, 1.0]], [[3.0, -np.inf]], 0.0),
        ([[3e38, 3e38]], [[3e38, 3e38]], 1.0),
    ],
)
def test_floats_are_compared_by_their_error_and_signal(output, reference, expected):
    found = output_fidelity(np.array(output, np.float32), np.array(reference, np.float32))
    assert found.tolist() == [pytest.approx(expected, abs=1e-6)]


def test_integers_and_text_are_equal_or_not_and_pixels_are_amounts():
    assert output_fidelity(np.array([[1, 2, 3, 9]]), np.array([[1, 2, 3, 4]])).tolist() == [0.75]
    assert output_fidelity(np.array(["cat", "dog"]), np.array(["cat", "cow"])).tolist() == [1.0, 0.0]
    assert output_fidelity(np.array([[True, False]]), np.array([[True, True]])).tolist() == [0.5]
    pixels = np.full((1, 4), 200, np.uint8)
    assert output_fidelity(pixels + np.uint8(1), pixels).tolist() == [pytest.approx(1 - 1 / 200)]


def test_another_shape_leaves_nothing():
    output, reference = ragged([[1.0, 2.0]], [[1.0, 2.0], [3.0, 4.0]]), ragged([[1.0, 2.0]], [[1.0, 2.0]])
    assert output_fidelity(output, reference).tolist() == [1.0, 0.0]
    assert output_fidelity(np.zeros((2, 0)), np.zeros((2, 0))).tolist() == [1.0, 1.0]


@given(
    hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32, allow_nan=False)),
    hnp.arrays(np.float32, (3, 4), elements=st.floats(width=32)),
)
def test_it_lies_between_0_and_1_and_equal_is_1(reference, output):
    found = output_fidelity(output, reference)
    assert ((found >= 0) & (found <= 1)).all()
    assert output_fidelity(reference, reference).tolist() == [1.0] * 3


def test_the_worst_output_is_the_samples_and_some_may_be_named():
    outputs = (TensorSpec("ids", "int64", (None, 8)), TensorSpec("embedding", "float32", (None, 2)))
    signature = Signature((TensorSpec("x", "float32", (None, 2)),), outputs)
    reference = [np.zeros((2, 8), np.int64), np.array([[3.0, 4.0], [3.0, 4.0]])]
    said = [np.zeros((2, 8), np.int64), np.array([[3.0, 4.0], [0.0, 0.0]])]
    head = build({}, signature)
    assert head.judged == ("ids", "embedding")
    assert head.fidelity(head.answers(said), head.answers(reference)).tolist() == [1, 0]
    only = build({"outputs": ["ids"]}, signature)
    assert only.judged == ("ids",)
    assert only.fidelity(only.answers(said), only.answers(reference)).tolist() == [1, 1]
    assert build(only.specification, signature) == only
    with pytest.raises(UsageError, match=r"no output 'id'\. Did you mean 'ids'"):
        build({"outputs": ["id"]}, signature)
