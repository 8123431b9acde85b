"""Data that nobody vouches for is opened in a process with limits on time and memory, one for all that a command reads.

A crash or an endless loop in Pillow, Arrow or zlib is no exception, and a file of a few bytes can ask for all memory.
What comes back is plain: pixels, the names of files that were written, or an error. The process is `_decoder.py`.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal

from onnxptq.data._decoder import read_message, write_message

Failure = Literal["refused", "crashed", "hung", "out of memory"]

IMAGE_SECONDS = 60.0
"""For one image: a thousand times what a large photograph takes."""

BASE_SECONDS = 120.0
BYTES_PER_SECOND = 2**20
"""For a file: a tenth of the speed at which the slowest reader (CSV) works on an old machine."""

BASE_MEMORY = 4 * 2**30
MEMORY_PER_CORE = 128 * 2**20
"""Address space, not memory in use: a thread of Arrow reserves a stack and an arena whether it fills them or not."""

_OUT_OF_MEMORY = ("bad_alloc", "malloc", "realloc", "out of memory", "cannot allocate memory", "unable to allocate")


class DecodeError(Exception):
    """Data could not be opened.

    Attributes:
        failure: "refused" where the library said no, else how its process ended.
        reason: a sentence without a full stop at its end.
    """

    def __init__(self, failure: Failure, reason: str) -> None:
        super().__init__(reason)
        self.failure = failure
        self.reason = reason


def ask(
    operation: str,
    payloads: Sequence[bytes] = (),
    *,
    seconds: float = IMAGE_SECONDS,
    memory: int | None = None,
    written: int | None = None,
    **arguments: Any,
) -> tuple[Any, list[bytes]]:
    """What the decoder answers to one of its operations (`_decoder.OPERATIONS`), and the bytes that come with it.

    Args:
        operation: its name.
        payloads: encoded data.
        seconds: after which it is killed.
        memory: address space that it may take beyond what is in use; None is `memory_for(0)`.
        written: bytes of a file that it may write; None: no limit.
        arguments: of the operation, JSON types.

    Raises:
        DecodeError: it refused, crashed, did not answer in time or needed too much memory.
    """
    global _decoder
    header = {
        "do": operation,
        "seconds": seconds,
        "memory": memory_for(0) if memory is None else memory,
        "written": written,
        **arguments,
    }
    with _lock:
        if _decoder is None or _decoder.owner != os.getpid():
            _decoder = _Decoder()
        decoder = _decoder
        try:
            return decoder.ask(header, payloads)
        except DecodeError as error:
            if error.failure != "refused":
                _decoder = None
            raise
        except BaseException:  # Ctrl-C: the answer that is still to come would be taken for the next one's.
            _decoder = None
            decoder.kill()
            raise


def memory_for(size: int) -> int:
    """Address space to allow for data of `size` bytes."""
    return BASE_MEMORY + MEMORY_PER_CORE * (os.cpu_count() or 1) + 4 * size


def seconds_for(size: int) -> float:
    """Time to allow for a file of `size` bytes."""
    return BASE_SECONDS + size / BYTES_PER_SECOND


_decoder: _Decoder | None = None
_lock = threading.Lock()
"""Threads take turns: one request, one answer."""


class _Decoder:
    """The process."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the process
        # -P: the folder of the script holds modules whose names must not shadow anybody's.
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(Path(__file__).with_name("_decoder.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl-C is for us; the decoder ends when we close its stdin.
            start_new_session=sys.platform != "win32",
        )
        _widen(self._process.stdin)
        _widen(self._process.stdout)
        atexit.register(self.kill)

    def ask(self, header: Mapping[str, Any], payloads: Sequence[bytes]) -> tuple[Any, list[bytes]]:
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            write_message(self._process.stdin, header, payloads)
            message = read_message(self._process.stdout)
        except OSError:
            message = None
        if message is None:
            raise self._died(header["seconds"])
        reply, data = message
        if "error" in reply:
            text = f"{reply['error']}"
            if reply["type"] == "MemoryError" or any(sign in text.lower() for sign in _OUT_OF_MEMORY):
                raise DecodeError("out of memory", f"it needs more memory than data of its size should ({text})")
            raise DecodeError("refused", text)
        return reply["answer"], data

    def _died(self, seconds: float) -> DecodeError:
        self.kill(grace=True)
        code = self._process.returncode
        if sys.platform != "win32" and code == -signal.SIGALRM:
            return DecodeError("hung", f"reading it did not end within {seconds:g} seconds")
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        self._log.close()
        if any(sign in " ".join(lines[-20:]).lower() for sign in _OUT_OF_MEMORY):
            return DecodeError("out of memory", "it needs more memory than data of its size should")
        return DecodeError("crashed", f"the library that reads it {_ending(code)}")

    def kill(self, grace: bool = False) -> None:
        """Ends the process; with `grace` one that has closed its stdout may end by itself."""
        if os.getpid() != self.owner:
            return
        atexit.unregister(self.kill)
        if grace:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(10)
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if stream is not None:
                    stream.close()


def _widen(stream: IO[bytes] | None) -> None:
    """A pipe of 1 MiB, so that pixels need few turns between the two processes. Linux only."""
    with contextlib.suppress(ImportError, AttributeError, OSError):
        import fcntl

        if stream is not None:
            fcntl.fcntl(stream, fcntl.F_SETPIPE_SZ, 2**20)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended its process with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"crashed ({signal.Signals(-code).name})"
    return f"crashed (signal {-code})"
