"""Whatever is raised in a command becomes an exit code of ours, and never 1, which says FAILED."""

from __future__ import annotations

import errno

import click
import pytest

from onnxptq import cli
from onnxptq.errors import DataError


class PanicException(BaseException):
    """As pyo3 raises it for a panic in Rust: not an Exception."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (DataError("bad"), 2),
        (MemoryError(), 2),
        (RecursionError("deep"), 2),
        (PermissionError(errno.EACCES, "Permission denied", "file.txt"), 2),
        (FileNotFoundError(errno.ENOENT, "No such file", b"\xff.txt"), 2),
        (OSError(errno.ENOSPC, "No space left on device"), 2),
        (OSError(errno.EMFILE, "Too many open files"), 2),
        (OSError("odd"), 70),
        (ZeroDivisionError(), 70),
        (PanicException("panicked"), 70),
        (GeneratorExit(), 70),
        (StopIteration(), 70),
        (KeyboardInterrupt(), 130),
        (SystemExit(0), 0),
        (SystemExit(1), 141),
        (SystemExit("text"), 141),
        (click.UsageError("wrong"), 2),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"), 70),
    ],
)
def test_no_error_ends_with_the_code_of_a_verdict(monkeypatch, run_here, tmp_path, error, code):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr(cli.cli, "main", fail)
    done = run_here([], tmp_path, {})
    assert done.returncode == code
    assert "Traceback" not in done.stderr
    assert done.stderr or isinstance(error, SystemExit)


def test_an_error_while_the_command_ends_is_none_either(monkeypatch, run_here, tmp_path):
    monkeypatch.setattr(cli.cli, "main", lambda **options: 1)

    def fail():
        raise RuntimeError("at the end")

    monkeypatch.setattr(cli.gc, "collect", fail)
    assert run_here([], tmp_path, {}).returncode == 1  # The verdict stands.
    monkeypatch.setattr(cli.cli, "main", lambda **options: 0)
    assert run_here([], tmp_path, {}).returncode == 0
