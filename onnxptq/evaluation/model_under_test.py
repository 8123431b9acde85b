"""A model under test: one model on one runtime, in this process or in a worker that may die without harm.

`WorkerPool` hands out either. A worker dies, hangs or refuses in `ModelInWorker`, which keeps why;
`explained` says it in the user's words.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, TypeVar

import numpy.typing as npt

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.evaluation.sample_runner import BATCH, Runner
from onnxptq.evaluation.worker_session import LEAST_SHARE, check_taken, open_in, start_worker
from onnxptq.graphs import Model
from onnxptq.runtimes import open_session
from onnxptq.runtimes.isolated import TIMEOUT_SECONDS, Kernel, Opened, Worker, WorkerError
from onnxptq.runtimes.latency import Burst
from onnxptq.runtimes.provider_options import Batches
from onnxptq.runtimes.providers import FALLBACK_REMEDY
from onnxptq.runtimes.selection import CPU, Runtime
from onnxptq.signature import Feeds, Signature

T = TypeVar("T")

_SECONDS = 120.0
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

    seconds: float = _SECONDS
    memory_bytes: int | None = None

    def bytes_for(self, model: Model) -> int:
        """The limit for one model."""
        if self.memory_bytes is not None:
            return self.memory_bytes
        return _BASE_BYTES + _BYTES_PER_CORE * (os.cpu_count() or 1) + _TIMES_MODEL * model.size


@dataclass(eq=False)
class ModelUnderTest:
    """A model that is judged in this process, and what it runs on: a runtime of this environment.

    Attributes:
        model: the file.
        runtime: what it runs on.
        threads: threads inside one operator; None is ONNX Runtime's own choice.
    """

    model: Model
    runtime: Runtime = CPU
    threads: int | None = None

    def open(self) -> Runner:
        """The model, ready to run.

        Raises:
            OnnxptqError: it cannot be loaded; a WorkerError where a worker died, hung or refused.
        """
        return open_session(
            self.model.core.path,
            self.runtime.provider.name,
            threads=self.threads,
            optimization=self.runtime.optimization,
            options=self.runtime.options,
        )


@dataclass(frozen=True)
class Footprint:
    """What one run of a model takes.

    Attributes:
        baseline_bytes, peak_bytes: memory of the process before the run and at its peak; None where it is not known.
        kernels: what was run.
    """

    baseline_bytes: int | None
    peak_bytes: int | None
    kernels: list[Kernel]


@dataclass(eq=False)
class ModelInWorker(ModelUnderTest):
    """A model that is judged in a worker of its own; once opened it is what runs it.

    What goes wrong is kept in `failure`, and whatever is asked of the model then raises it again.

    Attributes:
        cache: where engines that a provider builds are kept.
        timeout_s: how long one request may take, in seconds.
        memory_bytes: address space beyond what ONNX Runtime takes alone; None is no limit.
        least_share: the least share of the weighted nodes that the provider must take, see `check_taken`.
        fallback_offered: whether the user may still be advised to allow a fallback.
        failure: what went wrong, or None.
        session: the session, once it was opened.
    """

    cache: Cache = field(kw_only=True)
    timeout_s: float = field(default=TIMEOUT_SECONDS, kw_only=True)
    memory_bytes: int | None = field(default=None, kw_only=True)
    least_share: float = field(default=LEAST_SHARE, kw_only=True)
    fallback_offered: bool = field(default=False, kw_only=True)
    failure: WorkerError | None = field(default=None, init=False)
    session: Opened | None = field(default=None, init=False)
    _worker: Worker | None = field(default=None, init=False, repr=False)
    _timed: dict[tuple[int | None, int | None], Opened] = field(default_factory=dict, init=False, repr=False)

    def open(self) -> ModelInWorker:
        """Itself, with a worker that has loaded the model. Raises WorkerError where it is not where it should be."""
        if self.failure is not None:
            raise self.failure
        if self.session is None:
            try:
                self._load()
            except WorkerError as error:
                if error.failure == "refused" and self.fallback_offered:
                    error.remedy = f"{error.remedy} {FALLBACK_REMEDY}".strip()
                self.failure = error
                raise
        return self

    def attempt(self, step: Callable[[], T]) -> T | None:
        """What `step` gives, or None where the model has failed or fails now."""
        if self.failure is not None:
            return None
        try:
            return step()
        except WorkerError as error:
            self.failure = error
            return None

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the loaded model."""
        return self.opened.signature

    @property
    def placement(self) -> dict[str, int] | None:
        """How many nodes each provider took, by ONNX Runtime's name; None where this ONNX Runtime cannot tell."""
        nodes = self.opened.placement
        return None if nodes is None else dict(Counter(node.provider for node in nodes))

    def run(self, feeds: Feeds) -> list[npt.NDArray[Any]]:
        """All outputs for `feeds`, in the order of the signature. Raises WorkerError."""
        return self.worker.run(self.opened, feeds)

    def footprint(self, feeds: Feeds) -> Footprint:
        """Runs once for its memory, and once in a session of its own for its kernels. Raises WorkerError."""
        self.worker.run(self.opened, feeds)
        baseline, peak = self.worker.memory() or (None, None)
        profiled = self._session(Batches(BATCH), profile=True)
        self.worker.run(profiled, feeds)
        kernels = self.worker.kernels(profiled)
        self.worker.close_session(profiled)
        return Footprint(baseline, peak, kernels)

    def burst(self, feeds: Feeds, threads: int | None = None) -> Burst:
        """What times this model. On a GPU inputs and outputs stay in its memory.

        What is built for sizes (TensorRT) has a session of its own for these feeds, which is tuned for them alone.

        Args:
            feeds: what it is run on.
            threads: instead of the model's own number.
        """
        shapes = {name: array.shape for name, array in feeds.items()}
        size = len(next(iter(feeds.values()))) if self._builds_for_sizes else None
        key = (threads or self.threads, size)

        def time(runs: int, warmup: int) -> list[float]:
            if key not in self._timed:
                batches = None if size is None else Batches(size, size, feeds=shapes)
                self._timed[key] = self._session(batches, threads=key[0])
            device = "cuda" if self.runtime.on_gpu else None
            return self.worker.time(
                self._timed[key],
                feeds,
                runs=runs,
                warmup=warmup,
                device=device,
                device_id=self.runtime.device if device else 0,
            )

        return time

    def clock(self) -> int | None:
        """MHz at which the GPU of this model computes just now; None where it does not tell."""
        return self.worker.clock(self.runtime.device)

    @property
    def worker(self) -> Worker:
        """The process."""
        assert self._worker is not None, "open the model first"
        return self._worker

    @property
    def opened(self) -> Opened:
        """The session."""
        assert self.session is not None, "open the model first"
        return self.session

    def close(self) -> None:
        """Ends the process."""
        if self._worker is not None:
            self._worker.close()

    def _load(self) -> None:
        self._worker = start_worker(self.runtime, memory_bytes=self.memory_bytes, timeout_s=self.timeout_s)
        self.session = self._session(Batches(BATCH), threads=self.threads)
        if not self._builds_for_sizes:
            self._timed[self.threads, None] = self.session
        check_taken(self.session, self.runtime, self.least_share)

    @property
    def _builds_for_sizes(self) -> bool:
        return self.runtime.provider.ort_name == "TensorrtExecutionProvider"

    def _session(self, batches: Batches | None, threads: int | None = None, profile: bool = False) -> Opened:
        return open_in(
            self.worker, self.model, self.runtime, self.cache, batches=batches, threads=threads, profile=profile
        )


class WorkerPool:
    """Models under test and their workers. Use it as a context manager; leaving it ends the workers.

    Args:
        cache: where engines that a provider builds are kept.
        limits: what a model in a worker may take; None gives it minutes, since some providers build engines first, and
            all memory.
    """

    def __init__(self, cache: Cache, limits: Limits | None = None) -> None:
        self._cache = cache
        self._limits = limits
        self._stack = ExitStack()
        self._models: dict[tuple[str, str, str, bool, int | None], ModelInWorker] = {}

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def model(self, model: Model, runtime: Runtime = CPU, *, allow_fallback: bool | None = None) -> ModelUnderTest:
        """As `in_worker`, but a model that runs on the CPU of this environment does so in this process."""
        one = self.in_worker(model, runtime, allow_fallback=allow_fallback)
        return ModelUnderTest(model, one.runtime) if one.runtime.here else one

    def in_worker(
        self, model: Model, runtime: Runtime = CPU, *, threads: int | None = None, allow_fallback: bool | None = None
    ) -> ModelInWorker:
        """A model to judge in a worker, which starts once it is judged; the same model asked for twice is one.

        A model that cannot be loaded raises why when it is judged, and not here.

        Args:
            model: the file.
            runtime: what it runs on.
            threads: threads inside one operator; None is ONNX Runtime's own choice.
            allow_fallback: judge a model that the runtime refuses on the CPU of this environment instead, and say why.
                None is for callers who leave the user no choice.
        """
        key = (str(model.path), model.digest, runtime.name, runtime.here, threads)
        if key not in self._models:
            self._models[key] = self._new(model, runtime, threads)
            self._models[key].fallback_offered = allow_fallback is False and not runtime.here
            self._stack.callback(self._models[key].close)
        one = self._models[key]
        if allow_fallback and not runtime.here:
            one.attempt(one.open)
            # A crash or a hang may be the model's fault: it would end this process too.
            if one.failure is not None and one.failure.failure == "refused":
                reason = f"{runtime.name} does not take the model: {one.failure.reason}."
                return self.in_worker(model, runtime.fallen_back(reason), threads=threads)
        return one

    def _new(self, model: Model, runtime: Runtime, threads: int | None) -> ModelInWorker:
        limits = self._limits
        if limits is None:
            return ModelInWorker(model, runtime, threads, cache=self._cache)
        # CUDA reserves far more address space than it uses.
        memory = limits.bytes_for(model) if runtime.provider == CPU.provider else None
        return ModelInWorker(model, runtime, threads, cache=self._cache, timeout_s=limits.seconds, memory_bytes=memory)


_REMEDIES = {
    "crashed": "It is not fit to be deployed with this ONNX Runtime; try another version or provider.",
    "hung": "Where it is only slow, give it more time with `onnxptq check --time-limit SECONDS`.",
    "out of memory": "Where it really needs more, allow it with `onnxptq check --memory-limit GIB`.",
    "missing": "Install onnxruntime again; `onnxptq providers` shows what is wrong.",
}


def explained(error: WorkerError, subject: ModelUnderTest, doing: str) -> ModelError:
    """A worker's error in the user's words: it does not say itself which model it was.

    Args:
        error: what went wrong.
        subject: what was judged.
        doing: what was asked of it: "is loaded", "runs".
    """
    refused = "Check it with onnx.checker, or export it again."
    if not subject.runtime.here:
        refused = "Try another provider, or another version of it."
    remedy = error.remedy or _REMEDIES.get(error.failure, refused)
    return ModelError(
        f"{subject.model.path.name} cannot be judged: while it {doing} on {subject.runtime.name}, {error.reason}. "
        f"{remedy}"
    )


@contextmanager
def explaining(subject: ModelUnderTest, doing: str) -> Iterator[None]:
    """Raises a worker's error as `explained` says it."""
    try:
        yield
    except WorkerError as error:
        raise explained(error, subject, doing) from error
