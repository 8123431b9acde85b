"""Calls in a child process that was forked: a crash or a hang is an outcome of one input, and the next one is tried."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from _counts import COUNTS

from onnxptq.errors import OnnxptqError

SECONDS = 60
"""For one input, on a machine where much else runs: a thousand times what it takes."""


def outcomes(call: Callable[[Any], object], inputs: Iterable[Any]) -> Counter[str]:
    """How often a call accepted its input, and how often it refused it with an error of ours.

    Raises:
        AssertionError: a call crashed, hung, or raised anything else; with the number of the input and its beginning.
    """
    pending, found = list(enumerate(inputs)), Counter()
    while pending:
        done, failure = _child(call, pending, found)
        assert failure is None, f"input {pending[done][0]} {_short(pending[done][1])}: {failure}"
        pending = pending[done:]
    COUNTS.update(found)
    return found


def _child(
    call: Callable[[Any], object], pending: list[tuple[int, Any]], found: Counter[str]
) -> tuple[int, str | None]:
    """How many inputs were done, and what went wrong with the next one."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _serve(call, pending, writing)
    os.close(writing)
    done = 0
    with os.fdopen(reading, encoding="utf-8") as lines:
        for line in lines:
            outcome = json.loads(line)
            if outcome not in ("accepted", "refused"):
                os.waitpid(pid, 0)
                return done, outcome
            found[outcome] += 1
            done += 1
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status == 0 and done == len(pending):
        return done, None
    return done, f"hung for {SECONDS} s" if status == -signal.SIGALRM else f"the process ended with {status}"


def _serve(call: Callable[[Any], object], pending: list[tuple[int, Any]], writing: int) -> None:
    try:
        for _, value in pending:
            signal.alarm(SECONDS)
            os.write(writing, (json.dumps(_outcome(call, value)) + "\n").encode())
        signal.alarm(0)
    finally:
        # Nothing of pytest's must run twice.
        os._exit(0)


def _outcome(call: Callable[[Any], object], value: Any) -> str:
    try:
        call(value)
    except OnnxptqError as error:
        text = str(error)
        try:
            text.encode(errors="backslashreplace")
        except UnicodeError:
            return "an error that cannot be shown"
        return "refused" if text.strip() else "refused without a word"
    except BaseException as error:
        return f"{type(error).__name__}: {error!r}"[:2000]
    return "accepted"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 600 else f"{text[:600]}..."
