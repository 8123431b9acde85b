"""What an engine is: something that runs jobs, each at most once at a time, and survives the death of a worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from onnxptq.errors import OnnxptqError
from onnxptq.sweeps.job import Job
from onnxptq.sweeps.study import Cell


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        job: which one.
        cells: its results, in its order; () where it has none.
        error: the job could not be done at all: the model or the data cannot be used, or nothing can be kept.
        died: how its worker died ("was killed by SIGKILL"), or "".
    """

    job: Job
    cells: tuple[Cell, ...] = ()
    error: OnnxptqError | None = None
    died: str = ""


class Engine(Protocol):
    """Runs jobs on some number of workers. Use it as a context manager: leaving it ends the workers."""

    @property
    def workers(self) -> int:
        """How many jobs run at a time."""
        ...

    @property
    def threads(self) -> int:
        """Threads inside one operator of each worker's sessions."""
        ...

    def submit(self, job: Job) -> None:
        """Takes a job."""
        ...

    def wait(self) -> Outcome:
        """The next job that ended, whichever it is. There must be one that was submitted and did not end."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error: object) -> None: ...
