"""Ending a command in good order at any moment: signals become KeyboardInterrupt, and no temporary file is left."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import FrameType

from onnxptq.files import work_folder

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
    stop = Stop()
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGALRM")
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    # What is ignored (nohup, a background job) stays ignored.
    before = {number: signal.signal(number, stop.handle) for number in numbers if _is_heeded(number)}
    folder = ExitStack()
    try:
        with _temporary_files_in(_folder(folder)):
            yield stop
    finally:
        stop.over()
        folder.close()
        for number, handler in before.items():
            # Who stopped the command and goes on pressing Ctrl-C sees it end, not the traceback of how it ends.
            signal.signal(number, handler if stop.signal is None else signal.SIG_IGN)


def _is_heeded(number: int) -> bool:
    return signal.getsignal(number) != signal.SIG_IGN


def _folder(stack: ExitStack) -> Path | None:
    """The folder; the stack removes it. What killed runs have left of theirs goes first."""
    # Without a folder for temporary files some commands work all the same, and the others say what they lack.
    with suppress(OSError):
        return stack.enter_context(work_folder(Path(tempfile.gettempdir()), "onnxptq-run."))
    return None


@contextmanager
def _temporary_files_in(folder: Path | None) -> Iterator[None]:
    before = tempfile.tempdir, os.environ.get("TMPDIR")
    try:
        if folder is not None:
            tempfile.tempdir = os.environ["TMPDIR"] = str(folder)
        yield
    finally:
        tempfile.tempdir = before[0]
        if before[1] is None:
            os.environ.pop("TMPDIR", None)
        else:
            os.environ["TMPDIR"] = before[1]
