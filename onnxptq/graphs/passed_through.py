"""Outputs of a model that are its inputs, handed on: the quantizer would compute them a second time under one name.

They are left out of the folded model and put back into the INT8 file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx


def drop_passed_through(graph: onnx.GraphProto) -> bool:
    """Leaves out the outputs that are inputs, in place, unless there is no other. Whether any went."""
    inputs = {value.name for value in graph.input}
    kept = [value for value in graph.output if value.name not in inputs]
    if len(kept) == len(graph.output) or not kept:
        return False
    del graph.output[:]
    graph.output.extend(kept)
    return True


def restore_passed_through(written: Path, source: Path) -> None:
    """Puts the outputs that are inputs back into the file at `written`, in the order that they have at `source`."""
    import onnx

    wanted = skeleton(source).graph
    if not {value.name for value in wanted.output} & {value.name for value in wanted.input}:
        return
    proto = onnx.load(str(written), load_external_data=False)
    own = {value.name: value for value in proto.graph.output}
    outputs = [own.get(value.name, value) for value in wanted.output]
    copies = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in outputs]
    del proto.graph.output[:]
    proto.graph.output.extend(copies)
    onnx.save(proto, str(written))
