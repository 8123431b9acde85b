"""What native code prints goes to stderr: stdout belongs to the command, which may be writing JSON there.

ONNX Runtime's Python layer prints with `print` ("EP Error ...", `preload_dlls`), its providers with C streams, so both
levels are redirected: `sys.stdout` and file descriptor 1.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

_STDOUT = 1
_STDERR = 2

# File descriptors belong to the process. Without the lock, two threads that overlap could each save what the other had
# redirected, and stdout would never come back.
_lock = threading.RLock()


@contextlib.contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Sends everything written to stdout by this process, at both levels, to stderr while it is open.

    Nests, and threads take turns. What was written to stdout before still arrives there. Where stderr is closed the
    output is dropped; a closed stdout is closed again afterwards.
    """
    with _lock:
        _flush()
        saved = _duplicate(_STDOUT)
        try:
            _point_stdout_at_stderr()
            with contextlib.redirect_stdout(sys.stderr):
                yield
        finally:
            _flush()
            _restore_stdout(saved)


@contextlib.contextmanager
def stderr_kept() -> Iterator[Callable[[], str]]:
    """Keeps what is written to file descriptor 2 off the terminal while it is open; gives a function that reads it.

    For native code that repeats itself while it fails, where the error says all there is to say. `sys.stderr` stays
    the object that it is: a log handler that is made meanwhile must be able to write later.
    """
    with _lock, tempfile.TemporaryFile() as file:
        _flush()
        saved = _duplicate(_STDERR)
        os.dup2(file.fileno(), _STDERR)

        def text() -> str:
            _flush()
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield text
        finally:
            _flush()
            if saved is None:
                os.close(_STDERR)
            else:
                os.dup2(saved, _STDERR)
                os.close(saved)


def _flush() -> None:
    """Empties the buffers of Python and of the C library, so that no line ends on the wrong side of a redirection."""
    # A broken stdout is the business of whoever writes to it, not of whoever opens a model.
    with contextlib.suppress(OSError, ValueError):
        if sys.stdout is not None:
            sys.stdout.flush()
    _c_library().fflush(None)


@functools.cache
def _c_library() -> ctypes.CDLL:
    return ctypes.CDLL("ucrtbase" if sys.platform == "win32" else None)


def _duplicate(descriptor: int) -> int | None:
    """A copy of `descriptor`, or None where it is closed.

    Never a standard one: where stderr is closed, the lowest free number would be its own, and what native code writes
    to stderr would reach the saved stdout.
    """
    try:
        copy = os.dup(descriptor)
    except OSError:
        return None
    if copy > _STDERR:
        return copy
    higher = _duplicate(descriptor)
    os.close(copy)
    return higher


def _point_stdout_at_stderr() -> None:
    try:
        os.dup2(_STDERR, _STDOUT)
    except OSError:  # stderr is closed
        nowhere = os.open(os.devnull, os.O_WRONLY)
        if nowhere != _STDOUT:
            os.dup2(nowhere, _STDOUT)
            os.close(nowhere)


def _restore_stdout(saved: int | None) -> None:
    if saved is None:
        os.close(_STDOUT)
    else:
        os.dup2(saved, _STDOUT)
        os.close(saved)
