"""Running a float model over samples, each alone and on one thread: shared by all passes.

ONNX Runtime's unoptimized 3 x 3 Conv gives other last bits for some numbers of threads. So every pass runs a sample
on one, and takes its speed from several samples at once through one session, whose `run` is thread-safe.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError
from onnxptq.signature import Feeds

T = TypeVar("T")


def load_graph(model_path: Path) -> Any:
    """The `ModelProto` without its external data. Raises ModelError when it cannot be parsed."""
    import onnx

    try:
        return onnx.load(str(model_path), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{model_path} cannot be read as an ONNX model: {error}. Check the file.") from error


def open_native(
    augmented: Path, model_path: Path, provider: str, *, optimized: bool
) -> tuple[Any, dict[str, list[Any]]]:
    """An `InferenceSession` of a copy of the model, with one thread, and the shapes of its inputs by name.

    Raises:
        ModelError: ONNX Runtime cannot load it; the message names the model and not the copy.
        RuntimeUnavailableError: the provider does not load here.
    """
    from onnxptq.runtimes.provider_options import CALIBRATION_OPTIONS
    from onnxptq.runtimes.session import open_session

    try:
        native = open_session(
            augmented,
            provider,
            threads=1,
            optimization="all" if optimized else "none",
            options=CALIBRATION_OPTIONS.get(provider),
        ).native
    except ModelError as error:
        raise ModelError(str(error).replace(str(augmented), str(model_path))) from error
    return native, {value.name: value.shape for value in native.get_inputs()}


def batched(array: npt.NDArray[Any], shape: Sequence[Any] | None) -> npt.NDArray[Any]:
    """A sample in as many copies as the model's fixed batch asks for."""
    fixed = shape[0] if shape and isinstance(shape[0], int) else 1
    if fixed > 1 and array.ndim and array.shape[0] == 1:
        return np.repeat(array, fixed, axis=0)
    return array


def run_sample(session: Any, outputs: Sequence[str], feeds: Feeds, sample_id: str) -> dict[str, npt.NDArray[Any]]:
    """The named outputs for one sample. Raises DataError, with the sample's name, when it does not fit the model."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return dict(zip(outputs, session.run(list(outputs) or None, feeds), strict=False))
    except (state.InvalidArgument, state.RuntimeException, state.Fail, ValueError) as error:
        wanted = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in session.get_inputs())
        given = ", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in feeds.items())
        raise DataError(
            f"the sample {sample_id!r} does not fit the model: it has {given}, the model takes {wanted} ({error})"
        ) from error


def several_at_once(work: Callable[[str, Feeds], T], samples: Iterable[tuple[str, Feeds]], workers: int) -> Iterator[T]:
    """What `work` gives for each sample, in the order of the samples, with `workers` of them at work at once.

    Samples are read in the thread that iterates, one ahead of those at work. The error of the first sample that has one
    is raised, whichever came first in time.

    Args:
        work: called with id and feeds, in threads.
        samples: (id, feeds).
        workers: how many threads.
    """
    if workers == 1:
        yield from (work(sample_id, feeds) for sample_id, feeds in samples)
        return
    waiting: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="onnxptq-sample")
    try:
        for sample_id, feeds in samples:
            waiting.append(pool.submit(work, sample_id, feeds))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def not_finite(tensor: str, sample_id: str, feeds: Feeds) -> DataError:
    """What to raise where a tensor of a sample is no number: who is at fault depends on what the sample holds."""
    what = f"the tensor {tensor!r} is NaN or infinite for the sample {sample_id!r}: no range can hold it."
    floats = [array for array in feeds.values() if np.issubdtype(array.dtype, np.floating)]
    if all(np.isfinite(array).all() for array in floats):
        return DataError(
            f"{what} All numbers of the sample are finite, so the model computes it (a division by zero, the logarithm "
            "of zero, an overflow). Leave out such samples, or export the model with an epsilon or a clip there."
        )
    return DataError(f"{what} Repair the sample or leave it out.")
