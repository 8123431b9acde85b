"""Sessions in workers: the process that a runtime needs, a model opened in it, and whether the provider took it."""

from __future__ import annotations

from collections import Counter

from onnxptq.cache import Cache
from onnxptq.graphs import Model
from onnxptq.runtimes.isolated import TIMEOUT_SECONDS, Opened, Worker, WorkerError
from onnxptq.runtimes.provider_options import Batches
from onnxptq.runtimes.selection import Runtime

LEAST_SHARE = 0.5
"""The least share of a model's weighted nodes that the provider must take where a model is judged on it: below it the
verdict would be one about the CPU, or about CUDA in TensorRT's place. `onnxptq compare --require-placement` asks for
more."""

_WEIGHTED = ("Conv", "Gemm", "MatMul")
"""What the operators with weights have in their names: ConvTranspose, FusedConv, QLinearConv, MatMulInteger ... too."""


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
    cache: Cache,
    *,
    batches: Batches | None = None,
    threads: int | None = None,
    profile: bool = False,
) -> Opened:
    """A session of a model on a runtime in its worker. Raises WorkerError."""

    def attempt(sizes: Batches | None) -> Opened:
        return worker.open(
            model.core.path,
            runtime.session_providers(cache, model, threads, sizes),
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
