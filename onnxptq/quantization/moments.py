"""Mean and variance of activations, per channel over a whole calibration set, computed in the graph.

A first pass leaves nothing but these: of each sample, two numbers a channel come out of ONNX Runtime, whatever the
size of the activation. Sums are kept as integers in units that every float32 is a multiple of, so that moments merge
exactly: in any order, over any shards.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError
from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.parts import opset_of
from onnxptq.quantization._inference import batched, load_graph, open_native, run_sample, several_at_once
from onnxptq.runtimes.cpu import cores
from onnxptq.signature import Feeds

_UNIT = 149
"""Every finite float32 is a multiple of 2**-149, every square of one of 2**-298."""


@dataclass(frozen=True)
class TensorMoments:
    """One tensor's channels over all samples.

    Attributes:
        count: values of one channel.
        sums: sum of the values of each channel, in units of 2**-149.
        squares: sum of their squares, in units of 2**-298.
    """

    count: int
    sums: tuple[int, ...]
    squares: tuple[int, ...]

    @property
    def mean(self) -> npt.NDArray[np.float64]:
        """(C,)."""
        return np.array([total / (self.count << _UNIT) for total in self.sums])

    @property
    def variance(self) -> npt.NDArray[np.float64]:
        """(C,), of the values themselves: divided by their number, as BatchNormalization does in training."""
        scale = self.count**2 << 2 * _UNIT
        pairs = zip(self.sums, self.squares, strict=True)
        return np.array([(square * self.count - total**2) / scale for total, square in pairs])


@dataclass(frozen=True)
class Moments:
    """Moments of several tensors over the same samples.

    Attributes:
        tensors: by name.
        samples: how many samples were seen.
    """

    tensors: Mapping[str, TensorMoments]
    samples: int


def collect_moments(
    model_path: str | Path,
    samples: Iterable[tuple[str, Feeds]],
    tensors: Mapping[str, int],
    *,
    provider: str = "cpu",
) -> Moments:
    """Runs every sample once and keeps the moments of `tensors`.

    What is held: for each core, ONNX Runtime's own memory for one sample and one copy of the largest of `tensors` in
    it; and the moments, some 200 bytes a channel.

    Args:
        model_path: the float model.
        samples: (id, feeds), one at a time, as `collect.collect` takes them.
        tensors: name -> axis of the channels: 1, or -1 for the last.
        provider: where to run, a name that `onnxptq providers` lists.

    Raises:
        DataError: no samples; NaN or infinity in a tensor; feeds that do not fit the model.
        ModelError: ONNX Runtime cannot load the model, or it does not compute a tensor.
    """
    path = Path(model_path)
    proto = load_graph(path)
    del proto.graph.output[:]
    outputs = add_moments(proto.graph, tensors, opset_of(proto))
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        save_with_links(proto, path, Path(folder) / path.name)
        session, inputs = open_native(Path(folder) / path.name, path, provider, optimized=False)
    accumulator = MomentsAccumulator(tensors)

    def run(sample_id: str, feeds: Feeds) -> tuple[str, dict[str, npt.NDArray[Any]]]:
        fed = {name: batched(array, inputs.get(name)) for name, array in feeds.items()}
        return sample_id, run_sample(session, outputs, fed, sample_id)

    for sample_id, values in several_at_once(run, samples, cores()):
        accumulator.add(values, sample_id)
    return accumulator.moments()


class MomentsAccumulator:
    """Takes in what the nodes of `add_moments` give, sample by sample.

    Args:
        tensors: their names.
    """

    def __init__(self, tensors: Iterable[str]) -> None:
        self._tensors = list(tensors)
        self._counts = dict.fromkeys(self._tensors, 0)
        self._sums: dict[str, list[int]] = {}
        self._squares: dict[str, list[int]] = {}
        self._samples = 0

    def add(self, values: Mapping[str, npt.NDArray[Any]], sample_id: str) -> None:
        """Takes in one sample: the outputs of `add_moments` by name. Raises DataError on NaN or infinity."""
        self._samples += 1
        for name in self._tensors:
            mean, deviation, size = (values[output] for output in _output_names(name))
            mean, deviation = mean.ravel(), deviation.ravel()
            if not size:
                continue  # A tensor without elements has no mean.
            if not (np.isfinite(mean).all() and np.isfinite(deviation).all()):
                raise DataError(
                    f"the mean or the variance of the tensor {name!r} is not finite for the sample {sample_id!r}. "
                    "Repair the sample or leave it out."
                )
            self._take(name, int(size) // mean.size, _in_units(mean), _in_units(deviation))

    def _take(self, name: str, count: int, means: list[int], deviations: list[int]) -> None:
        sums = self._sums.setdefault(name, [0] * len(means))
        squares = self._squares.setdefault(name, [0] * len(means))
        for channel, (mean, deviation) in enumerate(zip(means, deviations, strict=True)):
            sums[channel] += count * mean
            squares[channel] += (deviation << _UNIT) + count * mean * mean
        self._counts[name] += count

    def moments(self) -> Moments:
        """What was taken in. Raises DataError without a sample, or without a value of some tensor."""
        for name in self._tensors:
            if not self._counts[name]:
                raise DataError(f"the calibration set is empty, or gives the tensor {name!r} no value.")
        found = {
            name: TensorMoments(self._counts[name], tuple(self._sums[name]), tuple(self._squares[name]))
            for name in self._tensors
        }
        return Moments(found, self._samples)


def add_moments(graph: Any, tensors: Mapping[str, int], opset: int) -> list[str]:
    """Adds nodes that compute mean, sum of squared deviations and size of each tensor; the names of their outputs.

    Deviations are from the sample's own mean, so that no digits cancel in float32.

    Args:
        graph: the `GraphProto`, changed in place; the results become outputs of it.
        tensors: name -> axis of the channels, 1 or -1.
        opset: of the graph: axes are an input of the reductions from 18 on.

    Raises:
        ModelError: the graph does not compute a tensor.
    """
    import onnx

    computed = {name for node in graph.node for name in node.output} | {value.name for value in graph.input}
    outputs: list[str] = []
    for name, axis in tensors.items():
        if name not in computed:
            raise ModelError(f"the model does not compute the tensor {name!r}.")
        graph.node.extend(_moment_nodes(graph, name, axis, opset))
        outputs += _output_names(name)
    graph.output.extend(onnx.ValueInfoProto(name=output) for output in outputs)
    return outputs


def _moment_nodes(graph: Any, name: str, axis: int, opset: int) -> list[Any]:
    """Whatever the tensor's rank, it becomes (N, C, rest) or (rest, C) first: its shape need not be known."""
    from onnx import helper

    mean, deviation, size = _output_names(name)
    flat, centred = f"{mean}_of", f"{deviation}_of"
    axes = [0, 2] if axis == 1 else [0]
    if axis == 1:
        shaped = helper.make_node("Reshape", [name, _constant(graph, [0, 0, -1])], [flat])
    else:
        shaped = helper.make_node("Flatten", [name], [flat], axis=-1)

    def reduce(operator: str, source: str, target: str) -> Any:
        if opset >= 18:
            return helper.make_node(operator, [source, _constant(graph, axes)], [target], keepdims=1)
        return helper.make_node(operator, [source], [target], keepdims=1, axes=axes)

    return [
        shaped,
        reduce("ReduceMean", flat, mean),
        helper.make_node("Sub", [flat, mean], [centred]),
        reduce("ReduceSumSquare", centred, deviation),
        helper.make_node("Size", [name], [size]),
    ]


def _constant(graph: Any, values: Sequence[int]) -> str:
    from onnx import numpy_helper

    name = "onnxptq_" + "_".join(map(str, values)).replace("-", "minus")
    if all(tensor.name != name for tensor in graph.initializer):
        graph.initializer.append(numpy_helper.from_array(np.array(values, np.int64), name))
    return name


def _output_names(tensor: str) -> tuple[str, str, str]:
    return f"{tensor}__mean", f"{tensor}__deviation", f"{tensor}__size"


def _in_units(values: npt.NDArray[np.float32]) -> list[int]:
    # Exact: float64 holds a float32 times any power of two.
    return [int(value) for value in np.ldexp(values.astype(np.float64), _UNIT).tolist()]
