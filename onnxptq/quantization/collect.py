"""One pass of float inference over a calibration set, after which every range method has what it needs."""

from __future__ import annotations

import operator
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.histogram import Accumulator, Counter, NotFiniteError
from onnxptq.calibrators.statistics import CalibrationStatistics, TensorStatistics
from onnxptq.errors import DataError, ModelError
from onnxptq.graphs.external import copy_with_links
from onnxptq.graphs.fills import find_fills
from onnxptq.graphs.skeleton import skeleton
from onnxptq.quantization._inference import (
    batched,
    not_finite,
    open_native,
    run_sample,
    several_at_once,
)
from onnxptq.runtimes.cpu import cores
from onnxptq.signature import Feeds

_HELD_BYTES = 1 << 32
"""Of observed tensors at a time. Where samples are so large that one a core would be more, fewer run at once."""


class CalibrationPass:
    """A float model, opened once, over any number of calibration sets.

    Its observed tensors become graph outputs; a sample is run alone, on one thread, and its outputs are freed as they
    are counted. As many samples run at once as there are cores. So the result is the same, byte for byte, in whatever
    order the samples come, however they are sharded (`statistics.merge`) and however many cores there are, on the same
    kind of CPU with the same ONNX Runtime. Each core holds at most one sample's observed tensors.

    Args:
        model_path: the float model, as the quantizer will get it.
        tensors: what to observe, from `plan_calibration`.
        provider: where to run, a name that `onnxptq providers` lists.
        optimized: let ONNX Runtime optimise the graph. Faster on depthwise nets; values, and so ranges, may
            differ in the last bits from those of the stock calibrators, which run with all optimisations off.
        workers: samples at once; None is one a core, and on other providers than the CPU always one.
        histograms: False keeps extremes only, which is all that MinMax needs.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or a tensor is not in it.
        RuntimeUnavailableError: the provider does not load here.
        UsageError: an unknown provider.
    """

    def __init__(
        self,
        model_path: str | Path,
        tensors: Sequence[str],
        *,
        provider: str = "cpu",
        optimized: bool = False,
        workers: int | None = None,
        histograms: bool = True,
    ) -> None:
        self._tensors = tuple(tensors)
        self._histograms = histograms
        self._workers = (workers or cores()) if provider == "cpu" else 1
        self._session, self._inputs = _session(Path(model_path), tensors, provider, optimized)
        self._outputs = [name for name in tensors if name not in self._inputs]
        self._fills = find_fills(skeleton(Path(model_path)).graph)

    def collect(
        self,
        samples: Iterable[tuple[str, Feeds]],
        *,
        environment: str = "",
        provenance: Mapping[str, str] | None = None,
    ) -> CalibrationStatistics:
        """Runs every sample once.

        Args:
            samples: (id, feeds) with a batch dimension of 1. A model of a fixed batch size B is fed the sample B times,
                which keeps samples independent of their neighbours.
            environment: name under which the statistics are kept.
            provenance: kept with the statistics, see `CalibrationStatistics`.

        Raises:
            DataError: no samples; NaN or infinity in a tensor; feeds that do not fit the model.
        """
        counter = Counter()
        accumulators = {name: _Shared(Accumulator(self._histograms, counter)) for name in self._tensors}

        def observe(sample_id: str, feeds: Feeds) -> int:
            values = self.run(feeds, sample_id)
            held = sum(value.nbytes for value in values.values())
            for name in self._tensors:
                try:
                    accumulators[name].add(values.pop(name, None), name, sample_id)
                except NotFiniteError:
                    raise not_finite(name, sample_id, feeds) from None
            return held

        remaining = iter(samples)
        seen, workers = 0, self._workers
        # The first alone: it tells how much there is to count, and to hold.
        for sample_id, feeds in islice(remaining, 1):
            held = observe(sample_id, feeds)
            counter.expected = counter.counted * operator.length_hint(samples, 0)
            workers, seen = max(1, min(workers, _HELD_BYTES // max(held, 1))), 1
        seen += sum(1 for _ in several_at_once(observe, remaining, workers))
        if not seen:
            raise DataError("the calibration set is empty; give at least one sample")
        found = {name: _statistics(shared.accumulator) for name, shared in accumulators.items()}
        return CalibrationStatistics({environment: found}, {environment: seen}, dict(provenance or {}))

    def run(self, feeds: Feeds, sample_id: str = "") -> dict[str, npt.NDArray[Any]]:
        """The observed tensors of one sample by name. Raises DataError where the feeds do not fit the model."""
        fed = {name: batched(array, self._inputs.get(name)) for name, array in feeds.items()}
        values = run_sample(self._session, self._outputs, fed, sample_id)
        values = {name: self._fills.without(name, value) for name, value in values.items()}
        # A graph input that is also an output comes back as an alias of freed memory (onnxruntime#21922).
        return values | {name: fed[name] for name in self._tensors if name in self._inputs and name in fed}


def collect(
    model_path: str | Path,
    samples: Iterable[tuple[str, Feeds]],
    tensors: Sequence[str],
    *,
    environment: str = "",
    provider: str = "cpu",
    optimized: bool = False,
    workers: int | None = None,
    histograms: bool = True,
    provenance: Mapping[str, str] | None = None,
) -> CalibrationStatistics:
    """One pass over one calibration set: `CalibrationPass` and its `collect` in one call, with the same errors."""
    opened = CalibrationPass(
        model_path, tensors, provider=provider, optimized=optimized, workers=workers, histograms=histograms
    )
    return opened.collect(samples, environment=environment, provenance=provenance)


def _session(
    model_path: Path, tensors: Sequence[str], provider: str, optimized: bool
) -> tuple[Any, dict[str, list[Any]]]:
    """An ONNX Runtime session whose outputs are `tensors`, and the shapes of its inputs by name."""
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        augmented = _augmented(model_path, tensors, Path(folder))
        return open_native(augmented, model_path, provider, optimized=optimized)


def _augmented(model_path: Path, tensors: Sequence[str], folder: Path) -> Path:
    """A copy of the model in `folder` whose outputs are `tensors`, with its external data.

    A file, not bytes: ONNX Runtime would hold the bytes beside what it parses from them.
    """
    import onnx

    try:
        graph = skeleton(model_path).graph
    except Exception as error:
        raise ModelError(f"{model_path} cannot be read as an ONNX model: {error}. Check the file.") from error
    there = {value.name for value in (*graph.input, *graph.output)}
    # A name is enough: ONNX Runtime infers the type of an output.
    added = [onnx.ValueInfoProto(name=name) for name in tensors if name not in there]
    path = folder / model_path.name
    copy_with_links(model_path, path)
    with path.open("ab") as file:
        # Protobuf joins messages whose bytes stand one behind the other: repeated fields grow.
        file.write(onnx.ModelProto(graph=onnx.GraphProto(output=added)).SerializeToString())
    return path


class _Shared:
    """An accumulator that several threads add to, one after another: the state does not depend on who was first."""

    def __init__(self, accumulator: Accumulator) -> None:
        self.accumulator = accumulator
        self._lock = threading.Lock()

    def add(self, value: npt.NDArray[Any] | None, name: str, sample_id: str) -> None:
        if value is None:
            raise DataError(f"the sample {sample_id!r} has no value for the model's input {name!r}")
        with self._lock:
            self.accumulator.add(value)


def _statistics(accumulator: Accumulator) -> TensorStatistics:
    bins, counts = accumulator.sparse()
    if not accumulator.count:
        # A tensor without elements (an empty branch of the data): ONNX Runtime's calibrators call it [0, 0] as well.
        return TensorStatistics(np.float32(0), np.float32(0), 0, bins, counts)
    return TensorStatistics(accumulator.minimum, accumulator.maximum, accumulator.count, bins, counts)
