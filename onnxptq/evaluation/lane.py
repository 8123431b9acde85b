"""A lane: one model on one runtime, in a process of its own that may die without harm to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy.typing as npt

from onnxptq.cache import Room
from onnxptq.evaluation.run import Candidate, Subject
from onnxptq.graphs import Model
from onnxptq.runtimes.isolated import TIMEOUT_SECONDS, Kernel, Opened, Worker, WorkerError
from onnxptq.runtimes.providers import FALLBACK_REMEDY
from onnxptq.runtimes.selection import Runtime
from onnxptq.tasks import Feeds, Signature

T = TypeVar("T")


@dataclass
class Lane:
    """One model on one runtime. What goes wrong is kept in `failure`, and then nothing more is asked of it.

    Attributes:
        model: the file.
        runtime: what it runs on.
        timeout_s: how long one request may take, in seconds.
        failure: what went wrong, or None.
        session: the session, once it was opened.
        baseline_bytes, peak_bytes: memory, once it was measured.
        kernels: of one run, once they were recorded.
    """

    model: Model
    runtime: Runtime
    timeout_s: float
    failure: WorkerError | None = None
    session: Opened | None = None
    baseline_bytes: int | None = None
    peak_bytes: int | None = None
    kernels: list[Kernel] | None = None
    _worker: Worker | None = field(default=None, repr=False)
    _threaded: dict[int | None, Opened] = field(default_factory=dict, repr=False)

    def attempt(self, step: Callable[[], T]) -> T | None:
        """What `step` gives, or None where the lane has failed or fails now."""
        if self.failure is not None:
            return None
        try:
            return step()
        except WorkerError as error:
            self.failure = error
            return None

    def load(self, room: Room) -> None:
        """Starts the process and opens the session. Raises WorkerError where it is not where it should be."""
        self._worker = Worker(self.runtime.python, timeout_s=self.timeout_s)
        self.session = self._threaded[None] = self._open(room)
        check_taken(self.session, self.runtime)

    def look(self, feeds: Feeds, room: Room) -> None:
        """Runs once for its memory, and once in a session of its own for its kernels."""
        assert self.session is not None
        self.worker.run(self.session, feeds)
        self.baseline_bytes, self.peak_bytes = self.worker.memory() or (None, None)
        profiled = self._open(room, profile=True)
        self.worker.run(profiled, feeds)
        self.kernels = self.worker.kernels(profiled)
        self.worker.close_session(profiled)

    def burst(self, feeds: Feeds, threads: int | None, room: Room) -> Callable[[int, int], list[float]]:
        """A function `(runs, warmup)` that times this lane. On a GPU inputs and outputs stay in its memory."""

        def time(runs: int, warmup: int) -> list[float]:
            if threads not in self._threaded:
                self._threaded[threads] = self._open(room, threads=threads)
            device = "cuda" if self.runtime.on_gpu else None
            return self.worker.time(
                self._threaded[threads],
                feeds,
                runs=runs,
                warmup=warmup,
                device=device,
                device_id=self.runtime.device if device else 0,
            )

        return time

    @property
    def worker(self) -> Worker:
        """The process."""
        assert self._worker is not None, "load the lane first"
        return self._worker

    def close(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.close()

    def _open(self, room: Room, threads: int | None = None, profile: bool = False) -> Opened:
        return self.worker.open(
            self.model.core.path,
            self.runtime.session_providers(room, self.model.digest, threads),
            optimization=self.runtime.optimization,
            threads=threads,
            profile=profile,
        )


@dataclass(frozen=True)
class LaneSubject:
    """A lane as `onnxptq.evaluation.run.predict` judges it."""

    lane: Lane

    @property
    def model(self) -> Model:
        """The file."""
        return self.lane.model

    @property
    def runtime(self) -> Runtime:
        """What it runs on."""
        return self.lane.runtime

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the loaded model."""
        assert self.lane.session is not None, "load the lane first"
        return self.lane.session.signature

    def open(self) -> LaneSubject:
        """Itself: the lane is loaded. Raises what made it fail."""
        if self.lane.failure is not None:
            raise self.lane.failure
        return self

    def run(self, feeds: Feeds) -> list[npt.NDArray[Any]]:
        """All outputs for `feeds`."""
        assert self.lane.session is not None, "load the lane first"
        return self.lane.worker.run(self.lane.session, feeds)


@contextmanager
def candidates(
    models: Sequence[Model],
    runtime: Runtime,
    room: Room,
    timeout_s: float = TIMEOUT_SECONDS,
    *,
    allow_fallback: bool | None = None,
) -> Iterator[list[Candidate]]:
    """The models on a runtime: the CPU of this environment in this process, any other in processes of their own.

    A model that cannot be loaded there is among them; it raises why when it is judged. With `allow_fallback` one that
    the runtime refuses is judged on the CPU of this environment instead, and says why; None is for callers who leave
    the user no choice.
    """
    if runtime.here:
        yield [Subject(model, runtime) for model in models]
        return
    lanes = [Lane(model, runtime, timeout_s) for model in models]
    try:
        for lane in lanes:
            lane.attempt(partial(lane.load, room))
        yield [_settled(lane, allow_fallback) for lane in lanes]
    finally:
        for lane in lanes:
            lane.close()


def check_taken(session: Opened, runtime: Runtime) -> None:
    """Raises WorkerError ("refused") where the runtime's provider took no node of the model."""
    used = session.providers[:1]
    if session.placement is not None:
        used = tuple(sorted({node.provider for node in session.placement}))
    if used and runtime.provider.ort_name not in used:
        raise WorkerError("refused", f"all of the model would run on {' and '.join(used)}")


def after_refusal(runtime: Runtime, failure: WorkerError) -> Runtime:
    """The CPU of this environment, where a fallback is allowed from a runtime that refused a model."""
    return runtime.fallen_back(f"{runtime.name} does not take the model: {failure.reason}.")


def _settled(lane: Lane, allow_fallback: bool | None) -> Candidate:
    # A crash or a hang may be the model's fault: it would end this process too.
    if allow_fallback is None or lane.failure is None or lane.failure.failure != "refused":
        return LaneSubject(lane)
    if allow_fallback:
        return Subject(lane.model, after_refusal(lane.runtime, lane.failure))
    lane.failure.remedy = FALLBACK_REMEDY
    return LaneSubject(lane)
