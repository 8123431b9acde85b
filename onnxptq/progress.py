"""How callers are told of long work: by stage, and as a count of what has been done since."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]
"""`(stage, done, total)`: what is being worked on, how much of it is done, and how much there is."""

Advance = Callable[[int], None]
"""How much was done since the last call: samples, rows or variants."""


def silent(stage: str, done: int, total: int) -> None:
    """A `Progress` that tells nobody."""


def uncounted(done: int) -> None:
    """An `Advance` that tells nobody."""


def counted(progress: Progress, stage: str, total: int) -> Advance:
    """Begins a stage, and counts what is done of it.

    Args:
        progress: told of the stage now, unless there is nothing to do, and at each advance.
        stage: "calibrating", "evaluating" ...
        total: how much there is to do.
    """
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, total)

    if total:
        progress(stage, 0, total)
    return advance
