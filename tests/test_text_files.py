"""Texts and JSON of strangers: bounded, UTF-8, and JSON as the standard has it."""

from __future__ import annotations

import pytest

from onnxptq.errors import DataError
from onnxptq.text_files import json_object, parse_json, read_json, read_text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a": NaN}', "NaN is no number"),
        ('{"a": -Infinity}', "is no number"),
        ('{"a": "\\ud800"}', "half of a character"),
        ('{"\\udFFF": 1}', "half of a character"),
        ("9" * 5000, "is not JSON"),
    ],
)
def test_what_is_no_json_is_refused(text, says):
    with pytest.raises(DataError, match=says):
        parse_json(text, "the file x", DataError)


def test_a_whole_character_of_two_halves_is_text():
    assert parse_json('"\\ud83d\\ude00"', "x", DataError) == "\U0001f600"


@pytest.mark.parametrize("text", ["[]", "1", "null", '"a"'])
def test_another_value_than_an_object_is_refused(text):
    with pytest.raises(DataError, match="must be a JSON object"):
        json_object(text, "the file x", DataError)


def test_no_more_is_read_than_allowed(tmp_path):
    (tmp_path / "long").write_text("x" * 11)
    with pytest.raises(DataError, match="more than 10 bytes"):
        read_text(tmp_path / "long", "file", DataError, most=10)
    assert read_text(tmp_path / "long", "file", DataError, most=11) == "x" * 11


@pytest.mark.parametrize("name", ["missing.json", "folder", "a\0b.json", "n" * 300])
def test_what_cannot_be_read_is_named(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match=r"the file .* cannot be read"):
        read_json(tmp_path / name, "file", DataError)
