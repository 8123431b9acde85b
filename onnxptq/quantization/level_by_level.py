"""Passes over a calibration set of which each needs what the one before found: layer after layer, to the end.

Statistics of a layer that depend on how earlier layers were changed (re-normalised activations, corrected biases) need
one pass for each level of layers. A pass starts from activations that the pass before left, where those of all samples
fit `HELD_BYTES`; so the whole costs about two passes over the net, and where they never fit, half a pass a level.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.parts import opset_of, part_of, reads
from onnxptq.quantization._inference import Feeds, batched, load_graph, open_native, run_sample
from onnxptq.quantization.moments import Moments, MomentsAccumulator, TensorMoments, add_moments

HELD_BYTES = 128 << 20
"""Activations between two levels, of all samples together. Those of one level are held while the next are gathered, so
that at most twice as much is held at once, and one sample's working memory."""

Rewrite = Callable[[Any, str, TensorMoments], None]
"""`(model, tensor, moments)`: changes the `ModelProto` so that the tensor holds what it should, in place."""

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
    proto = load_graph(model_path)
    depth = _depths(proto.graph, tensors)
    found: dict[str, TensorMoments] = {}
    source: Samples | _Held = samples
    seen = 0
    for level in range(1, max((depth[name] for name in tensors), default=0) + 1):
        here = {name: axis for name, axis in tensors.items() if depth[name] == level}
        boundary = _boundary(proto.graph, depth, level - 1)
        moments, held = _pass(proto, model_path, source, here, boundary, held_bytes)
        seen = moments.samples
        for name in here:
            found[name] = moments.tensors[name]
            rewrite(proto, name, found[name])
        if held is not None:
            source = held
    return proto, Moments(found, seen)


def _pass(
    proto: Any,
    model_path: Path,
    source: Samples | _Held,
    tensors: Mapping[str, int],
    boundary: list[str],
    held_bytes: int,
) -> tuple[Moments, _Held | None]:
    """Moments of `tensors`, and the boundary's activations of all samples where they fit."""
    given = source.types if isinstance(source, _Held) else None
    part, outputs = _part(proto, tensors, boundary, given)
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        path = Path(folder) / model_path.name
        save_with_links(part, model_path, path)
        session, inputs = open_native(path, model_path, "cpu", optimized=False, threads=None)
    accumulator = MomentsAccumulator(tensors)
    kept: list[tuple[str, dict[str, npt.NDArray[Any]]]] | None = []
    size = 0
    for sample_id, feeds in source:
        fed = feeds if given else {name: batched(array, inputs.get(name)) for name, array in feeds.items()}
        # An input that is an output too comes back as an alias of freed memory (onnxruntime#21922).
        values = {**run_sample(session, outputs, fed, sample_id), **{n: a for n, a in fed.items() if n in boundary}}
        accumulator.add(values, sample_id)
        if kept is not None:
            kept.append((sample_id, {name: values[name] for name in boundary}))
            size += sum(array.nbytes for array in kept[-1][1].values())
            kept = kept if size <= held_bytes else None
    return accumulator.moments(), None if kept is None else _Held(kept)


def _part(
    proto: Any, tensors: Mapping[str, int], boundary: list[str], given: Mapping[str, Any] | None
) -> tuple[Any, list[str]]:
    """The part of the model that computes moments and boundary, from the model's inputs or from what is given."""
    import onnx

    if given is None:
        inputs = list(proto.graph.input)
    else:
        kinds = {name: onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)) for name, dtype in given.items()}
        inputs = [onnx.helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()]
    names = {value.name for value in inputs}
    computed = [name for name in boundary if name not in names]
    part = part_of(proto, inputs, [onnx.ValueInfoProto(name=name) for name in dict.fromkeys((*computed, *tensors))])
    del part.graph.output[len(computed) :]
    return part, [*computed, *add_moments(part.graph, tensors, opset_of(proto))]


def _depths(graph: Any, targets: Mapping[str, int]) -> dict[str, int]:
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
