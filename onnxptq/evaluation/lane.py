"""A lane: one model on one runtime, in a process of its own that may die without harm to the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy.typing as npt

from onnxptq.cache import Room
from onnxptq.evaluation.run import BATCH, Candidate, Subject
from onnxptq.graphs import Model
from onnxptq.runtimes.isolated import TIMEOUT_SECONDS, Kernel, Opened, Worker, WorkerError
from onnxptq.runtimes.provider_options import Batches
from onnxptq.runtimes.providers import FALLBACK_REMEDY
from onnxptq.runtimes.selection import Runtime
from onnxptq.signature import Feeds, Signature

T = TypeVar("T")


@dataclass
class Lane:
    """One model on one runtime. What goes wrong is kept in `failure`, and then nothing more is asked of it.

    Attributes:
        model: the file.
        runtime: what it runs on.
        timeout_s: how long one request may take, in seconds.
        least_share: the least share of the weighted nodes that the provider must take, see `check_taken`.
        largest: most samples in one call of this lane, timed calls left out; an engine is built for so many.
        failure: what went wrong, or None.
        session: the session, once it was opened.
        baseline_bytes, peak_bytes: memory, once it was measured.
        kernels: of one run, once they were recorded.
    """

    model: Model
    runtime: Runtime
    timeout_s: float
    least_share: float = 0.0
    largest: int = BATCH
    failure: WorkerError | None = None
    session: Opened | None = None
    baseline_bytes: int | None = None
    peak_bytes: int | None = None
    kernels: list[Kernel] | None = None
    _worker: Worker | None = field(default=None, repr=False)
    _timed: dict[tuple[int | None, int | None], Opened] = field(default_factory=dict, repr=False)

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
        self._worker = start_worker(self.runtime, timeout_s=self.timeout_s)
        self.session = self._open(room, Batches(self.largest))
        if not self._builds_for_sizes:
            self._timed[None, None] = self.session
        check_taken(self.session, self.runtime, self.least_share)

    def look(self, feeds: Feeds, room: Room) -> None:
        """Runs once for its memory, and once in a session of its own for its kernels."""
        assert self.session is not None
        self.worker.run(self.session, feeds)
        self.baseline_bytes, self.peak_bytes = self.worker.memory() or (None, None)
        profiled = self._open(room, Batches(self.largest), profile=True)
        self.worker.run(profiled, feeds)
        self.kernels = self.worker.kernels(profiled)
        self.worker.close_session(profiled)

    def burst(self, feeds: Feeds, threads: int | None, room: Room) -> Callable[[int, int], list[float]]:
        """A function `(runs, warmup)` that times this lane. On a GPU inputs and outputs stay in its memory.

        What is built for sizes (TensorRT) has a session of its own for these feeds, which is tuned for them alone.
        """
        shapes = {name: array.shape for name, array in feeds.items()}
        size = len(next(iter(feeds.values()))) if self._builds_for_sizes else None

        def time(runs: int, warmup: int) -> list[float]:
            if (threads, size) not in self._timed:
                batches = None if size is None else Batches(size, size, feeds=shapes)
                self._timed[threads, size] = self._open(room, batches, threads=threads)
            device = "cuda" if self.runtime.on_gpu else None
            return self.worker.time(
                self._timed[threads, size],
                feeds,
                runs=runs,
                warmup=warmup,
                device=device,
                device_id=self.runtime.device if device else 0,
            )

        return time

    def clock(self) -> int | None:
        """MHz at which the GPU of this lane computes just now; None where it does not tell."""
        return self.worker.clock(self.runtime.device)

    @property
    def worker(self) -> Worker:
        """The process."""
        assert self._worker is not None, "load the lane first"
        return self._worker

    def close(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.close()

    @property
    def _builds_for_sizes(self) -> bool:
        return self.runtime.provider.ort_name == "TensorrtExecutionProvider"

    def _open(
        self, room: Room, batches: Batches | None = None, threads: int | None = None, profile: bool = False
    ) -> Opened:
        return open_in(self.worker, self.model, self.runtime, room, batches=batches, threads=threads, profile=profile)


def start_worker(runtime: Runtime, *, memory_bytes: int | None = None, timeout_s: float = TIMEOUT_SECONDS) -> Worker:
    """The process that a runtime needs: its interpreter, its environment variables, its plug-ins."""
    return Worker(
        runtime.python,
        memory_bytes=memory_bytes,
        timeout_s=timeout_s,
        variables=runtime.variables,
        plugins=runtime.plugins,
    )


def open_in(
    worker: Worker,
    model: Model,
    runtime: Runtime,
    room: Room,
    *,
    batches: Batches | None = None,
    threads: int | None = None,
    profile: bool = False,
) -> Opened:
    """A session of a model on a runtime in its worker. Raises WorkerError."""

    def attempt(sizes: Batches | None) -> Opened:
        return worker.open(
            model.core.path,
            runtime.session_providers(room, model, threads, sizes),
            optimization=runtime.optimization,
            threads=threads,
            profile=profile,
        )

    try:
        return attempt(batches)
    except WorkerError as error:
        # A graph of which TensorRT takes several parts has open shapes between them, which no profile can name.
        if batches is None or error.failure != "refused" or "profile" not in error.reason:
            raise
    return attempt(None)


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
    lanes = [Lane(model, runtime, timeout_s, LEAST_SHARE) for model in models]
    try:
        for lane in lanes:
            lane.attempt(partial(lane.load, room))
        yield [_settled(lane, allow_fallback) for lane in lanes]
    finally:
        for lane in lanes:
            lane.close()


LEAST_SHARE = 0.5
"""The least share of a model's weighted nodes that the provider must take where a model is judged on it: below it the
verdict would be one about the CPU, or about CUDA in TensorRT's place. `onnxptq compare --require-placement` asks for
more."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")
"""What the operators with weights have in their names: ConvTranspose, FusedConv, QLinearConv, MatMulInteger ... too."""


def check_taken(session: Opened, runtime: Runtime, least_share: float = 0.0) -> None:
    """Raises WorkerError ("refused") where the runtime's provider took no node of the model, or too few of them.

    Args:
        session: as it was opened.
        runtime: what it should run on.
        least_share: of the nodes with weights; of all nodes in a model that has none.
    """
    asked = runtime.provider.ort_name
    if session.placement is None:
        if session.providers[:1] not in ((), (asked,)):
            raise WorkerError("refused", f"all of the model would run on {session.providers[0]}")
        return
    heavy = [node for node in session.placement if any(kind in node.operator for kind in _WEIGHTED)]
    used = Counter(node.provider for node in heavy or session.placement)
    total = sum(used.values())
    others = " and ".join(sorted(set(used) - {asked}))
    everywhere = {node.provider for node in session.placement}
    if everywhere and asked not in everywhere:
        raise WorkerError("refused", f"all of the model would run on {' and '.join(sorted(everywhere))}")
    if total and used[asked] < least_share * total:
        what = "nodes with weights" if heavy else "nodes"
        raise WorkerError(
            "refused",
            f"it would take {used[asked]} of {total} {what} only, and {others} the others (at least "
            f"{100 * least_share:g} % are required)",
        )


def after_refusal(runtime: Runtime, failure: WorkerError) -> Runtime:
    """The CPU of this environment, where a fallback is allowed from a runtime that refused a model."""
    return runtime.fallen_back(f"{runtime.name} does not take the model: {failure.reason}.")


def _settled(lane: Lane, allow_fallback: bool | None) -> Candidate:
    # A crash or a hang may be the model's fault: it would end this process too.
    if allow_fallback is None or lane.failure is None or lane.failure.failure != "refused":
        return LaneSubject(lane)
    if allow_fallback:
        return Subject(lane.model, after_refusal(lane.runtime, lane.failure))
    lane.failure.remedy = f"{lane.failure.remedy} {FALLBACK_REMEDY}".strip()
    return LaneSubject(lane)
