"""Running a float model over samples one at a time: shared by all passes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError

Feeds = Mapping[str, npt.NDArray[Any]]


def load_graph(model_path: Path) -> Any:
    """The `ModelProto` without its external data. Raises ModelError when it cannot be parsed."""
    import onnx

    try:
        return onnx.load(str(model_path), load_external_data=False)
    except Exception as error:
        raise ModelError(f"{model_path} cannot be read as an ONNX model: {error}. Check the file.") from error


def open_native(
    augmented: Path, model_path: Path, provider: str, *, optimized: bool, threads: int | None
) -> tuple[Any, dict[str, list[Any]]]:
    """An `InferenceSession` of a copy of the model, and the shapes of its inputs by name.

    Raises:
        ModelError: ONNX Runtime cannot load it; the message names the model and not the copy.
        RuntimeUnavailableError: the provider does not load here.
    """
    from onnxptq.runtimes.session import open_session

    try:
        native = open_session(augmented, provider, threads=threads, optimization="all" if optimized else "none").native
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
