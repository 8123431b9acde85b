"""What the static quantizer leaves in float though it holds weights: said to the user, so that nobody is surprised."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

RECURRENT = ("LSTM", "GRU", "RNN")
"""ONNX Runtime quantizes them dynamically only."""

_WITH_WEIGHTS = ("Conv", "ConvTranspose", "Gemm", "MatMul", *RECURRENT)


def float_parts(path: Path) -> tuple[str, ...]:
    """One line for each recurrent operator and each subgraph with weights that the quantizer does not enter.

    Args:
        path: the float model, as the quantizer will get it.
    """
    return tuple(line for node in skeleton(path).graph.node for line in _lines(node))


def nothing_quantized(written: Path) -> tuple[str, ...]:
    """One line where a file that was to be INT8 computes in float altogether.

    Args:
        written: what the quantizer wrote.
    """
    nodes = skeleton(written).graph.node
    if any(node.op_type == "QuantizeLinear" for node in nodes):
        return ()
    kinds = ", ".join(sorted({node.op_type for node in nodes})[:5]) or "nothing"
    return (
        "nothing was quantized: the file computes in float as the model does. The static quantizer has no INT8 for "
        f"what is in it ({kinds}), or all of it was left out.",
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
