"""The engine of one machine: worker processes that take job after job, and are replaced when they die."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from onnxptq.cache import user_cache
from onnxptq.errors import OnnxptqError, OutputError
from onnxptq.runtimes.selection import ready, resolve_runtime
from onnxptq.sweeps.engine import JobOutcome
from onnxptq.sweeps.job import Result, SweepJob, run_job

_SECONDS_TO_END = 5.0
"""How long a worker may take to end by itself before it is killed."""


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    job: SweepJob | None = None


@dataclass
class LocalEngine:
    """Processes on this machine, started when the first job comes.

    Attributes:
        workers: how many.
    """

    workers: int
    _waiting: deque[SweepJob] = field(default_factory=deque)
    _pool: list[_Worker] = field(default_factory=list)

    @property
    def threads(self) -> int:
        """So many that all workers together use each core once."""
        return max(1, cores() // self.workers)

    def identity(self, runtime: str) -> Mapping[str, str]:
        """Of a runtime on this machine."""
        return identity_here(runtime)

    def submit(self, job: SweepJob) -> None:
        """Takes a job; a worker without one starts at once."""
        self._waiting.append(job)
        self._hand_out()

    def wait(self) -> JobOutcome:
        """The next job that ended. A worker that died is replaced when there is work for it."""
        busy = {worker.connection: worker for worker in self._pool if worker.job is not None}
        ready = wait(list(busy))[0]
        worker = next(worker for connection, worker in busy.items() if connection is ready)
        job = worker.job
        assert job is not None
        worker.job = None
        try:
            outcome = JobOutcome(job, *worker.connection.recv())
        except (EOFError, OSError):
            self._pool.remove(worker)
            worker.process.join(_SECONDS_TO_END)
            outcome = JobOutcome(job, died=_ending(worker.process.exitcode))
            worker.connection.close()
        self._hand_out()
        return outcome

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *error: object) -> None:
        for worker in self._pool:
            if worker.job is None:
                worker.connection.close()  # It ends by itself, and tidies up.
            else:
                worker.process.terminate()
        for worker in self._pool:
            worker.process.join(_SECONDS_TO_END)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()
            worker.connection.close()
        self._pool.clear()

    def _hand_out(self) -> None:
        while self._waiting:
            idle = next((worker for worker in self._pool if worker.job is None), None)
            if idle is None:
                if len(self._pool) >= self.workers:
                    return
                idle = _start()
                self._pool.append(idle)
            idle.job = self._waiting.popleft()
            # A worker that died while it was idle cannot take it; `wait` finds that out and gives the job back.
            with contextlib.suppress(OSError):
                idle.connection.send(idle.job)


def _start() -> _Worker:
    _start_quiet_tracker()
    # Spawned: a forked copy of a process with ONNX Runtime's threads may hang.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), name="onnxptq-sweep", daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _start_quiet_tracker() -> None:
    """Starts Python's tracker of semaphores, which tidies up after a worker that was killed, without its warning."""
    if sys.platform != "win32" and "PYTHONWARNINGS" not in os.environ:
        os.environ["PYTHONWARNINGS"] = "ignore:resource_tracker"
        resource_tracker.ensure_running()
        del os.environ["PYTHONWARNINGS"]


def _serve(connection: Connection) -> None:
    """The life of a worker: a job in, its cells or the reason why there are none out, until its parent is gone."""
    # Ctrl-C reaches every process of the terminal; the parent decides what becomes of its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from onnxptq.runtimes import stdout_to_stderr

    with stdout_to_stderr():
        while True:
            try:
                job = connection.recv()
            except EOFError:
                return
            connection.send(answer(job))


def identity_here(runtime: str) -> dict[str, str]:
    """What decides the numbers of a runtime on this machine. Raises RuntimeUnavailableError where it does not load."""
    return ready(resolve_runtime(runtime, user_cache())).identity()


def answer(job: SweepJob) -> tuple[Result, OnnxptqError | None]:
    """What a job made, or why it made nothing, as a worker hands it back."""
    try:
        return run_job(job), None
    except OnnxptqError as error:
        # Errors with more than a message do not survive the pipe.
        kind = type(error) if type(error).__init__ is OnnxptqError.__init__ else OnnxptqError
        return Result(), kind(str(error))
    except OSError as error:
        return Result(), OutputError(f"a worker cannot go on: {error}. Free some space, and start the sweep again.")


def _end_with_parent() -> None:
    """Ends the worker when the sweep was killed: nobody would take its results."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _ending(code: int | None) -> str:
    if code is None:
        return "closed its pipe"
    if code < 0:
        return f"was killed by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
