"""Names of strangers - labels, groups, models, files, studies - on their way to whoever reads them.

Everything that is shown passes one of these functions: `one_line` where a name comes in, `printable` before a terminal
or a log, `markdown` and `fenced` before Markdown, `json_text` before JSON. What they replace, they replace by the
escape that Python and JSON write for it, so that nothing gets lost and two names stay two.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TextIO

_UNSEEN = "\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff\U000e0000-\U000e007f"
"""DEL and the C1 controls; marks that turn the direction of text around; line separators; halves of characters (the
bytes of a file name that is no UTF-8); tags that nobody sees."""

_NOT_ONE_LINE = re.compile(f"[\x00-\x1f{_UNSEEN}]")
_NOT_PRINTABLE = re.compile(f"[\x00-\x08\x0b-\x1f{_UNSEEN}]")
_NOT_IN_JSON = re.compile(f"[{_UNSEEN}]")

_COMMAND_LINE = re.compile(r"^([^\S\n]*)(?=::)", re.MULTILINE)
_OLD_COMMAND = re.compile(r"#(?=#(?:\[|vso\[))")
"""What CI systems read as commands: GitHub `::error::` at the beginning of a line, `##[` and `##vso[` anywhere."""


def one_line(text: str) -> str:
    r"""A name as it may stand anywhere in a line: no control character, so no line break either, comes through."""
    return _NOT_ONE_LINE.sub(_escape, text) if _NOT_ONE_LINE.search(text) else text


def printable(text: str) -> str:
    """Text for a terminal or a log: lines of ours stay lines; no escape sequence and no workflow command is left."""
    return _OLD_COMMAND.sub(r"#\\", _COMMAND_LINE.sub(r"\1\\", _NOT_PRINTABLE.sub(_escape, text)))


def markdown(text: str) -> str:
    r"""Text inside of Markdown, on one line: no markup, no HTML, and no mention, link or reference that would live."""
    line = one_line(" ".join(text.split()))
    escaped = "".join(f"\\{character}" if character in _MARKUP else character for character in line)
    for pattern in _LIVING:
        escaped = pattern.sub(rf"\1{_BREAK}\2", escaped)
    return _COMMIT.sub(lambda found: _BREAK.join(re.findall(".{1,6}", found[0])), escaped)


_MARKUP = "\\`*_[]<>|#~$"
_BREAK = "<!-- -->"
_LIVING = (
    re.compile(r"(?<!\w)(@)()"),  # @someone; "dark@3" is no mention.
    re.compile(r"(?<=\w)(@)(?=[\w-]+\.\w)()"),  # an address
    re.compile(r"(:)(//)"),
    re.compile(r"\b(mailto|xmpp)(:)", re.IGNORECASE),
    re.compile(r"\b(www)(\.)", re.IGNORECASE),
    re.compile(r"\b(GH)(-\d)", re.IGNORECASE),
)
"""Where GitHub finds mentions, links and references to issues in plain text."""

_COMMIT = re.compile(r"\b[0-9a-f]{7,40}\b")
"""What GitHub takes for a commit."""


def fenced(text: str, language: str) -> list[str]:
    """Lines of a block of code: Markdown reads nothing in it up to a fence as long as its own."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{fence}{language}", _NOT_PRINTABLE.sub(_escape, text).rstrip("\n"), fence]


def json_text(value: Any) -> str:
    """JSON to write to a file or to stdout, ending in a line break; what is not seen is escaped, as JSON allows."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"
    return _NOT_IN_JSON.sub(_json_escape, text)


def csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a spreadsheet: what begins as a formula does gets an apostrophe in front, and stays text."""
    return {key: f"'{value}" if _is_formula(value) else value for key, value in row.items()}


def _is_formula(value: Any) -> bool:
    return isinstance(value, str) and len(value) > 1 and value.startswith(_FORMULA)


_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape", "surrogatepass").decode()


def _json_escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


class Filtered:
    """A text stream that writes what is `printable` to another one.

    Attributes:
        inner: that one.
    """

    def __init__(self, inner: TextIO) -> None:
        self.inner = inner
        self._line = ""  # How the current line begins: nothing yet, a colon, or something else.

    def write(self, text: str) -> int:
        """As `TextIO.write`."""
        if self._line == "":
            shown = printable(text)
        else:
            shown = printable(f".{text}")[1:]
            if self._line == ":" and text.startswith(":"):
                shown = f"\\{shown}"
        self.inner.write(shown)
        _, broken, rest = text.rpartition("\n")
        line = (rest if broken else self._line + rest).lstrip()
        self._line = line if line in ("", ":") else "."
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        """As `TextIO.writelines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def unfiltered(stream: TextIO) -> TextIO:
    """The stream behind a filter, for what is ours to the last character: colors, workflow commands."""
    return stream.inner if isinstance(stream, Filtered) else stream


@contextmanager
def filtered_output() -> Iterator[None]:
    """Everything that this process prints with Python's streams is `printable` while it is open."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (None if one is None else Filtered(one) for one in before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before
