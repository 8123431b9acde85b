"""Models that are not trusted, on providers that are not trusted: each in a process of its own.

For one load and some runs:

    outcome = run(Job(Path("model.onnx"), feeds=({"x": batch},)), timeout_s=60, memory_bytes=2 * 2**30)
    outcome.status   # "done", "refused", "crashed", "hung", "out of memory" or "missing"
    outcome.reason   # what happened, in a sentence; "" where it is done
    outcome.outputs  # for each feed its output arrays

For more, `Worker` is the process itself, which keeps its sessions until it is closed.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from onnxptq.runtimes._messages import gpu_remedy, readable_cause
from onnxptq.runtimes._worker_records import Description, Failure, Kernel, Opened, PlacedNode, WorkerError, describe
from onnxptq.runtimes.installation import debugging
from onnxptq.runtimes.session import LEVELS, Optimization, session_entries, tensor_spec
from onnxptq.signature import Feeds, Signature

__all__ = [
    "Description",
    "Job",
    "Kernel",
    "Opened",
    "Outcome",
    "PlacedNode",
    "Worker",
    "WorkerError",
    "describe",
    "run",
]

Status = Literal["done", "refused", "crashed", "hung", "out of memory", "missing"]

TIMEOUT_SECONDS = 600.0
"""How long one request may take: TensorRT needs minutes to build the engine of a large model."""

_LOG_LINES = 20
"""Last lines of the worker's stderr that are kept."""

_SECONDS_TO_DIE = 10.0
"""How long a process may take to end after its stdin was closed, before it is killed."""

_OUT_OF_MEMORY = ("bad_alloc", "failed to allocate memory", "out of memory", "cannot allocate memory")


class Worker:
    """A process that loads and runs models, and that may die without harm.

    Use it as a context manager; leaving it ends the process. Every call raises WorkerError when the process dies, does
    not answer in time or refuses; after a death or a hang each further call raises the same error.

    Args:
        python: the interpreter, which needs onnxruntime and numpy only; None is this one.
        memory_bytes: how much more address space it may take than ONNX Runtime takes without a model. Linux only. Leave
            it out for CUDA and TensorRT, which reserve far more than they use.
        timeout_s: how long one call may take, in seconds.
        variables: environment variables that it has beside ours.
        plugins: libraries of plug-in providers by ONNX Runtime's name of the provider, which it registers.
    """

    def __init__(
        self,
        python: Path | None = None,
        *,
        memory_bytes: int | None = None,
        timeout_s: float = TIMEOUT_SECONDS,
        variables: Mapping[str, str] | None = None,
        plugins: Mapping[str, str] | None = None,
    ) -> None:
        self._timeout = timeout_s
        self._dead: WorkerError | None = None
        self._replies: queue.Queue[str | None] = queue.Queue()
        self._folder = tempfile.TemporaryDirectory(prefix="onnxptq.worker.", ignore_cleanup_errors=True)
        self._log: IO[bytes] = (Path(self._folder.name) / "stderr").open("wb+")
        try:
            self._process = _start(python, self._log, variables or {})
        except OSError as error:
            self._log.close()
            self._folder.cleanup()
            raise WorkerError("missing", f"the interpreter {python} cannot be started: {error.strerror}") from error
        threading.Thread(target=self._listen, daemon=True).start()
        if plugins:
            self._ask("plug", plugins=dict(plugins))
        if memory_bytes is not None:
            self._ask("limit", memory_bytes=memory_bytes)

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None and not issubclass(kind, Exception):
            self._kill()  # Ctrl-C: it may be busy for minutes before it sees that its stdin was closed.
        self.close()

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def describe(self) -> Description:
        """The ONNX Runtime that it has."""
        return describe(self._ask("describe"))

    def open(
        self,
        model: Path,
        providers: Sequence[tuple[str, Mapping[str, str]]] = (("CPUExecutionProvider", {}),),
        *,
        optimization: Optimization = "all",
        threads: int | None = None,
        profile: bool = False,
        timeout_s: float | None = None,
    ) -> Opened:
        """Creates a session. It is not checked that the first provider was accepted: `Opened.providers` tells.

        Args:
            model: an ONNX file.
            providers: ONNX Runtime's names with their options, in order.
            optimization: how far the graph may be rewritten.
            threads: threads inside one operator; None leaves the number to ONNX Runtime.
            profile: record the kernels that run, for `kernels`.
            timeout_s: instead of the worker's own.
        """
        answer = self._ask(
            "open",
            timeout_s,
            model=str(model.resolve()),
            providers=[[name, dict(options)] for name, options in providers],
            level=LEVELS[optimization],
            threads=threads,
            entries=session_entries(optimization, [name for name, _ in providers]),
            profile_folder=self._folder.name if profile else None,
        )
        nodes = answer["placement"]
        return Opened(
            number=answer["session"],
            seconds=answer["seconds"],
            providers=tuple(answer["providers"]),
            signature=Signature(
                inputs=tuple(tensor_spec(*value) for value in answer["inputs"]),
                outputs=tuple(tensor_spec(*value) for value in answer["outputs"]),
            ),
            placement=None if nodes is None else tuple(PlacedNode(*node) for node in nodes),
        )

    def run(self, session: Opened, feeds: Feeds, timeout_s: float | None = None) -> list[npt.NDArray[Any]]:
        """All outputs for `feeds` (one array an input), in the order of the signature."""
        paths = self._ask("run", timeout_s, session=session.number, feeds=self._save(feeds), folder=self._folder.name)
        return [np.load(path, allow_pickle=False) for path in paths]

    def time(
        self,
        session: Opened,
        feeds: Feeds,
        *,
        runs: int,
        warmup: int = 0,
        device: str | None = None,
        device_id: int = 0,
        timeout_s: float | None = None,
    ) -> list[float]:
        """Seconds of each of `runs` runs after `warmup` others; with a `device` by IO binding, without copies."""
        seconds: list[float] = self._ask(
            "time",
            timeout_s,
            session=session.number,
            feeds=self._save(feeds),
            runs=runs,
            warmup=warmup,
            device=device,
            device_id=device_id,
        )
        return seconds

    def clock(self, device_id: int) -> int | None:
        """MHz at which a GPU computes just now; None where it does not tell."""
        found: int | None = self._ask("clock", device_id=device_id)
        return found

    def kernels(self, session: Opened) -> list[Kernel]:
        """What ran since the session was opened with `profile`. Ends the profile."""
        return [Kernel(*kernel) for kernel in self._ask("profile", session=session.number)]

    def memory(self) -> tuple[int, int] | None:
        """Bytes in use before any model, and the most so far, without a GPU's; None where the system does not tell."""
        answer = self._ask("memory")
        return None if None in answer.values() else (answer["baseline"], answer["peak"])

    def close_session(self, session: Opened) -> None:
        """Gives a session's memory back."""
        self._ask("close", session=session.number)

    def close(self) -> None:
        """Ends the process and removes its files."""
        if self._process.stdin is not None:
            # A dead worker cannot take what was buffered for it.
            try:
                self._process.stdin.close()
            except OSError:
                self._kill()
        try:
            self._process.wait(_SECONDS_TO_DIE if self._dead is None else 0)
        except subprocess.TimeoutExpired:
            self._kill()
        except KeyboardInterrupt:
            self._kill()
            raise
        finally:
            self._log.close()
            self._folder.cleanup()

    def _save(self, feeds: Feeds) -> dict[str, str]:
        paths = {}
        for number, (name, array) in enumerate(feeds.items()):
            paths[name] = str(Path(self._folder.name) / f"feed{number}.npy")
            np.save(paths[name], array.astype(str) if array.dtype == object else array, allow_pickle=False)
        return paths

    def _ask(self, operation: str, timeout_s: float | None = None, **arguments: Any) -> Any:
        if self._dead is not None:
            raise self._dead
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"do": operation, **arguments}) + "\n")
            self._process.stdin.flush()
        except OSError as error:
            raise self._died(operation) from error
        limit = self._timeout if timeout_s is None else timeout_s
        try:
            line = self._replies.get(timeout=limit)
        except queue.Empty:
            self._kill()
            self._dead = WorkerError("hung", f"it did not answer within {limit:g} seconds ({operation})", self.log())
            raise self._dead from None
        if line is None:
            raise self._died(operation)
        try:
            reply = json.loads(line)
        except ValueError:
            self._kill()
            self._dead = WorkerError("missing", f"its interpreter is no Python: it said {line.strip()!r}", self.log())
            raise self._dead from None
        if "error" in reply:
            raise _refused(reply, self.log())
        return reply["answer"]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def _died(self, operation: str) -> WorkerError:
        self._process.wait()
        log = self.log()
        reason = f"its process {_ending(self._process.returncode)} ({operation})"
        if log:
            reason += f": {readable_cause(log[-1])}"
        failure: Failure = "out of memory" if _is_out_of_memory(" ".join(log)) else "crashed"
        self._dead = WorkerError(failure, reason, log)
        return self._dead

    def log(self) -> tuple[str, ...]:
        """The last lines that it wrote to stderr."""
        text = (Path(self._folder.name) / "stderr").read_text(encoding="utf-8", errors="replace")
        if debugging():
            sys.stderr.write(text)
        return tuple(line for line in text.splitlines() if line.strip())[-_LOG_LINES:]

    def _kill(self) -> None:
        # Its whole session: what the worker itself started must not outlive it.
        if sys.platform == "win32":
            self._process.kill()
        else:
            with contextlib.suppress(ProcessLookupError):  # it ended by itself just now
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


@dataclass(frozen=True)
class Job:
    """One model to load and to run.

    Attributes:
        model: an ONNX file.
        providers: ONNX Runtime's names with their options, in order.
        optimization: how far the graph may be rewritten.
        threads: threads inside one operator, or None.
        feeds: one run for each; none only loads the model.
    """

    model: Path
    providers: tuple[tuple[str, Mapping[str, str]], ...] = (("CPUExecutionProvider", {}),)
    optimization: Optimization = "all"
    threads: int | None = None
    feeds: tuple[Feeds, ...] = ()


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    Attributes:
        status: "done", or what went wrong (`WorkerError.failure`).
        reason: a sentence without a full stop; "" where it is done.
        log: the last lines of the worker's stderr.
        session: the session, or None where there was none.
        outputs: for each feed that ran its output arrays.
        baseline_bytes, peak_bytes: memory before the model and at most; None where it is not known.
    """

    status: Status
    reason: str = ""
    log: tuple[str, ...] = ()
    session: Opened | None = None
    outputs: tuple[list[npt.NDArray[Any]], ...] = field(default=(), repr=False)
    baseline_bytes: int | None = None
    peak_bytes: int | None = None


def run(
    job: Job, *, python: Path | None = None, timeout_s: float = TIMEOUT_SECONDS, memory_bytes: int | None = None
) -> Outcome:
    """Loads and runs a model in a process of its own; whatever happens there is a result, never an exception.

    Args:
        job: what to load and run.
        python: the interpreter; None is this one.
        timeout_s: how long the load, and each run, may take.
        memory_bytes: how much more address space it may take than ONNX Runtime takes without a model (Linux).
    """
    outcome = Outcome("done")
    try:
        with Worker(python, memory_bytes=memory_bytes, timeout_s=timeout_s) as worker:
            try:
                session = worker.open(job.model, job.providers, optimization=job.optimization, threads=job.threads)
                outcome = replace(outcome, session=session)
                for feeds in job.feeds:
                    outcome = replace(outcome, outputs=(*outcome.outputs, worker.run(session, feeds)))
            except WorkerError as error:
                if error.failure != "refused":
                    raise
                outcome = replace(outcome, status=error.failure, reason=error.reason, log=error.log)
            baseline, peak = worker.memory() or (None, None)
            return replace(outcome, baseline_bytes=baseline, peak_bytes=peak)
    except WorkerError as error:
        return replace(outcome, status=error.failure, reason=error.reason, log=error.log)


def _start(python: Path | None, log: IO[bytes], variables: Mapping[str, str]) -> subprocess.Popen[str]:
    # -P: the folder of the script holds modules whose names must not shadow anybody's. -I: neither PYTHONPATH nor the
    # user's own packages belong to another environment.
    isolation = "-P" if python is None else "-I"
    return subprocess.Popen(
        [str(python or sys.executable), isolation, str(Path(__file__).with_name("worker.py"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=log,
        encoding="utf-8",
        env={**os.environ, **variables} if variables else None,
        # Ctrl-C is for us; the worker ends when we close its stdin.
        start_new_session=sys.platform != "win32",
    )


def _refused(reply: Mapping[str, str], log: tuple[str, ...]) -> WorkerError:
    text = reply["error"]
    cause = readable_cause(text)
    if reply["type"] in ("ImportError", "ModuleNotFoundError"):
        return WorkerError("missing", f"its interpreter lacks what it needs: {text}", log)
    out_of_memory = reply["type"] == "MemoryError" or _is_out_of_memory(text)
    error = WorkerError("out of memory" if out_of_memory else "refused", cause, log)
    error.remedy = gpu_remedy(cause) if "cuda" in text.lower() or "cudnn" in text.lower() else ""
    return error


def _is_out_of_memory(text: str) -> bool:
    return any(sign in text.lower() for sign in _OUT_OF_MEMORY)


def _ending(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = ", as the system does when memory runs out" if name == "SIGKILL" else ""
    return f"was killed by {name}{hint}"
