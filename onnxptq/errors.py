"""The errors that a user can meet. Each message says what was wrong with which input, what was expected, what to do.

Exit codes, the same for every command:

    0    done
    1    a verdict that failed
    2    wrong use, bad input, or an INT8 file that would be of no use (every `OnnxptqError`)
    3    undecided
    70   a bug of ours
    130  interrupted (Ctrl-C)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_UNDECIDED = 3
EXIT_BUG = 70


class OnnxptqError(Exception):
    """Base of every error that is the input's fault, not ours."""


class ModelError(OnnxptqError):
    """The ONNX file cannot be used: missing, truncated, already quantized, unsupported type or shape."""


class WrittenFileError(OnnxptqError):
    """The INT8 file that was made is of no use. Nothing is wrong with the model or the data that it was made from."""


class DataError(OnnxptqError):
    """The dataset cannot be used: missing, empty, corrupt, not finite, or it does not fit the model."""


class UsageError(OnnxptqError):
    """A name or a value that does not exist: calibration set, severity, method, group, option."""


class RuntimeUnavailableError(OnnxptqError):
    """An execution provider was asked for that does not load here."""


class OutputError(OnnxptqError):
    """A result cannot be written: no permission, no space, or a file in the way."""


def inside(part: str, whole: str) -> str:
    """Where a wrong part of what the user wrote stands: " in 'WHOLE'"; "" where it is all of it."""
    return "" if part == whole else f" in {whole!r}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that helps whoever mistyped `name`: the closest known names, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if close:
        return f"Did you mean {' or '.join(repr(c) for c in close)}?"
    return f"Known: {', '.join(known)}." if known else "None is known."
