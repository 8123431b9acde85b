"""What the static quantizer leaves in float though it holds weights: said to the user, so that nobody is surprised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.errors import ModelError
from onnxptq.graphs.parts import is_standard
from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

RECURRENT = ("LSTM", "GRU", "RNN")
"""ONNX Runtime quantizes them dynamically only."""

_NAMED = 6
"""Kinds of operators, or nodes, that a message names."""

_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)


def float_parts(path: Path) -> tuple[str, ...]:
    """One line for each recurrent operator and each subgraph with weights that the quantizer does not enter.

    Args:
        path: the float model, as the quantizer will get it.
    """
    return tuple(line for node in skeleton(path).graph.node for line in _lines(node))


def check_quantized(written: Path, source: Path, excluded: Sequence[str] = ()) -> None:
    """Raises ModelError where a file that was to be INT8 computes in float altogether.

    Args:
        written: what the quantizer wrote.
        source: the float model, as the quantizer got it.
        excluded: names of nodes that were to stay in float.
    """
    if not any(node.op_type == "QuantizeLinear" for node in skeleton(written).graph.node):
        raise _nothing(source, excluded)


def check_quantizable_operators(source: Path) -> None:
    """Raises ModelError where the static quantizer has no INT8 for any operator of a model; it would write it as it is.

    Args:
        source: the float model, as the quantizer will get it.
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    known = {*QDQRegistry, *QLinearOpsRegistry}
    if not any(is_standard(node) and node.op_type in known for node in skeleton(source).graph.node):
        raise _nothing(source, ())


def _nothing(source: Path, excluded: Sequence[str]) -> ModelError:
    """What stayed in float and why."""
    nodes = skeleton(source).graph.node
    left_out = [node for node in nodes if node.name in set(excluded)]
    kinds = Counter(node.op_type for node in nodes if node.name not in set(excluded))
    held = ", ".join(f"{count} {operator}" for operator, count in sorted(kinds.items())[:_NAMED]) or "no other node"
    more = f" and {len(kinds) - _NAMED} more kinds" if len(kinds) > _NAMED else ""
    reason = f"ONNX Runtime's static quantizer has no INT8 for what the model computes with ({held}{more})"
    if left_out:
        names = ", ".join(node.name for node in left_out[:_NAMED])
        reason = f"{len(left_out)} nodes were left out by name or by the target ({names}); the rest is {held}{more}"
    return ModelError(
        f"nothing of the model was quantized, so there is no INT8 file: {reason}. Recurrent nets can be quantized "
        "dynamically, tree ensembles and other classical models not at all: deploy the model as it is."
    )


def _lines(node: onnx.NodeProto) -> Iterator[str]:
    what = f"{node.op_type} {node.name!r}" if node.name else node.op_type
    if node.op_type in RECURRENT:
        yield f"{what} stays in float: ONNX Runtime's static quantizer has no INT8 {node.op_type}."
        return
    inside = Counter(inner.op_type for inner in _nested(node) if inner.op_type in _WITH_WEIGHTS)
    if inside:
        held = ", ".join(f"{count} {operator}" for operator, count in sorted(inside.items()))
        yield f"{what} stays in float with all that its subgraphs hold ({held}): the quantizer does not enter them."


def _nested(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    """The nodes of a node's subgraphs, and of theirs."""
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for inner in graph.node:
                yield inner
                yield from _nested(inner)
