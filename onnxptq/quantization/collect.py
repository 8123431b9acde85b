"""One pass of float inference over a calibration set, after which every range method has what it needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators._histogram import Accumulator, NotFiniteError
from onnxptq.calibrators.statistics import CalibrationStatistics, TensorStatistics
from onnxptq.errors import DataError, ModelError, RuntimeUnavailableError, UsageError, did_you_mean

Feeds = Mapping[str, npt.NDArray[Any]]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


def collect(
    model_path: str | Path,
    samples: Iterable[tuple[str, Feeds]],
    tensors: Sequence[str],
    *,
    environment: str = "",
    provider: str = "cpu",
    optimized: bool = False,
    threads: int | None = None,
    histograms: bool = True,
    provenance: Mapping[str, str] | None = None,
) -> CalibrationStatistics:
    """Runs every sample once and keeps statistics of `tensors`, in memory that does not grow with the samples.

    The tensors become graph outputs; a sample is run alone and its outputs are freed before the next. So the result
    is the same, byte for byte, in whatever order the samples come and however they are sharded
    (`statistics.merge`), on the same kind of CPU with the same ONNX Runtime. At most one sample's observed tensors
    are held at a time.

    Args:
        model_path: the float model, as the quantizer will get it.
        samples: (id, feeds) with a batch dimension of 1. A model of a fixed batch size B is fed the sample B times,
            which keeps samples independent of their neighbours.
        tensors: what to observe, from `plan_calibration`.
        environment: name under which the statistics are kept.
        provider: "cpu" or "cuda".
        optimized: let ONNX Runtime optimise the graph. Faster on depthwise nets; values, and so ranges, may
            differ in the last bits from those of the stock calibrators, which run with all optimisations off.
        threads: threads within an operator; None leaves it to ONNX Runtime.
        histograms: False keeps extremes only, which is all that MinMax needs.
        provenance: kept with the statistics, see `CalibrationStatistics`.

    Raises:
        DataError: no samples; NaN or infinity in a tensor; feeds that do not fit the model.
        ModelError: ONNX Runtime cannot load the model, or a tensor is not in it.
        RuntimeUnavailableError: the provider does not load here.
    """
    session, inputs = _session(Path(model_path), tensors, provider, optimized, threads)
    outputs = [name for name in tensors if name not in inputs]
    accumulators = {name: Accumulator(histograms) for name in tensors}
    seen = 0
    for sample_id, feeds in samples:
        fed = {name: _batched(array, inputs.get(name)) for name, array in feeds.items()}
        values = _run(session, outputs, fed, sample_id)
        for name in tensors:
            # A graph input that is also an output comes back as an alias of freed memory (onnxruntime#21922).
            value = fed.get(name) if name in inputs else values.pop(name)
            _add(accumulators[name], value, name, sample_id)
        seen += 1
    if not seen:
        raise DataError("the calibration set is empty; give at least one sample")
    found = {name: _statistics(accumulator) for name, accumulator in accumulators.items()}
    return CalibrationStatistics({environment: found}, {environment: seen}, dict(provenance or {}))


def _session(
    model_path: Path, tensors: Sequence[str], provider: str, optimized: bool, threads: int | None
) -> tuple[Any, dict[str, list[Any]]]:
    """A session whose outputs are `tensors`, and the shapes of its inputs by name."""
    import onnx
    import onnxruntime

    if provider not in PROVIDERS:
        raise UsageError(f"unknown provider {provider!r}. {did_you_mean(provider, PROVIDERS)}")
    try:
        model = onnx.load(model_path, load_external_data=False)
    except Exception as error:
        raise ModelError(f"{model_path} cannot be read as an ONNX model: {error}") from error
    inputs = {value.name for value in model.graph.input}
    del model.graph.output[:]
    # A name is enough: ONNX Runtime infers the type of an output.
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors if name not in inputs)
    if not model.graph.output:
        model.graph.output.append(onnx.ValueInfoProto(name=next(iter(model.graph.node)).output[0]))
    options = onnxruntime.SessionOptions()
    levels = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
    options.log_severity_level = 3
    options.use_deterministic_compute = True
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(model_path.parent))
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=[PROVIDERS[provider]], enable_fallback=0
        )
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot run {model_path}: {error}") from error
    if PROVIDERS[provider] not in session.get_providers():
        raise RuntimeUnavailableError(f"the provider {provider!r} does not load here; use 'cpu'")
    return session, {value.name: value.shape for value in session.get_inputs()}


def _batched(array: npt.NDArray[Any], shape: list[Any] | None) -> npt.NDArray[Any]:
    fixed = shape[0] if shape and isinstance(shape[0], int) else 1
    if fixed > 1 and array.ndim and array.shape[0] == 1:
        return np.repeat(array, fixed, axis=0)
    return array


def _run(session: Any, outputs: list[str], feeds: Feeds, sample_id: str) -> dict[str, npt.NDArray[Any]]:
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    try:
        return dict(zip(outputs, session.run(outputs or None, feeds), strict=False))
    except (state.InvalidArgument, state.RuntimeException, state.Fail, ValueError) as error:
        wanted = ", ".join(f"{value.name}: {value.type} {value.shape}" for value in session.get_inputs())
        given = ", ".join(f"{name}: {array.dtype} {list(array.shape)}" for name, array in feeds.items())
        raise DataError(
            f"the sample {sample_id!r} does not fit the model: it has {given}, the model takes {wanted} ({error})"
        ) from error


def _add(accumulator: Accumulator, value: npt.NDArray[Any] | None, name: str, sample_id: str) -> None:
    if value is None:
        raise DataError(f"the sample {sample_id!r} has no value for the model's input {name!r}")
    try:
        accumulator.add(value)
    except NotFiniteError:
        raise DataError(
            f"the tensor {name!r} is NaN or infinite for the sample {sample_id!r}: no range can hold it. "
            "Repair the sample or leave it out."
        ) from None


def _statistics(accumulator: Accumulator) -> TensorStatistics:
    bins, counts = accumulator.sparse()
    if not accumulator.count:
        # A tensor without elements (an empty branch of the data): ONNX Runtime's calibrators call it [0, 0] as well.
        return TensorStatistics(np.float32(0), np.float32(0), 0, bins, counts)
    extremes = accumulator.extremes
    return TensorStatistics(extremes.minimum, extremes.maximum, accumulator.count, bins, counts)
