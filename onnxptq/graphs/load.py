"""Loading ONNX files: every way in which a file can be unusable is found here and said in the user's words."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxptq.errors import ModelError
from onnxptq.files import FileState, digest_file, remember_digest, state_of
from onnxptq.graphs.hostile import check_bytes, check_declared
from onnxptq.graphs.normalizers import input_chains
from onnxptq.graphs.order import keep_last_constants, sort_model
from onnxptq.graphs.parts import STANDARD_DOMAINS, is_quantized, subgraphs
from onnxptq.graphs.skeleton import remember
from onnxptq.tasks import Signature, TensorSpec

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class Model:
    """An ONNX file that was looked at: what it is, without its weights.

    Attributes:
        path: the file.
        digest: SHA-256 of the file and of its external data, 64 hexadecimal digits.
        signature: inputs (initializers excepted) and outputs.
        metadata: its metadata_props.
        quantized: it has operators that only a quantized graph has, see `is_quantized`.
        size: bytes of the file and of its external data.
        opset: version of the default operator domain.
        parts: the two halves of a model that takes encoded input, where `taken_apart` made them.
    """

    path: Path
    digest: str
    signature: Signature
    metadata: Mapping[str, str]
    quantized: bool
    size: int
    opset: int
    parts: Parts | None = None

    @property
    def core(self) -> Model:
        """What is calibrated, quantized and run: the model without its pre-processing, itself where it has none."""
        return self if self.parts is None else self.parts.body


@dataclass(frozen=True)
class Parts:
    """A model in parts.

    Attributes:
        head: the pre-processing, an ONNX file: the model's inputs to `tensors`.
        body: the rest: `tensors` to the model's outputs, or to what `tail` reads.
        tensors: where the two meet.
        tail: the post-processing, an ONNX file; None where there is none.
        encoded: there is pre-processing, so that the model takes encoded input; else `head` hands its inputs on.
    """

    head: Path
    body: Model
    tensors: tuple[str, ...]
    tail: Path | None = None
    encoded: bool = True


def load_model(path: Path, *, domains: Collection[str] | None = None, written_here: bool = False) -> Model:
    """Looks at an ONNX file.

    Args:
        path: of the file.
        domains: operator domains beyond those of ONNX and ONNX Runtime that are accepted; None accepts all.
        written_here: this process wrote the file just now, so nothing in it was made to do harm: not looked for.

    Raises:
        ModelError: no such file, not an ONNX file, truncated, made to do harm (`graphs.hostile`), or its external data
            is missing or outside its folder.
    """
    proto, state = _parse(path, written_here)
    external = _external_files(proto, path)
    if not written_here:
        check_declared(proto, path, domains)
    _check_structure(proto, path, external)
    digests = bytes.fromhex(digest_file(path))
    for file, parts in external.items():
        digests += digest_of(file, parts)
    quantized = is_quantized(proto)
    remember(path, proto, state)
    return Model(
        path=path,
        digest=hashlib.sha256(digests).hexdigest(),
        signature=_signature(proto),
        metadata={entry.key: entry.value for entry in proto.metadata_props},
        quantized=quantized,
        size=sum(file.stat().st_size for file in (path, *external)),
        opset=next((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), 0),
    )


def _parse(path: Path, written_here: bool) -> tuple[onnx.ModelProto, FileState]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        if not written_here:
            check_bytes(path)
        state = state_of(path)
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"there is no model {path}. {_neighbours(path)}".rstrip()) from error
    except OSError as error:
        if isinstance(error, IsADirectoryError | PermissionError) and path.is_dir():  # The latter is Windows' word.
            raise ModelError(f"{path} is a folder; give the .onnx file in it.") from error
        raise ModelError(f"the model {path} cannot be read: {error.strerror or error}.") from error
    if not data:
        raise ModelError(f"the model {path} is empty (0 bytes). Export or copy it again.")
    try:
        proto = onnx.load_model_from_string(data)
    except (DecodeError, ValueError, RuntimeError) as error:
        raise ModelError(
            f"{path} is not an ONNX file, or it is truncated: {error}. Export or copy it again."
        ) from error
    if not proto.graph.node and not proto.graph.output:
        raise ModelError(f"{path} is not an ONNX model: it has no graph. Expected a file that onnx.save wrote.")
    remember_digest(state, hashlib.sha256(data).hexdigest())
    return proto, state


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either."
    others = sorted(p.name for p in folder.glob("*.onnx"))[:5]
    return f"In its folder: {', '.join(others)}." if others else "There is no .onnx file in its folder."


Part = tuple[int, int | None]
"""Offset and length in bytes; to the end of the file where the length is None."""

_HASHED_WHOLE = 4 << 20
"""Bytes of a file that may belong to no tensor, as what alignment leaves between two: the file is hashed as it is."""


def digest_of(file: Path, parts: Iterable[Part]) -> bytes:
    """SHA-256 of a file, or of those parts of it that a model uses where much of it belongs to nobody.

    A model may name any file of its folder as its data: what it does not use costs nothing.
    """
    size = file.stat().st_size
    merged: list[list[int]] = []
    for offset, length in sorted(parts, key=lambda part: part[0]):
        end = size if length is None else min(offset + length, size)
        if merged and offset <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], end)
        else:
            merged.append([offset, end])
    if size - sum(end - offset for offset, end in merged) <= _HASHED_WHOLE:
        return bytes.fromhex(digest_file(file))
    with file.open("rb") as opened:
        state = hashlib.sha256(repr(merged).encode())
        for offset, end in merged:
            opened.seek(offset)
            while offset < end and (data := opened.read(min(end - offset, 1 << 20))):
                state.update(data)
                offset += len(data)
        return state.digest()


def _external_files(proto: onnx.ModelProto, path: Path) -> dict[Path, list[Part]]:
    """The files of external data, each inside the model's folder, and what is used of them. Nothing of them is read."""
    folder = path.parent.resolve()
    found: dict[Path, list[Part]] = {}
    for tensor in all_tensors(proto):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        location = entries.get("location")
        if location is None:
            continue
        try:
            file = (folder / location).resolve()
            there = file.is_file()
        except (OSError, ValueError) as error:  # A name of 300 characters, or with a null character.
            raise ModelError(
                f"the model {path} asks for external data under a name that no file can have ({shortened(location)!r}, "
                f"tensor {tensor.name!r}): {getattr(error, 'strerror', None) or error}. Save it again."
            ) from error
        if not file.is_relative_to(folder) or Path(location).is_absolute():
            raise ModelError(
                f"the model {path} asks for external data at {shortened(location)!r}, outside its own folder. "
                "That is refused: a model must not read files elsewhere. Save it again with its data beside it."
            )
        if not there:
            raise ModelError(
                f"the external data {shortened(location)!r} of {path} (tensor {tensor.name!r}) is missing. "
                "Copy the data file into the folder of the model."
            )
        found.setdefault(file, []).append(_part(entries))
    return found


def _part(entries: Mapping[str, str]) -> Part:
    """What a tensor uses of its file; all of it where it does not say so in numbers, which is refused elsewhere."""
    try:
        return max(int(entries.get("offset") or 0), 0), int(entries["length"]) if entries.get("length") else None
    except ValueError:
        return 0, None


def shortened(text: str) -> str:
    """A stranger's text that may be long, for a message."""
    return text if len(text) <= 80 else f"{text[:77]}..."


def all_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Every constant of a model, wherever it hides: initializers, attributes, subgraphs, functions."""
    functions = [tensor for function in proto.functions for tensor in _tensors_of_nodes(function.node)]
    return [*_all_tensors(proto.graph), *functions]


def _all_tensors(graph: onnx.GraphProto) -> list[onnx.TensorProto]:
    sparse = [part for tensor in graph.sparse_initializer for part in (tensor.values, tensor.indices)]
    return [*graph.initializer, *sparse, *_tensors_of_nodes(graph.node)]


def _tensors_of_nodes(nodes: Iterable[onnx.NodeProto]) -> list[onnx.TensorProto]:
    tensors: list[onnx.TensorProto] = []
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                tensors.append(attribute.t)
            tensors.extend(attribute.tensors)
            if attribute.HasField("g"):
                tensors.extend(_all_tensors(attribute.g))
            for subgraph in attribute.graphs:
                tensors.extend(_all_tensors(subgraph))
    return tensors


def _check_structure(proto: onnx.ModelProto, path: Path, external: Collection[Path]) -> None:
    import onnx

    checked = _with_imports(proto)
    try:
        onnx.checker.check_model(str(path) if external and checked is proto else checked)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:  # Its words may not be UTF-8 themselves.
        if _is_valid_in_order(checked):
            return
        raise ModelError(f"{path} is not a valid ONNX model: {first_line(error)}") from error


def _with_imports(proto: onnx.ModelProto) -> onnx.ModelProto:
    """The model with an import of each domain that its nodes have; ONNX Runtime knows its own without.

    Operators of unknown domains are not checked themselves, but all that is around them is.
    """
    import onnx

    graphs, used = [proto.graph], set()
    while graphs:
        nodes = graphs.pop().node
        used |= {node.domain for node in nodes}
        graphs.extend(inner for node in nodes for inner in subgraphs(node))
    imported = {entry.domain for entry in proto.opset_import}
    missing = used - imported - ({*STANDARD_DOMAINS} if imported & {*STANDARD_DOMAINS} else set())
    if not missing - {*STANDARD_DOMAINS}:
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    copy.opset_import.extend(onnx.helper.make_opsetid(domain, 1) for domain in sorted(missing - {*STANDARD_DOMAINS}))
    return copy


def _is_valid_in_order(proto: onnx.ModelProto) -> bool:
    """Whether a model is valid once its nodes are sorted and of constants of one name the last is taken.

    ONNX Runtime takes both, and so does folding (`graphs.repair`).
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    if not (sort_model(copy) | keep_last_constants(copy.graph)):
        return False
    for tensor in all_tensors(copy):  # Where external data lie was looked at already.
        if tensor.external_data:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.ClearField("dims")
            tensor.dims.append(0)
    try:
        onnx.checker.check_model(copy)
    except (onnx.checker.ValidationError, ValueError, RuntimeError):
        return False
    return True


def first_line(error: Exception) -> str:
    """What an exception of onnx or ONNX Runtime says first; its type where it says nothing, as some do."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _signature(proto: onnx.ModelProto) -> Signature:
    initializers = {tensor.name for tensor in proto.graph.initializer}
    makers = {name: node.op_type for node in proto.graph.node for name in node.output}
    known = {chain.input: chain.normalizer for chain in input_chains(proto.graph)}
    inputs = (_spec(value) for value in proto.graph.input if value.name not in initializers)
    return Signature(
        inputs=tuple(replace(spec, normalizer=known.get(spec.name)) for spec in inputs),
        outputs=tuple(_spec(value, makers.get(value.name)) for value in proto.graph.output),
    )


def _spec(value: Any, maker: str | None = None) -> TensorSpec:
    import onnx

    kind = value.type.WhichOneof("value")
    if kind in ("sequence_type", "map_type"):
        inner = value.type.sequence_type.elem_type.WhichOneof("value") if kind == "sequence_type" else ""
        # In ONNX Runtime's words, so that the file and a session of it say the same.
        dtype = "map" if kind == "map_type" else "seq(map)" if inner == "map_type" else "seq(tensor)"
        return TensorSpec(value.name, dtype, (), maker=maker)
    tensor = value.type.tensor_type
    # Some exporters write -1 or 0 where a dimension is dynamic.
    shape = tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in tensor.shape.dim)
    symbols = tuple(
        d.dim_param or None if size is None else None for d, size in zip(tensor.shape.dim, shape, strict=True)
    )
    try:
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type).name
    except KeyError:
        dtype = "unknown"
    return TensorSpec(value.name, dtype, shape, symbols, maker)


def check_quantizable(model: Model) -> None:
    """Raises ModelError when the model is quantized already, or computes in a type that we do not quantize."""
    if model.quantized:
        raise ModelError(
            f"{model.path} is quantized already. Give the FP32 model that it came from; "
            "to judge this one, use: onnxptq evaluate MODEL --reference FP32.onnx"
        )
    for spec in model.signature.inputs:
        if spec.dtype in ("float64", "bfloat16"):
            raise ModelError(
                f"input {spec.name!r} of {model.path} is {spec.dtype}; INT8 quantization starts from float32 "
                "or float16. Export the model in float32."
            )
