"""Names of strangers, on their way to a terminal, Markdown, CI, spreadsheets and JSON."""

from __future__ import annotations

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxptq.foreign_text import Filtered, csv_row, fenced, json_text, markdown, one_line, printable

ANY = st.text(st.characters(codec=None, categories=None))


@given(ANY)
def test_a_name_stays_on_one_line_and_can_be_encoded(text):
    line = one_line(text)
    assert len(line.splitlines()) <= 1
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in line)
    line.encode()
    assert one_line(line) == line


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nPASSED", "a\\nPASSED"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("\x9b31m", "\\x9b31m"),
        ("abc\u202egnp.exe", "abc\\u202egnp.exe"),
        ("a\u2028b\x85c\x0bd\x0ce", "a\\u2028b\\x85c\\x0bd\\x0ce"),
        (os.fsdecode(b"\xff.onnx"), "\\udcff.onnx"),
        ("caf\u00e9 \u732b \U0001f600", "caf\u00e9 \u732b \U0001f600"),
    ],
)
def test_what_is_not_seen_is_shown_as_an_escape(text, shown):
    assert one_line(text) == shown


COMMANDS = [
    "::error::x",
    "  ::stop-commands::y",
    "ok\n::set-output name=a::b",
    "\t::add-mask::x",
    "##[error]x",
    "##vso[task]x",
]


def commands(text: str) -> list[str]:
    """What a runner would take for commands."""
    return [line for line in text.split("\n") if line.strip().startswith("::") or "##[" in line or "##vso[" in line]


@pytest.mark.parametrize("text", COMMANDS)
def test_no_workflow_command_is_printed(text):
    assert commands(text)
    assert not commands(printable(text))


@given(st.lists(st.sampled_from([":", "::", " ", "\n", "a", "::error::x", "\r", "\x1b[2J"]), max_size=12))
def test_nor_one_that_is_printed_piece_by_piece(pieces):
    inner = io.StringIO()
    stream = Filtered(inner)
    for piece in pieces:
        stream.write(piece)
    assert not commands(inner.getvalue())
    assert "\x1b" not in inner.getvalue() and "\r" not in inner.getvalue()


@pytest.mark.parametrize(
    "text",
    [
        "@someone", "hello @org/team", "mail a.b@example.org", "http://e.example", "https://e.example",
        "www.e.example", "[x](http://e)", "<img src=x onerror=alert(1)>", "![x](y)",
        "#123", "GH-12", "a\n# t", "deadbeef" * 5, "$x$", "`a`",
    ],
)  # fmt: skip
def test_nothing_lives_in_markdown(text):
    shown = markdown(text)
    plain = shown.replace("<!-- -->", "\0")
    for living in ("@s", "@o", "@e", "://", "www.", "[x]", "GH-", "deadbeef", " #1", "\n"):
        assert living not in plain
    assert not plain.startswith(("#", "$", "`", "<"))


def test_names_that_are_none_of_it_stay_as_they_are():
    assert markdown("dark@3, class 7: 0.5 % (n = 100)") == "dark@3, class 7: 0.5 % (n = 100)"


def test_a_fence_is_longer_than_any_in_the_text():
    lines = fenced("a\n`````\n::error::", "sh")
    assert lines[0] == "``````sh" and lines[-1] == "``````"


@given(st.dictionaries(ANY, ANY))
def test_json_is_json_and_says_the_same(value):
    text = json_text(value)
    text.encode()
    assert json.loads(text) == value
    assert not any(letter in text for letter in "\u202e\u2028\x7f\x9b")


def test_a_spreadsheet_runs_no_name():
    row = csv_row({"a": "=HYPERLINK(1)", "b": "@x", "c": "+1", "d": "-2+3", "e": -1.5, "f": "-", "g": "cat"})
    assert list(row.values()) == ["'=HYPERLINK(1)", "'@x", "'+1", "'-2+3", -1.5, "-", "cat"]
