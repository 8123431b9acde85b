"""Models that take encoded bytes: their pre-processing is cut off, the body quantized, and the two put together again.

onnxruntime-extensions builds decoding, resizing and tokenizing into the graph (`PrePostProcessor`). Its operators are
unknown to the quantizer and its calibrators, and normalisation must not be quantized anyway.

1. The body starts at the first nodes that hold weights (Conv, Gemm, MatMul, recurrent, embeddings) or quantize.
2. Everything before them is pre-processing, and stays in float as it is.
3. What the body reads of it are the body's inputs.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from onnxptq.cache import Cache, content_key, is_whole, seal
from onnxptq.errors import ModelError
from onnxptq.graphs.external import install, is_large
from onnxptq.graphs.load import Model, Parts, load_model
from onnxptq.graphs.parts import opset_of, part_of, reads
from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

EXTENSION_DOMAINS = ("ai.onnx.contrib", "com.microsoft.extensions")

_FORMAT = 1
"""Of what the cache keeps of a model in two halves; a new one makes those of older versions unknown."""

_BODY_OPERATORS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "QuantizeLinear"})


@dataclass(frozen=True)
class Cut:
    """A model in two parts.

    Attributes:
        head: the pre-processing, an ONNX file: the model's inputs to `tensors`.
        body: the rest, an ONNX file: `tensors` to the model's outputs.
        tensors: where the two meet.
    """

    head: Path
    body: Path
    tensors: tuple[str, ...]


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
    files = [folder / name for name in ("head.onnx", "body.onnx", meeting.name)]
    if not is_whole(*files):
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".cut.") as made:
            parts = cut(model.path, Path(made))
            folder.mkdir(exist_ok=True)
            for part in (parts.head, parts.body):
                part.replace(folder / part.name)
            listed = Path(made) / meeting.name
            listed.write_text("\n".join(parts.tensors), encoding="utf-8")
            listed.replace(meeting)
        seal(*files)
    tensors = tuple(meeting.read_text(encoding="utf-8").splitlines())
    return replace(model, parts=Parts(folder / "head.onnx", load_model(folder / "body.onnx"), tensors))


def cut(path: Path, folder: Path) -> Cut:
    """Writes the two parts of a model to `folder`, as `head.onnx` and `body.onnx`.

    Raises:
        ModelError: there is no body behind the pre-processing, the body has operators of onnxruntime-extensions, or
            the pre-processing computes an output of the model.
    """
    import onnx

    model = onnx.load(str(path))
    graph = model.graph
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in constants]
    body = _body(graph, constants)
    tensors = _meeting(graph, body, {value.name for value in inputs})
    _check(path, graph, body, tensors)
    ends = _typed(model, path, tensors)
    parts = {"head": part_of(model, inputs, ends), "body": part_of(model, ends, graph.output)}
    for name, part in parts.items():
        used = {node.domain for node in part.graph.node} | {""}
        for entry in [e for e in part.opset_import if e.domain in EXTENSION_DOMAINS and e.domain not in used]:
            part.opset_import.remove(entry)
        onnx.helper.set_model_props(part, {entry.key: entry.value for entry in model.metadata_props})
        onnx.save(part, str(folder / f"{name}.onnx"))
    return Cut(folder / "head.onnx", folder / "body.onnx", tensors)


def rejoin(head: Path, body: Path, output: Path) -> None:
    """Puts the pre-processing before a body again, which may have been quantized since, and writes the whole.

    Args:
        head: from `cut`.
        body: the body, with the same inputs; its metadata are those of the whole.
        output: the file to write, by way of a temporary name.

    Raises:
        ModelError: the parts do not belong together.
        OutputError: `output` cannot be written.
    """
    import onnx

    whole = onnx.load(str(body), load_external_data=False)
    front = _of_opset(onnx.load(str(head)), whole)
    meeting = {value.name for value in front.graph.output}
    if meeting != {value.name for value in whole.graph.input}:
        raise ModelError(f"{body} does not take what {head} computes: it is not the body that was cut off there.")
    clash = _own_names(front.graph) & _own_names(whole.graph)
    if clash:
        raise ModelError(f"{head} and {body} both have a tensor {min(clash)!r}; expected two parts of one model.")
    nodes = [*front.graph.node, *whole.graph.node]
    for field in ("node", "input"):
        whole.graph.ClearField(field)
    whole.graph.node.extend(nodes)
    whole.graph.input.extend(front.graph.input)
    whole.graph.initializer.extend(front.graph.initializer)
    whole.graph.value_info.extend([*front.graph.value_info, *front.graph.output])
    known = {entry.domain for entry in whole.opset_import}
    whole.opset_import.extend(entry for entry in front.opset_import if entry.domain not in known)
    whole.functions.extend(f for f in front.functions if f not in whole.functions)
    whole.ir_version = max(whole.ir_version, front.ir_version)
    install(body, output, whole)


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


def _check(path: Path, graph: onnx.GraphProto, body: list[onnx.NodeProto], tensors: tuple[str, ...]) -> None:
    if not body or not tensors:
        raise ModelError(
            f"{path} has no layer with weights behind its pre-processing, so there is nothing to quantize."
        )
    custom = next((node for node in body if node.domain in EXTENSION_DOMAINS), None)
    if custom is not None:
        raise ModelError(
            f"{path} uses {custom.op_type} of onnxruntime-extensions behind its first layer; only what comes before it "
            "can be cut off. Quantize the model without its post-processing."
        )
    computed = {name for node in body for name in node.output}
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


def _of_opset(front: onnx.ModelProto, body: onnx.ModelProto) -> onnx.ModelProto:
    """The head in the opset of the body, which folding may have raised."""
    import onnx

    if opset_of(front) == opset_of(body):
        return front
    return onnx.version_converter.convert_version(front, opset_of(body))


def _own_names(graph: onnx.GraphProto) -> set[str]:
    return {name for node in graph.node for name in node.output if name} | {t.name for t in graph.initializer}
