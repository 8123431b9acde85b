"""What an engine is: something that runs jobs, each at most once at a time, and survives the death of a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from onnxptq.errors import OnnxptqError
from onnxptq.sweeps.job import Result, SweepJob


@dataclass(frozen=True)
class JobOutcome:
    """What became of a job.

    Attributes:
        job: which one.
        result: what it made.
        error: the job could not be done at all: the model or the data cannot be used, or nothing can be kept.
        died: how its worker died ("was killed by SIGKILL"), or "".
    """

    job: SweepJob
    result: Result = field(default_factory=Result)
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

    def identity(self, runtime: str) -> Mapping[str, str]:
        """What decides the numbers of a runtime, on the machine that will judge models on it.

        Raises:
            RuntimeUnavailableError: it does not load there, or there is no such machine.
        """
        ...

    def submit(self, job: SweepJob) -> None:
        """Takes a job."""
        ...

    def wait(self) -> JobOutcome:
        """The next job that ended, whichever it is. There must be one that was submitted and did not end."""
        ...

    def __enter__(self) -> Engine: ...

    def __exit__(self, *error: object) -> None: ...
