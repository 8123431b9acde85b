"""Ending a command in good order at any moment: signals become KeyboardInterrupt, and no temporary file is left."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType

AGAIN_SECONDS = 1.0
"""How long after a signal KeyboardInterrupt is raised once more, where nothing came of it: NumPy's C code, for one,
drops what is raised while it looks at a type. Much longer than the tidying up on the way out takes."""

_ALARM = getattr(signal, "SIGALRM", None)
"""Not on Windows, where the user presses Ctrl-C again."""


class Stop:
    """What signals do to a command.

    Attributes:
        signal: the number of the signal that stops the command, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._over = False

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Raises KeyboardInterrupt; further signals do not, so that they cannot cut the tidying up short."""
        if self._over or (self.signal is not None and _ALARM not in (None, number)):
            return
        if self.signal is None:
            self.signal = number
        self._set_alarm(AGAIN_SECONDS)
        raise KeyboardInterrupt

    def over(self) -> None:
        """From here on signals do nothing: the command has ended and only says how."""
        self._over = True
        self._set_alarm(0)

    def _set_alarm(self, seconds: float) -> None:
        if _ALARM is not None:
            signal.setitimer(signal.ITIMER_REAL, seconds)


@contextmanager
def orderly_stop() -> Iterator[Stop]:
    """While it is open, Ctrl-C, SIGTERM and a closed terminal raise KeyboardInterrupt.

    All temporary files of the process lie in one folder, which goes at the end with all that was left in it.
    """
    folder = _folder()
    stop = Stop()
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # What is ignored (nohup, a background job) stays ignored.
    before = {number: signal.signal(number, stop.handle) for number in numbers if _is_heeded(number)}
    try:
        with _temporary_files_in(folder):
            yield stop
    finally:
        stop.over()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        for number, handler in before.items():
            # Who stopped the command and goes on pressing Ctrl-C sees it end, not the traceback of how it ends.
            signal.signal(number, handler if stop.signal is None else signal.SIG_IGN)


def _is_heeded(number: int) -> bool:
    return signal.getsignal(number) != signal.SIG_IGN


def _folder() -> Path | None:
    # Without a folder for temporary files some commands work all the same, and the others say what they lack.
    with suppress(OSError):
        return Path(tempfile.gettempdir()) / f"onnxptq.{os.getpid()}.{os.urandom(4).hex()}"
    return None


@contextmanager
def _temporary_files_in(folder: Path | None) -> Iterator[None]:
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        if folder is not None:
            with suppress(OSError):
                folder.mkdir(mode=0o700)
                tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before[1]
