"""Specifications that are proposed from the data."""

from __future__ import annotations

import pytest

from onnxptq.data.preview import Preview
from onnxptq.signature import Signature, TensorSpec
from onnxptq.suggestion import hints, suggested

CUSTOMERS = Preview(
    columns={"age": "scalar", "plan": "text", "income": "number", "churned": "text"},
    categories={"plan": ("basic", "family"), "churned": ("no", "yes")},
    missing={"income": 41.5},
    label="churned",
)


def model(shape: tuple[int | None, ...], outputs: int = 2) -> Signature:
    return Signature((TensorSpec("x", "float32", shape),), (TensorSpec("y", "float32", (None, outputs)),))


@pytest.mark.parametrize(
    ("width", "columns"),
    [
        (2, ["age", {"name": "income", "missing": 41.5}]),
        (3, ["age", {"name": "plan", "values": {"basic": 0, "family": 1}}, {"name": "income", "missing": 41.5}]),
        (4, ["age", {"name": "plan", "one_hot": ["basic", "family"]}, {"name": "income", "missing": 41.5}]),
    ],
)
def test_columns_are_the_numbers_or_those_and_the_categories_as_the_width_has_it(width: int, columns: object) -> None:
    found, doubts = suggested(model((None, width)), CUSTOMERS)
    assert found == {"task": "table", "columns": columns, "classes": ["no", "yes"]}
    assert "those of the training" in doubts[0]


def test_a_width_that_no_choice_makes_is_said_with_what_there_is() -> None:
    found, doubts = suggested(model((None, 7)), CUSTOMERS)
    assert found == {}
    assert "takes 7 numbers a row" in doubts[0]
    assert "plan (2 categories)" in doubts[0]


def test_recordings_give_the_rate_to_what_may_be_a_waveform_alone() -> None:
    sounds = Preview(categories={"folder": ("no", "yes")}, label="folder", sample_rate=8000)
    found, doubts = suggested(model((None, 1, None)), sounds)
    assert found == {"task": "audio", "sample_rate": 8000, "classes": ["no", "yes"]}
    assert "trained at" in doubts[0]
    assert suggested(model((None, 12)), sounds) == ({}, ())
    assert suggested(model((None, None), outputs=5), sounds)[0] == {"task": "audio", "sample_rate": 8000}


def test_without_data_what_would_help_is_said() -> None:
    assert "--label-column" in hints(model((None, 12)))[0]
    assert "--sample-rate" in hints(model((None, 16_000)))[0]
    assert hints(model((None, 3, 8, 8))) == ()
    two = Signature((TensorSpec("a", "float32", (None, 3)), TensorSpec("b", "float32", (None, 3))), ())
    assert hints(two) == ()
