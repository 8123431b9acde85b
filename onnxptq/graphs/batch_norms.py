"""BatchNormalizations of the source model, remembered in the folded one: folding makes a Conv of them and forgets."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

KEY = "onnxptq.batch_normalizations"
"""Of the folded model's metadata, from where it follows the graph through weight transforms. No INT8 file holds it."""


@dataclass(frozen=True)
class BatchNorm:
    """What training left in a BatchNormalization.

    Attributes:
        scale, bias: gamma and beta of each channel, float32, (C,).
    """

    scale: npt.NDArray[np.float32]
    bias: npt.NDArray[np.float32]


def remember_batch_norms(source: Path, folded: Path) -> None:
    """Writes scale and bias of each BatchNormalization of `source` into the metadata of `folded`, by output tensor.

    Only those whose output is still computed in the folded model, under its name. Nothing is written where there is
    none.
    """
    import onnx

    if all(node.op_type != "BatchNormalization" for node in skeleton(source).graph.node):
        return
    target = onnx.load(str(folded), load_external_data=False)
    computed = {name for node in target.graph.node for name in node.output}
    original = onnx.load(str(source), load_external_data=False)
    constants = {tensor.name: tensor for tensor in original.graph.initializer}
    constants |= {
        node.output[0]: node.attribute[0].t
        for node in original.graph.node
        if node.op_type == "Constant" and node.attribute[0].HasField("t")
    }
    found: dict[str, dict[str, str]] = {}
    for node in original.graph.node:
        parameters = [constants.get(name) for name in node.input[1:3]]
        if node.op_type != "BatchNormalization" or node.output[0] not in computed or None in parameters:
            continue
        scale, bias = (onnx.numpy_helper.to_array(p, str(source.parent)) for p in parameters if p is not None)
        found[node.output[0]] = {"scale": _encoded(scale), "bias": _encoded(bias)}
    if found:
        _set(target, found)
        onnx.save(target, str(folded))


def rescale_batch_norms(proto: onnx.ModelProto, factors: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Lets a model remember its former BatchNormalizations as they are after their outputs were scaled, in place.

    Args:
        proto: the folded model.
        factors: what each output tensor was multiplied by, positive, (C,). Other tensors may be among them.
    """
    found = _remembered(proto)
    for name in found.keys() & factors.keys():
        found[name] = {
            key: _encoded(_decoded(text) * np.asarray(factors[name], np.float32)) for key, text in found[name].items()
        }
    if found:
        _set(proto, found)


def remembered_batch_norms(folded: Path) -> Mapping[str, BatchNorm]:
    """The former BatchNormalizations of a folded model, by output tensor."""
    return {
        name: BatchNorm(_decoded(values["scale"]), _decoded(values["bias"]))
        for name, values in _remembered(skeleton(folded)).items()
    }


def forget_batch_norms(proto: onnx.ModelProto) -> None:
    """Removes the memory from a model's metadata, in place."""
    kept = [entry for entry in proto.metadata_props if entry.key != KEY]
    del proto.metadata_props[:]
    proto.metadata_props.extend(kept)


def _remembered(proto: onnx.ModelProto) -> dict[str, dict[str, str]]:
    texts = (entry.value for entry in proto.metadata_props if entry.key == KEY)
    remembered: dict[str, dict[str, str]] = json.loads(next(texts, "{}"))
    return remembered


def _set(proto: onnx.ModelProto, found: Mapping[str, Mapping[str, str]]) -> None:
    import onnx

    kept = {entry.key: entry.value for entry in proto.metadata_props}
    onnx.helper.set_model_props(proto, {**kept, KEY: json.dumps(found, sort_keys=True)})


def _encoded(array: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(np.asarray(array, "<f4").tobytes()).decode()


def _decoded(text: str) -> npt.NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), "<f4").astype(np.float32)
