"""Pre- and post-processing of onnxruntime-extensions is cut off, the body quantized, and all of it put together again.

onnxruntime-extensions builds decoding, resizing, tokenizing, drawing and encoding into the graph (`PrePostProcessor`).
Its operators are unknown to the quantizer and its calibrators, and normalisation must not be quantized anyway.

1. The body starts at the first nodes that hold weights (Conv, Gemm, MatMul, recurrent, embeddings) or quantize.
2. Everything before them is pre-processing, and stays in float as it is. What the body reads of it are its inputs.
3. The operators of the extensions behind the body, and all that needs them, are post-processing. What they read of the
   body, and what is an output of the model already, are the body's outputs: by these the model is judged.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxptq.cache import Cache, content_key, is_whole, seal
from onnxptq.errors import ModelError
from onnxptq.graphs.external import install, is_large
from onnxptq.graphs.load import Model, Parts, load_model
from onnxptq.graphs.modernize import in_opset
from onnxptq.graphs.parts import opset_of, part_of, reads
from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

EXTENSION_DOMAINS = ("ai.onnx.contrib", "com.microsoft.extensions")

_FORMAT = 2
"""Of what the cache keeps of a model in two halves; a new one makes those of older versions unknown."""

_BODY_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "QuantizeLinear"})


@dataclass(frozen=True)
class Cut:
    """A model in parts.

    Attributes:
        head: the pre-processing, an ONNX file: the model's inputs to `tensors`, and to what `tail` reads of it. Without
            operators of the extensions before the body it has no nodes but those that the tail needs.
        body: the rest, an ONNX file: `tensors` to the body's outputs.
        tensors: where the two meet.
        tail: the post-processing, an ONNX file; None where there is none.
    """

    head: Path
    body: Path
    tensors: tuple[str, ...]
    tail: Path | None = None


def has_preprocessing(path: Path) -> bool:
    """Whether a model uses operators of onnxruntime-extensions."""

    return any(node.domain in EXTENSION_DOMAINS for node in skeleton(path).graph.node)


def taken_apart(model: Model, cache: Cache) -> Model:
    """The model with its two halves, which the cache keeps; itself where it has no operators of onnxruntime-extensions.

    Raises:
        ModelError: as `cut`, or the model is too large for one file.
    """
    if not has_preprocessing(model.path):
        return model
    if is_large(model):
        raise ModelError(
            f"{model.path} has its pre-processing in the graph and {model.size / 1e9:.1f} GB, too much to be taken "
            "apart. Export it without its pre-processing."
        )
    folder = cache.place("parts", content_key("parts", model=model.digest, format=_FORMAT), "")
    meeting = folder / "tensors.txt"
    names = ("head.onnx", "body.onnx", "tail.onnx", meeting.name)
    files = [folder / name for name in names]
    if not is_whole(*files):
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".cut.") as made:
            parts = cut(model.path, Path(made))
            folder.mkdir(exist_ok=True)
            for part in (parts.head, parts.body, parts.tail or _nothing(Path(made))):
                part.replace(folder / part.name)
            listed = Path(made) / meeting.name
            listed.write_text("\n".join(parts.tensors), encoding="utf-8")
            listed.replace(meeting)
        seal(*files)
    tensors = tuple(meeting.read_text(encoding="utf-8").splitlines())
    tail = folder / "tail.onnx"
    found = Parts(
        folder / "head.onnx",
        load_model(folder / "body.onnx"),
        tensors,
        tail if tail.stat().st_size else None,
        encoded=any(node.domain in EXTENSION_DOMAINS for node in skeleton(folder / "head.onnx").graph.node),
    )
    return replace(model, parts=found)


def _nothing(folder: Path) -> Path:
    """An empty file in the place of a tail, so that the parts of every model have the same names."""
    empty = folder / "tail.onnx"
    empty.write_bytes(b"")
    return empty


def cut(path: Path, folder: Path) -> Cut:
    """Writes the two parts of a model to `folder`, as `head.onnx` and `body.onnx`.

    Raises:
        ModelError: there is no body behind the pre-processing, or the pre-processing computes an output of the model.
    """
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    behind = _body(graph, constants)
    tail = _tail(behind)
    body = [node for node in behind if not any(node is one for one in tail)]
    tensors = _meeting(graph, body, {value.name for value in inputs})
    _check(path, graph, behind, body, tensors)
    ends = _typed(model, path, tensors)
    if tail:
        inside = {name for node in body for name in node.output}
        read = dict.fromkeys(_meeting(graph, tail, {value.name for value in inputs}))
        own = {name for node in tail for name in node.output}
        given = _typed(model, path, tuple(name for name in read if name not in inside))
        results = tuple(
            dict.fromkeys([*(n for n in read if n in inside), *(v.name for v in graph.output if v.name in inside)])
        )
        handed = _typed(model, path, results)
        made = [value for value in graph.output if value.name in own]
        parts = {
            "head": part_of(model, inputs, [*ends, *(value for value in given if value.name not in tensors)]),
            "body": part_of(model, ends, handed),
            "tail": part_of(model, [*(v for v in handed if v.name in read), *given], made),
        }
    else:
        parts = {"head": part_of(model, inputs, ends), "body": part_of(model, ends, graph.output)}
    for name, part in parts.items():
        used = {node.domain for node in part.graph.node} | {""}
        for entry in [e for e in part.opset_import if e.domain in EXTENSION_DOMAINS and e.domain not in used]:
            part.opset_import.remove(entry)
        onnx.helper.set_model_props(part, {entry.key: entry.value for entry in model.metadata_props})
        onnx.save(part, str(folder / f"{name}.onnx"))
    return Cut(folder / "head.onnx", folder / "body.onnx", tensors, folder / "tail.onnx" if tail else None)


def rejoin(head: Path, body: Path, output: Path, tail: Path | None = None, outputs: Sequence[str] = ()) -> None:
    """Puts pre- and post-processing around a body again, which may have been quantized since, and writes the whole.

    Args:
        head: from `cut`.
        body: the body, with the same inputs; its metadata are those of the whole.
        output: the file to write, by way of a temporary name.
        tail: from `cut`, if it made one.
        outputs: the whole's outputs in their order, where there is a tail.

    Raises:
        ModelError: the parts do not belong together.
        OutputError: `output` cannot be written.
    """
    import onnx

    whole = onnx.load(str(body), load_external_data=False)
    front = in_opset(onnx.load(str(head)), opset_of(whole), head)
    meeting = {value.name for value in front.graph.output}
    inputs = {value.name for value in whole.graph.input}
    if not (inputs <= meeting if tail else inputs == meeting):
        raise ModelError(f"{body} does not take what {head} computes: it is not the body that was cut off there.")
    clash = _own_names(front.graph) & _own_names(whole.graph)
    if clash:
        raise ModelError(f"{head} and {body} both have a tensor {min(clash)!r}; expected two parts of one model.")
    nodes = [*front.graph.node, *whole.graph.node]
    if tail is not None:
        back = in_opset(onnx.load(str(tail)), opset_of(whole), tail)
        nodes += back.graph.node
        results = {value.name: value for value in (*whole.graph.output, *back.graph.output)}
        whole.graph.ClearField("output")
        whole.graph.output.extend(results[name] for name in outputs)
        known = {tensor.name for tensor in (*front.graph.initializer, *whole.graph.initializer)}
        whole.graph.initializer.extend(tensor for tensor in back.graph.initializer if tensor.name not in known)
        _join_opsets(whole, back)
    for field in ("node", "input"):
        whole.graph.ClearField(field)
    whole.graph.node.extend(nodes)
    whole.graph.input.extend(front.graph.input)
    whole.graph.initializer.extend(front.graph.initializer)
    given = {value.name for value in front.graph.input}
    computed = [value for value in front.graph.output if value.name not in given]
    whole.graph.value_info.extend([*front.graph.value_info, *computed])
    _join_opsets(whole, front)
    install(body, output, whole)


def _join_opsets(whole: onnx.ModelProto, part: onnx.ModelProto) -> None:
    known = {entry.domain for entry in whole.opset_import}
    whole.opset_import.extend(entry for entry in part.opset_import if entry.domain not in known)
    whole.functions.extend(f for f in part.functions if f not in whole.functions)
    whole.ir_version = max(whole.ir_version, part.ir_version)


def _tail(behind: Sequence[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Of the nodes from the first weights on the operators of the extensions, and all that needs them."""
    made: set[str] = set()
    nodes = []
    for node in behind:
        if node.domain in EXTENSION_DOMAINS or made & set(reads(node)):
            nodes.append(node)
            made.update(name for name in node.output if name)
    return nodes


def _body(graph: onnx.GraphProto, constants: set[str]) -> list[onnx.NodeProto]:
    """The nodes from the first weights on, in order."""
    behind: set[str] = set()
    nodes = []
    for node in graph.node:
        table = node.op_type == "Gather" and node.input[0] in constants
        if node.op_type in _BODY_OPERATORS or table or behind & set(reads(node)):
            nodes.append(node)
            behind.update(name for name in node.output if name)
    return nodes


def _meeting(graph: onnx.GraphProto, body: list[onnx.NodeProto], inputs: set[str]) -> tuple[str, ...]:
    """What the body reads of tensors that depend on the model's inputs and are not its own."""
    inside = {name for node in body for name in node.output}
    varying = set(inputs)
    for node in graph.node:
        if varying & set(reads(node)):
            varying.update(name for name in node.output if name)
    read = (name for node in body for name in reads(node))
    return tuple(dict.fromkeys(name for name in read if name in varying - inside))


def _check(
    path: Path,
    graph: onnx.GraphProto,
    behind: list[onnx.NodeProto],
    body: list[onnx.NodeProto],
    tensors: tuple[str, ...],
) -> None:
    if not any(node.op_type in _BODY_OPERATORS or node.op_type == "Gather" for node in body) or not tensors:
        raise ModelError(
            f"{path} has no layer with weights behind its pre-processing, so there is nothing to quantize."
        )
    computed = {name for node in behind for name in node.output}
    for value in graph.output:
        if value.name not in computed:
            raise ModelError(f"the output {value.name!r} of {path} comes from its pre-processing; leave it out.")


def _typed(model: onnx.ModelProto, path: Path, tensors: tuple[str, ...]) -> list[onnx.ValueInfoProto]:
    """The tensors with type and shape, which ONNX Runtime knows: onnx cannot infer through custom operators."""
    import onnx

    from onnxptq.runtimes import open_session

    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in tensors)
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        onnx.save(probe, str(Path(folder) / path.name))
        specs = open_session(Path(folder) / path.name).signature.outputs
    return [
        onnx.helper.make_tensor_value_info(
            # ONNX Runtime calls a shape that it does not know ().
            spec.name,
            onnx.helper.np_dtype_to_tensor_dtype(np.dtype(spec.dtype)),
            list(spec.shape) or None,
        )
        for spec in specs
    ]


def _own_names(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output if name} | {t.name for t in graph.initializer}
