"""The engine of a Ray cluster: the same jobs, on as many machines as there are.

On a cluster that was there before, nothing but Ray is shared: models and data go into its object store once, each
machine works in its own cache, and what it leaves there comes back with the cells.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from onnxptq.cache import Cache, user_cache
from onnxptq.errors import OnnxptqError, RuntimeUnavailableError
from onnxptq.runtimes.selection import resolve_runtime
from onnxptq.sweeps.engine import JobOutcome
from onnxptq.sweeps.job import Result, SweepJob
from onnxptq.sweeps.local import answer, cores, identity_here
from onnxptq.sweeps.parcel import Parcel, pack, unpack
from onnxptq.sweeps.ray_connection import connect


@dataclass
class RayEngine:
    """Workers of Ray.

    Attributes:
        cache: of the store; here files are put that come back from other machines.
        address: of a cluster that is there already ("auto" finds it), or None for one on this machine.
        most: how many jobs run at a time; None is one a CPU.
    """

    cache: Cache
    address: str | None = None
    most: int | None = None
    _running: dict[Any, SweepJob] = field(default_factory=dict)
    _waiting: list[SweepJob] = field(default_factory=list)
    _parcels: dict[str, Parcel] = field(default_factory=dict)
    _files: dict[str, Any] = field(default_factory=dict)
    _resources: Mapping[str, float] = field(default_factory=dict)

    @property
    def workers(self) -> int:
        """As many as there are CPUs, or as were asked for."""
        return self.most or max(1, int(self._resources.get("CPU", cores())))

    @property
    def threads(self) -> int:
        """One: Ray gives each job one CPU."""
        return 1

    def identity(self, runtime: str) -> Mapping[str, str]:
        """Of a runtime on the machine that will judge models on it: one with a GPU where it needs one.

        Raises:
            RuntimeUnavailableError: no machine has a GPU, or it does not load there.
        """
        import ray

        if not self._needs_gpu(runtime) and self.address is None:
            return identity_here(runtime)
        task = ray.remote(identity_here).options(**self._options([runtime]))
        with _explained():
            try:
                identity: dict[str, str] = ray.get(task.remote(runtime))
            except ray.exceptions.RayTaskError as error:
                raise RuntimeUnavailableError(explain(error)) from error
        return identity

    def submit(self, job: SweepJob) -> None:
        """Takes a job; Ray starts it when a machine has room for it."""
        self._waiting.append(job)
        self._hand_out()

    def wait(self) -> JobOutcome:
        """The next job that ended."""
        import ray

        (done, *_), _ = ray.wait(list(self._running), num_returns=1)
        job = self._running.pop(done)
        try:
            result, error, files = ray.get(done)
        except ray.exceptions.RayTaskError as failure:
            # A bug of ours: everything that a user could do wrong comes back as an error.
            outcome = JobOutcome(job, died=f"stopped with {type(failure.cause).__name__}: {failure.cause}")
        except ray.exceptions.RayError as failure:
            outcome = JobOutcome(job, died=f"died ({type(failure).__name__})")
        else:
            self._keep(files, share=job.part is not None or not job.cells)
            outcome = JobOutcome(job, result, error)
        self._hand_out()
        return outcome

    def __enter__(self) -> RayEngine:
        ray = connect(self.address, self.workers)
        self._resources = ray.cluster_resources()
        return self

    def __exit__(self, *error: object) -> None:
        import ray

        ray.shutdown()

    def _hand_out(self) -> None:
        import ray

        while self._waiting and len(self._running) < self.workers:
            job = self._waiting.pop(0)
            runtimes = [key.runtime for key in job.cells]
            task = ray.remote(_work).options(max_retries=0, **self._options(runtimes))
            parcel, files = None, None
            if self.address is not None:
                parcel, files = self._parcel(job), dict(self._files)
            self._running[task.remote(job, parcel, files)] = job

    def _parcel(self, job: SweepJob) -> Parcel:
        """The model and the data of a job; they go into Ray's object store once."""
        import ray

        if job.model not in self._parcels:
            self._parcels[job.model] = pack(job.plan, job.model, ray.put)
        return self._parcels[job.model]

    def _keep(self, files: Mapping[str, bytes], *, share: bool) -> None:
        """Puts what came from another machine into the store's cache and, where others need it, within their reach."""
        import ray

        for name, data in files.items():
            path = self.cache.root / name
            unpack(path, data)
            if share:
                self._files[name] = ray.put(data)

    def _options(self, runtimes: list[str]) -> dict[str, Any]:
        if not any(map(self._needs_gpu, runtimes)):
            return {"num_cpus": 1}
        if self._resources.get("GPU", 0) < 1:
            name = next(filter(self._needs_gpu, runtimes))
            raise RuntimeUnavailableError(
                f"the runtime {name!r} needs a GPU, and no node of the Ray cluster has one "
                f"({int(self._resources.get('CPU', 0))} CPUs, 0 GPUs). Leave it out of the plan, or add such a node."
            )
        return {"num_cpus": 1, "num_gpus": 1}

    def _needs_gpu(self, runtime: str) -> bool:
        return resolve_runtime(runtime, user_cache()).on_gpu


def _work(
    job: SweepJob, parcel: Parcel | None, files: Mapping[str, Any] | None
) -> tuple[Result, OnnxptqError | None, dict[str, bytes]]:
    """A job on a machine of the cluster. Gives its result, why it has none, and the files that it left."""
    import ray

    os.environ.setdefault("OMP_NUM_THREADS", str(job.threads))
    if parcel is None or files is None:
        return (*answer(job), {})
    cache = user_cache()
    for name, reference in files.items():
        if not (cache.root / name).exists():
            unpack(cache.root / name, ray.get(reference))
    places = parcel.places(cache, ray.get)
    result, error = answer(replace(job, cache=cache.root, places=places))
    return result, error, {name: (cache.root / name).read_bytes() for name in result.files}


def explain(error: Any) -> str:
    """What went wrong in a task of Ray, in one line."""
    if "No module named 'onnxptq'" in str(error):
        return "the Python of the Ray cluster has no onnxptq. Install this version of it on every node."
    return " ".join(str(error.cause if isinstance(error.cause, OnnxptqError) else error).split())


@contextmanager
def _explained() -> Iterator[None]:
    import ray

    try:
        yield
    except ray.exceptions.RayError as error:
        raise RuntimeUnavailableError(f"Ray cannot answer: {error}. Check the cluster with `ray status`.") from error
