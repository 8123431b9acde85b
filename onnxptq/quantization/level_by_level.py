"""Passes over a calibration set of which each needs what the one before found: layer after layer, to the end.

Statistics of a layer that depend on how earlier layers were changed (re-normalised activations, corrected biases) need
one pass for each level of layers. A pass starts from activations that the pass before left, where those of all samples
fit `HELD_BYTES`; so the whole costs about two passes over the net, and where they never fit, half a pass a level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.parts import opset_of, part_of, reads
from onnxptq.quantization._inference import batched, load_graph, open_native, run_sample, several_at_once
from onnxptq.quantization.moments import Moments, MomentsAccumulator, TensorMoments, add_moments
from onnxptq.runtimes.cpu import cores
from onnxptq.signature import Feeds

HELD_BYTES = 128 << 20
"""Activations between two levels, of all samples together. Those of one level are held while the next are gathered, so
that at most twice as much is held at once, and one sample's working memory."""

Rewrite = Callable[[Any, str, TensorMoments], None]
"""`(model, tensor, moments)`: changes the `ModelProto` so that the tensor holds what it should, in place."""

Take = Callable[[dict[str, npt.NDArray[Any]], str], None]
"""`(values by tensor, id)` of one sample."""

Probe = Callable[[Any], list[str]]
"""`(graph)`: adds nodes and outputs to a part that is run, and names those outputs."""

Samples = Iterable[tuple[str, Feeds]]


@dataclass(frozen=True)
class _Held:
    """Activations from which the rest of the net can be computed: of each sample, arrays by tensor."""

    samples: list[tuple[str, dict[str, npt.NDArray[Any]]]]

    def __iter__(self) -> Iterator[tuple[str, Feeds]]:
        return iter(self.samples)

    @property
    def types(self) -> dict[str, Any]:
        """The dtype of each tensor."""
        return {name: array.dtype for name, array in self.samples[0][1].items()}


def rewrite_level_by_level(
    model_path: Path, samples: Samples, tensors: Mapping[str, int], rewrite: Rewrite, *, held_bytes: int = HELD_BYTES
) -> tuple[Any, Moments]:
    """Finds the moments of each tensor in the net whose earlier tensors were rewritten already, and rewrites it.

    Args:
        model_path: the float model.
        samples: (id, feeds), the same at each iteration.
        tensors: name -> axis of the channels, 1 or -1.
        rewrite: what to do with a tensor once its moments are known.
        held_bytes: see `HELD_BYTES`.

    Returns:
        The changed `ModelProto`, without its external data, and the moments that were found before each rewriting.

    Raises:
        DataError, ModelError: as `collect_moments`.
    """
    walk = LevelWalk(load_graph(model_path), model_path, samples, tensors, held_bytes=held_bytes)
    found: dict[str, TensorMoments] = {}
    seen = 0
    for level, names in enumerate(walk.levels, 1):
        axes = {name: tensors[name] for name in names}
        accumulator = MomentsAccumulator(axes)
        walk.run(level, names, accumulator.add, partial(_add_moments, axes, opset_of(walk.proto)))
        moments = accumulator.moments()
        seen = moments.samples
        for name in names:
            found[name] = moments.tensors[name]
            rewrite(walk.proto, name, found[name])
    return walk.proto, Moments(found, seen)


def _add_moments(axes: Mapping[str, int], opset: int, graph: Any) -> list[str]:
    return add_moments(graph, axes, opset)


class LevelWalk:
    """Runs a net level by level: each pass starts from the activations that the pass before left, where they fit.

    Args:
        proto: the model without its external data. It may change between passes, at levels that were run.
        model_path: where it was loaded from.
        samples: (id, feeds), the same at each iteration.
        tensors: of these, those that lie equally many behind others of them form a level.
        held_bytes: see `HELD_BYTES`.

    Attributes:
        proto: as given.
        levels: the tensors of each level, first level first.
    """

    def __init__(
        self, proto: Any, model_path: Path, samples: Samples, tensors: Iterable[str], *, held_bytes: int = HELD_BYTES
    ) -> None:
        self.proto = proto
        self._model_path = model_path
        self._source: Samples | _Held = samples
        self._held_bytes = held_bytes
        wanted = list(tensors)
        self._depth = _depths(proto.graph, set(wanted))
        deepest = max((self._depth[name] for name in wanted), default=0)
        self.levels = [[name for name in wanted if self._depth[name] == level + 1] for level in range(deepest)]

    def run(self, level: int, wanted: Sequence[str], take: Take, probe: Probe | None = None) -> None:
        """Runs all samples through the net up to one level.

        Args:
            level: from 1, one after another.
            wanted: tensors that can be computed from the level before.
            take: gets their values, sample by sample, or with `probe` what it names instead.
            probe: `(graph) -> outputs`: adds nodes behind the wanted tensors to the part that is run, and outputs.

        Raises:
            DataError: a sample does not fit the model.
            ModelError: ONNX Runtime cannot load it.
        """
        boundary = _boundary(self.proto.graph, self._depth, level - 1)
        given = self._source.types if isinstance(self._source, _Held) else None
        part, outputs = _part(self.proto, wanted, boundary, given, probe)
        session, shapes = self._open(part) if outputs else (None, _input_shapes(part.graph))
        kept: list[tuple[str, dict[str, npt.NDArray[Any]]]] | None = []
        size = 0

        def compute(sample_id: str, feeds: Feeds) -> tuple[str, dict[str, npt.NDArray[Any]]]:
            fed = feeds if given else {name: batched(array, shapes.get(name)) for name, array in feeds.items()}
            values = run_sample(session, outputs, fed, sample_id) if session else {}
            # An input that is an output too comes back as an alias of freed memory (onnxruntime#21922).
            values.update({name: array for name, array in fed.items() if name in boundary or name in wanted})
            return sample_id, values

        for sample_id, values in several_at_once(compute, self._source, cores()):
            take(values, sample_id)
            if kept is not None:
                kept.append((sample_id, {name: values[name] for name in boundary}))
                size += sum(array.nbytes for array in kept[-1][1].values())
                kept = kept if size <= self._held_bytes else None
        if kept is not None:
            self._source = _Held(kept)

    def _open(self, part: Any) -> tuple[Any, dict[str, list[Any]]]:
        with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
            path = Path(folder) / self._model_path.name
            save_with_links(part, self._model_path, path)
            return open_native(path, self._model_path, "cpu", optimized=False)


def _input_shapes(graph: Any) -> dict[str, list[Any]]:
    """As a session tells them: a whole number where the model fixes one."""
    return {value.name: [dim.dim_value or None for dim in value.type.tensor_type.shape.dim] for value in graph.input}


def _part(
    proto: Any, wanted: Sequence[str], boundary: list[str], given: Mapping[str, Any] | None, probe: Probe | None
) -> tuple[Any, list[str]]:
    """The part of the model that computes `wanted` and boundary, from the model's inputs or from what is given."""
    import onnx

    if given is None:
        inputs = list(proto.graph.input)
    else:
        kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for name, dtype in given.items()}
        inputs = [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    names = {value.name for value in inputs}
    kept = [name for name in (boundary if probe else dict.fromkeys((*boundary, *wanted))) if name not in names]
    part = part_of(proto, inputs, [onnx.ValueInfoProto(name=name) for name in dict.fromkeys((*kept, *wanted))])
    del part.graph.output[len(kept) :]
    return part, [*kept, *(probe(part.graph) if probe else ())]


def _depths(graph: Any, targets: Collection[str]) -> dict[str, int]:
    """Of each activation, how many targets lie one behind the other on the way to it, itself included."""
    depth = {value.name: 0 for value in graph.input}
    for tensor in graph.initializer:
        depth.pop(tensor.name, None)
    for node in graph.node:
        before = max((depth.get(name, 0) for name in reads(node)), default=0)
        for name in node.output:
            depth[name] = before + (name in targets)
    return depth


def _boundary(graph: Any, depth: Mapping[str, int], level: int) -> list[str]:
    """Tensors of at most this depth that deeper nodes read: all that the rest of the net needs."""
    read = {
        name
        for node in graph.node
        if any(depth.get(output, 0) > level for output in node.output)
        for name in reads(node)
        if depth.get(name, level + 1) <= level
    }
    return sorted(read)
