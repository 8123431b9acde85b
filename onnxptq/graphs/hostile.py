"""ONNX files that are made to do harm, refused before anything is allocated for what they declare, or read elsewhere.

A model is data from a stranger. Looked at here: bytes that a parser would blow up (`check_bytes`), sizes that are
declared and not there, and operators of unknown domains (`check_declared`). That external data lies inside the model's
folder is checked in `load`. What only shows while a model is loaded or run is left to the isolated worker with its
limits of memory and time (`onnxptq.runtimes.isolated`).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.errors import ModelError
from onnxptq.graphs._wire import outline

if TYPE_CHECKING:
    import onnx

MAX_FILE_BYTES = 2**31
"""Protobuf's own limit for one message; larger models keep their weights in external data."""

MAX_FIELDS = 2_000_000
"""Fields of messages. The largest language models have a few hundred thousand; each takes up to 200 bytes parsed."""

MAX_DEPTH = 64
"""Messages inside each other: 20 graphs in branches of branches. Protobuf gives up at 100."""

MAX_TENSOR_BYTES = 2**33
"""A tensor that the file declares with a fixed shape: 8 GiB, more than any batch that a CPU or GPU takes."""

KNOWN_DOMAINS = frozenset(
    {
        "",
        "ai.onnx",
        "ai.onnx.ml",
        "ai.onnx.contrib",  # onnxruntime-extensions
        "com.microsoft",
        "com.microsoft.extensions",
        "com.microsoft.nchwc",
        "com.ms.internal.nhwc",
    }
)
"""Domains of operators of ONNX and ONNX Runtime. ai.onnx.preview.training is not among them: models to deploy do not
train."""

_SHAPE_INPUTS = {"ConstantOfShape": 0, "Expand": 1, "Tile": 1, "Reshape": 1, "Resize": 3, "RandomNormalLike": 1}
"""Operators that make a tensor as large as an input says, and which input that is."""


def check_bytes(path: Path) -> None:
    """Looks at a file before it is read and parsed.

    Raises:
        ModelError: it is no regular file, larger than ONNX files can be, or its messages are too many or too deep.
        OSError: it cannot be read.
    """
    size = path.stat().st_size
    if not path.is_file() and not path.is_dir():
        raise ModelError(f"{path} is a device or a pipe; give the name of an ONNX file.")
    if size >= MAX_FILE_BYTES:
        raise ModelError(
            f"{path} has {size} bytes; an ONNX file has less than 2 GiB, and larger models keep their weights in "
            "external data. It was not read."
        )
    found = outline(path, max_fields=MAX_FIELDS, max_depth=MAX_DEPTH)
    if found.fields > MAX_FIELDS:
        raise ModelError(f"{path} is refused: it has more than {MAX_FIELDS} fields, which no real model has.")
    if found.depth > MAX_DEPTH:
        raise ModelError(
            f"{path} is refused: its messages lie more than {MAX_DEPTH} deep inside each other, which no real model's "
            "do. Export it again without branches in branches."
        )


def check_declared(proto: onnx.ModelProto, path: Path, domains: Collection[str] | None) -> None:
    """Looks at what a model declares. External data is measured, not read.

    Args:
        proto: the model without its external data.
        path: of the file, for messages and as the place of external data.
        domains: operator domains beyond `KNOWN_DOMAINS` that are accepted; None accepts all.

    Raises:
        ModelError: a name is not text; a tensor declares more than is there, or a size that nobody has; an operator
            of another domain.
    """
    try:
        _read_names(proto)
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is damaged: a name in it is not UTF-8 ({error}). Export or copy it again.") from error
    if domains is not None:
        _check_domains(proto, path, KNOWN_DOMAINS | set(domains))
    for graph in _graphs(proto):
        for tensor in _tensors(graph):
            _check_tensor(tensor, path)
        for value in [*graph.input, *graph.output, *graph.value_info]:
            _check_value(value, path)
        _check_made_shapes(graph, path)
    for function in proto.functions:
        for tensor in _node_tensors(function.node):
            _check_tensor(tensor, path)


def _read_names(proto: onnx.ModelProto) -> None:
    """Looks at every name once, because protobuf decodes them when they are looked at, whoever does that first."""
    for entry in [*proto.metadata_props, *proto.opset_import]:
        _ = entry.ListFields()
    nodes = [node for function in proto.functions for node in function.node]
    for graph in _graphs(proto):
        nodes.extend(graph.node)
        for value in [*graph.input, *graph.output, *graph.value_info]:
            _ = (value.name, [dim.ListFields() for dim in value.type.tensor_type.shape.dim])
        for tensor in _tensors(graph):
            _ = (tensor.name, [entry.ListFields() for entry in tensor.external_data])
    for node in nodes:
        _ = (node.name, node.op_type, node.domain, list(node.input), list(node.output))
        _ = [(attribute.name, attribute.ref_attr_name) for attribute in node.attribute]


def _check_domains(proto: onnx.ModelProto, path: Path, known: Collection[str]) -> None:
    own = {function.domain for function in proto.functions}
    nodes = [node for graph in _graphs(proto) for node in graph.node]
    nodes += [node for function in proto.functions for node in function.node]
    for node in nodes:
        if node.domain not in known and node.domain not in own:
            raise ModelError(
                f"{path} is refused: it uses the operator {node.op_type!r} of the unknown domain {node.domain!r}. "
                f'Where you trust it, write domains = ["{node.domain}"] in [graph] of the policy.'
            )


def _check_tensor(tensor: onnx.TensorProto, path: Path) -> None:
    count = _elements(tensor.dims)
    if count is None:
        raise ModelError(f"{path} is refused: the tensor {tensor.name!r} has the shape {list(tensor.dims)}.")
    bits = _bits(tensor.data_type)
    if tensor.external_data:
        given: float = _external_bytes(tensor, path)
    elif tensor.raw_data:
        given = len(tensor.raw_data)
    else:
        # Typed fields may pack several small numbers into one entry, never more than 16.
        entries = max(
            len(getattr(tensor, f"{name}_data")) for name in ("float", "int32", "string", "int64", "double", "uint64")
        )
        given, bits = entries * 16, 8
    if count * bits > given * 8:
        raise ModelError(
            f"{path} is refused: the tensor {tensor.name!r} declares {count} elements (shape {list(tensor.dims)}), "
            "more than the file holds. Export or copy it again."
        )
    known = tensor.data_type in _plain_types()
    if known and tensor.raw_data and not tensor.external_data and given != (count * bits + 7) // 8:
        raise ModelError(
            f"{path} is refused: the tensor {tensor.name!r} declares {count} elements (shape {list(tensor.dims)}), and "
            f"the file holds {given} bytes for them instead of {(count * bits + 7) // 8}. Export or copy it again."
        )


def _external_bytes(tensor: onnx.TensorProto, path: Path) -> float:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else None
        file = (path.parent / entries["location"]).resolve()
        if not file.is_relative_to(path.parent.resolve()):
            raise ValueError("it is outside the folder of the model")
        size = file.stat().st_size
    except (KeyError, ValueError, OSError) as error:
        raise ModelError(
            f"{path} is refused: the tensor {tensor.name!r} does not say where its external data lies "
            f"({getattr(error, 'strerror', None) or error})."
        ) from error
    if offset < 0 or (length or 0) < 0 or offset + (length or 0) > size:
        raise ModelError(
            f"{path} is refused: the tensor {tensor.name!r} asks for bytes {offset} to {offset + (length or 0)} of "
            f"{entries['location']!r}, which has {size}. Copy the data file again."
        )
    return size - offset if length is None else length


def _check_value(value: onnx.ValueInfoProto, path: Path) -> None:
    kind = value.type.tensor_type
    count = math.prod(max(d.dim_value, 1) for d in kind.shape.dim)
    if count * _bits(kind.elem_type) > MAX_TENSOR_BYTES * 8:
        shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
        raise ModelError(
            f"{path} is refused: {value.name!r} declares the shape {shape}, more than {MAX_TENSOR_BYTES >> 30} GiB."
        )


def _check_made_shapes(graph: onnx.GraphProto, path: Path) -> None:
    """Operators whose output is as large as a constant says: ONNX Runtime would make it while it loads the model."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.output:
            constants.update((node.output[0], a.t) for a in node.attribute if a.HasField("t"))
    for node in graph.node:
        position = _SHAPE_INPUTS.get(node.op_type)
        if position is None or position >= len(node.input) or node.input[position] not in constants:
            continue
        values = _whole_numbers(constants[node.input[position]])
        if math.prod(max(abs(v), 1) for v in values) > MAX_TENSOR_BYTES:
            raise ModelError(
                f"{path} is refused: its node {node.name or node.op_type!r} makes a tensor of shape {values}, more "
                f"than {MAX_TENSOR_BYTES >> 30} GiB."
            )


def _whole_numbers(tensor: onnx.TensorProto) -> list[int]:
    import onnx

    # A shape has as many numbers as a tensor has dimensions; what is longer is no shape.
    few = len(tensor.raw_data) <= 8 * 64 and len(tensor.int64_data) <= 64
    if tensor.data_type != onnx.TensorProto.INT64 or tensor.external_data or not few:
        return []
    values: list[int] = onnx.numpy_helper.to_array(tensor).ravel().tolist()
    return values


def _elements(dims: Iterable[int]) -> int | None:
    sizes = list(dims)
    return None if any(size < 0 for size in sizes) else math.prod(sizes)


@functools.cache  # Asked for every tensor and value of a graph.
def _bits(data_type: int) -> int:
    import onnx

    names = onnx.TensorProto.DataType
    name = names.Name(data_type) if data_type in names.values() else ""
    if name == "STRING":
        return 0
    # FLOAT8E4M3FN, INT4, UINT2 ...: what no number names has 8 bits or more.
    small = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
    wide = {"FLOAT": 32, "INT32": 32, "UINT32": 32, "INT64": 64, "UINT64": 64, "DOUBLE": 64, "COMPLEX64": 64}
    half = dict.fromkeys(("FLOAT16", "BFLOAT16", "INT16", "UINT16"), 16)
    return {**small, **wide, **half, "COMPLEX128": 128, "UNDEFINED": 1}.get(name, 8)


@functools.cache
def _plain_types() -> frozenset[int]:
    """The types of a known number of bits."""
    import onnx

    names = ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16", "INT64", "INT32", "INT16", "INT8", "UINT64", "UINT32", "UINT16")
    return frozenset(onnx.TensorProto.DataType.Value(name) for name in (*names, "UINT8", "BOOL", "INT4", "UINT4"))


def _graphs(proto: onnx.ModelProto) -> Iterator[onnx.GraphProto]:
    """The graph and all graphs in attributes, of functions and training too."""
    waiting = [proto.graph]
    for function in proto.functions:
        waiting.extend(_inner(function.node))
    for training in proto.training_info:
        waiting.extend((training.initialization, training.algorithm))
    while waiting:
        graph = waiting.pop()
        yield graph
        waiting.extend(_inner(graph.node))


def _inner(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.GraphProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.graphs
            if attribute.HasField("g"):
                yield attribute.g


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            sparse = [
                *attribute.sparse_tensors,
                *([attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []),
            ]
            for pair in sparse:
                yield from (pair.values, pair.indices)
            if attribute.HasField("t"):
                yield attribute.t
