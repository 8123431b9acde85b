"""Models that are checked run in processes of their own, with limits: a crash in a native library is no exception.

`Isolation` keeps one worker for each model and runtime; its subjects take the place of those that run in this process.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from types import TracebackType
from typing import Any, TypeVar

import numpy.typing as npt

from onnxptq.cache import cache_room
from onnxptq.errors import ModelError, OnnxptqError
from onnxptq.evaluation import Subject
from onnxptq.evaluation.lane import LEAST_SHARE, after_refusal, check_taken, open_in, start_worker
from onnxptq.evaluation.run import BATCH
from onnxptq.graphs import Model
from onnxptq.runtimes import Session
from onnxptq.runtimes.isolated import Opened, Worker, WorkerError
from onnxptq.runtimes.provider_options import Batches
from onnxptq.runtimes.providers import FALLBACK_REMEDY
from onnxptq.runtimes.selection import CPU, Runtime
from onnxptq.signature import Feeds

T = TypeVar("T")

SECONDS = 120.0
"""How long loading a model, or one batch, may take."""

_BASE_BYTES = 4 * 2**30
_BYTES_PER_CORE = 128 * 2**20
_TIMES_MODEL = 8
"""Address space, not memory in use: a thread reserves a stack and an arena whether it fills them or not."""


@dataclass(frozen=True)
class Limits:
    """What a model may take.

    Attributes:
        seconds: for loading, and for each batch.
        memory_bytes: address space beyond what ONNX Runtime takes alone (Linux, providers that run on the CPU); None
            is 4 GiB, 128 MiB a core and 8 times the model.
    """

    seconds: float = SECONDS
    memory_bytes: int | None = None

    def bytes_for(self, model: Model) -> int:
        """The limit for one model."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return _BASE_BYTES + _BYTES_PER_CORE * (os.cpu_count() or 1) + _TIMES_MODEL * model.size


@dataclass(frozen=True)
class _Lane:
    """A model in its worker."""

    worker: Worker
    opened: Opened
    runtime: Runtime


class IsolatedSession(Session):
    """A session whose model runs in a worker; `native` is the lane."""

    def run(self, feeds: Feeds) -> list[npt.NDArray[Any]]:
        """As `Session.run`. Raises ModelError where the worker died, did not answer or refused."""
        lane: _Lane = self.native
        return _explained(lambda: lane.worker.run(lane.opened, feeds), self.model.name, "runs", lane.runtime)


@dataclass(frozen=True)
class IsolatedSubject(Subject):
    """A model that is judged in a worker; `allow_fallback` as in `Isolation.subject`."""

    isolation: Isolation = field(kw_only=True)
    allow_fallback: bool | None = field(default=None, kw_only=True)

    def open(self) -> Session:
        """A session of the model in its worker."""
        return self.isolation.session(self)


class Isolation:
    """The workers of one check. Use it as a context manager; leaving it ends them."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._stack = ExitStack()
        self._lanes: dict[tuple[str, str, int | None], _Lane] = {}

    def __enter__(self) -> Isolation:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def subject(self, model: Model, runtime: Runtime = CPU, *, allow_fallback: bool | None = None) -> IsolatedSubject:
        """A model to judge on a runtime; with `allow_fallback` on the CPU where the runtime does not take it.

        Args:
            model: the file.
            runtime: what it runs on.
            allow_fallback: what the user chose, or None where there is nothing to choose.

        Raises:
            ModelError: it was tried, for the fallback, and crashed, hung or took too much memory.
        """
        subject = IsolatedSubject(model, runtime, isolation=self, allow_fallback=allow_fallback)
        if not allow_fallback or runtime.here:
            return subject
        try:
            self._lane(subject)
        except ModelError as error:
            if not isinstance(error.__cause__, WorkerError) or error.__cause__.failure != "refused":
                raise
            return replace(subject, runtime=after_refusal(runtime, error.__cause__))
        return subject

    def session(self, subject: IsolatedSubject) -> Session:
        """The session of a subject, in its worker.

        Raises:
            ModelError: the model cannot be loaded within the limits.
        """
        lane = self._lane(subject)
        return IsolatedSession(
            model=subject.model.path,
            requested=subject.runtime.name,
            providers=lane.opened.providers,
            signature=lane.opened.signature,
            placement=self._placement(lane),
            fallback_reason=lane.runtime.fallback_reason,
            native=lane,
        )

    def timer(self, subject: IsolatedSubject, feeds: Feeds) -> Callable[[int, int], list[float]]:
        """`(runs, warmup)` -> seconds of each run of the subject on `feeds`."""
        lane = self._lane(subject)
        name = subject.model.path.name
        device, number = ("cuda", lane.runtime.device) if lane.runtime.on_gpu else (None, 0)

        def burst(runs: int, warmup: int) -> list[float]:
            return _explained(
                lambda: lane.worker.time(lane.opened, feeds, runs=runs, warmup=warmup, device=device, device_id=number),
                name,
                "runs",
                lane.runtime,
            )

        return burst

    def _placement(self, lane: _Lane) -> dict[str, int] | None:
        nodes = lane.opened.placement
        return None if nodes is None else dict(Counter(node.provider for node in nodes))

    def _lane(self, subject: IsolatedSubject) -> _Lane:
        key = (subject.model.digest, subject.runtime.name, subject.threads)
        if key not in self._lanes:
            self._lanes[key] = self._open(subject)
        return self._lanes[key]

    def _open(self, subject: IsolatedSubject) -> _Lane:
        runtime = subject.runtime
        # CUDA reserves far more address space than it uses.
        limit = self._limits.bytes_for(subject.model) if runtime.provider == CPU.provider else None
        name = subject.model.path.name
        start = partial(start_worker, runtime, memory_bytes=limit, timeout_s=self._limits.seconds)
        offered = subject.allow_fallback is False
        worker = self._stack.enter_context(_explained(start, name, "is loaded", runtime, offered))
        opened = _explained(
            lambda: open_in(
                worker, subject.model, runtime, cache_room(), batches=Batches(BATCH), threads=subject.threads
            ),
            name,
            "is loaded",
            runtime,
            offered,
        )
        _explained(partial(check_taken, opened, runtime, LEAST_SHARE), name, "is loaded", runtime, offered)
        return _Lane(worker, opened, runtime)


_REMEDIES = {
    "refused": "Check it with onnx.checker, or export it again.",
    "crashed": "It is not fit to be deployed with this ONNX Runtime; try another version or provider.",
    "hung": "Where it is only slow, give it more time with --time-limit SECONDS.",
    "out of memory": "Where it really needs more, allow it with --memory-limit GIB.",
    "missing": "Install onnxruntime again; `onnxptq providers` shows what is wrong.",
}


def _explained(work: Callable[[], T], model: str, doing: str, runtime: Runtime, fallback_offered: bool = False) -> T:
    """The result of `work`. Raises ModelError, in the user's words, where the worker fails."""
    try:
        return work()
    except WorkerError as error:
        remedy = _REMEDIES[error.failure]
        if error.failure == "refused" and not runtime.here:
            remedy = FALLBACK_REMEDY if fallback_offered else "Try another provider, or another version of it."
        remedy = error.remedy or remedy
        reason: OnnxptqError = ModelError(
            f"{model} cannot be judged: while it {doing} on {runtime.name}, {error.reason}. {remedy}"
        )
        raise reason from error
