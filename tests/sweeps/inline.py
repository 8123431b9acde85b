"""A small study of the built-in model, and an engine that works in this process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxptq.sweeps.engine import JobOutcome
from onnxptq.sweeps.job import SweepJob
from onnxptq.sweeps.local import answer, identity_here
from onnxptq.sweeps.plan import Plan
from onnxptq.sweeps.study import CellKey

SMALL = Plan(
    title="small",
    calibrations=("clean", "dark@3"),
    methods=("minmax", "percentile:percentile=99.0"),
    corruptions=("clean",),
    calib_size=16,
    eval_size=200,
)
"""Four cells, each a fraction of a second."""


@dataclass
class InlineEngine:
    """Runs jobs in this process; those of `deadly` cells kill their (imaginary) worker.

    Attributes:
        done: jobs that were run.
    """

    deadly: frozenset[CellKey] = frozenset()
    workers: int = 2
    threads: int = 1
    done: list[SweepJob] = field(default_factory=list)
    _waiting: list[SweepJob] = field(default_factory=list)

    def identity(self, runtime: str) -> Mapping[str, str]:
        return identity_here(runtime)

    def submit(self, job: SweepJob) -> None:
        self._waiting.append(job)

    def wait(self) -> JobOutcome:
        job = self._waiting.pop(0)
        if self.deadly.intersection(job.cells):
            return JobOutcome(job, died="was killed by SIGSEGV")
        self.done.append(job)
        return JobOutcome(job, *answer(job))

    def __enter__(self) -> InlineEngine:
        return self

    def __exit__(self, *error: object) -> None: ...

    @property
    def cells(self) -> list[CellKey]:
        """The cells that were made."""
        return [key for job in self.done for key in job.cells]
