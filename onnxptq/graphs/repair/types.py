"""Types of tensors that ONNX's shape inference does not know, asked of ONNX Runtime itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.errors import ModelError
from onnxptq.graphs.external import save_with_links
from onnxptq.graphs.repair.editing import Editing
from onnxptq.graphs.shapes import inferred_graph

if TYPE_CHECKING:
    import onnx

_RUNTIME_TYPES = {
    "float": "FLOAT",
    "float16": "FLOAT16",
    "double": "DOUBLE",
    "bool": "BOOL",
    "string": "STRING",
    "bfloat16": "BFLOAT16",
    **{name: name.upper() for name in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")},
}
"""ONNX Runtime's words, as in tensor(float), for the types of ONNX."""


def infer_types(editing: Editing, source: Path) -> bool:
    """Writes the types of all computed tensors that have none into the graph.

    The quantizer never ends where a Split reads a tensor of unknown type, and leaves operators in float without a word.

    Args:
        editing: the folded model.
        source: the file that it was read from, beside which its external data lie.

    Raises:
        ModelError: ONNX Runtime cannot load the model, or does not know the type either.
    """
    import onnx

    missing = _untyped(editing.proto)
    if not missing:
        return False
    types = _runtime_types(editing.proto, missing, source)
    for name, said in types.items():
        inner = said.removeprefix("tensor(").removesuffix(")")
        if inner in _RUNTIME_TYPES:
            kind = getattr(onnx.TensorProto, _RUNTIME_TYPES[inner])
            _forget(editing, name)
            editing.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, None))
    return True


def _untyped(proto: onnx.ModelProto) -> list[str]:
    """Computed tensors of the main graph whose type is not known after shape inference, as the quantizer does it."""
    graph = inferred_graph(proto)
    typed = {
        value.name
        for value in (*graph.value_info, *graph.input, *graph.output)
        if value.type.WhichOneof("value") not in (None, "tensor_type") or value.type.tensor_type.elem_type
    }
    return [name for node in graph.node for name in node.output if name and name not in typed]


def _runtime_types(proto: onnx.ModelProto, names: list[str], source: Path) -> dict[str, str]:
    import onnx
    import onnxruntime

    probe = type(proto)()
    probe.CopyFrom(proto)
    outputs = {value.name for value in probe.graph.output}
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in outputs)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    with tempfile.TemporaryDirectory(prefix="onnxptq.") as folder:
        path = Path(folder) / source.name
        save_with_links(probe, source, path)
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            reason = str(error).strip().splitlines()[0]
            raise ModelError(
                f"the type of the tensor {names[0]!r} (and of {len(names) - 1} more) is not known, and ONNX Runtime "
                f"cannot load the model to find it: {reason}"
            ) from error
        return {value.name: value.type for value in session.get_outputs() if value.name in set(names)}


def _forget(editing: Editing, name: str) -> None:
    kept = [value for value in editing.graph.value_info if value.name != name]
    del editing.graph.value_info[:]
    editing.graph.value_info.extend(kept)
