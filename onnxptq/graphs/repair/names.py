"""Names as the quantizer expects them: of nodes that it must find, of tensors clear of those that it makes up."""

from __future__ import annotations

from collections import Counter
from typing import Any

from onnxptq.graphs.kept_in_float import kept_in_float
from onnxptq.graphs.normalizers import input_chains
from onnxptq.graphs.parts import subgraphs
from onnxptq.graphs.post_processing import post_processing
from onnxptq.graphs.repair.editing import Editing

_MADE_UP = (
    *("_quantized", "_scale", "_zero_point", "_quantized_scale", "_quantized_zero_point"),
    *("_QuantizeLinear_Output", "_QuantizeLinear_Input", "_DequantizeLinear_Output"),
)
"""What the quantizer adds to a tensor's name (`quant_utils.py`, `qdq_quantizer.py`)."""


def one_name_each(editing: Editing) -> bool:
    """Numbers the nodes that share a name: ONNX Runtime does not load such a model, and the quantizer knows by name."""
    taken = Counter(node.name for node in editing.graph.node)
    shared = {name for name, count in taken.items() if name and count > 1}
    seen: set[str] = set()
    for node in editing.graph.node:
        if node.name in shared and node.name in seen:
            node.name = _unused(node.name, taken)
            taken[node.name] += 1
        seen.add(node.name)
    return bool(shared)


def named_where_bias_is_shared(editing: Editing) -> bool:
    """Names the nameless nodes that share a constant: a copy for one of them is put in its place by its name."""
    taken = Counter(node.name for node in editing.graph.node)
    changed = False
    for name, readers in editing.readers().items():
        nameless = [node for node, _ in readers if not node.name]
        if len(readers) < 2 or not nameless or name not in editing.initializers:
            continue
        if not any(position == 2 for _, position in readers):
            continue
        for node in nameless:
            node.name = _unused(f"{node.op_type}_{node.output[0]}", taken)
            taken[node.name] += 1
        changed = True
    return changed


def named_where_kept_in_float(editing: Editing) -> bool:
    """Names the nameless nodes that the quantizer must leave alone, which it is told by name."""
    taken = Counter(node.name for node in editing.graph.node)
    kept = (*kept_in_float(editing.graph), *post_processing(editing.graph))
    nameless = [node for node in kept if not node.name]
    for node in nameless:
        node.name = _unused(f"{node.op_type}_{node.output[0]}", taken)
        taken[node.name] += 1
    return bool(nameless)


def named_behind_inputs(editing: Editing) -> bool:
    """Names the nameless nodes that normalize an input, and those that read it then: they may have to stay in float."""
    taken = Counter(node.name for node in editing.graph.node)
    chains = input_chains(editing.graph)
    first = {chain.output for chain in chains}
    found = [node for chain in chains for node in chain.nodes]
    found += [node for node in editing.graph.node if first.intersection(node.input)]
    nameless = [node for node in found if not node.name]
    for node in nameless:
        node.name = node.name or _unused(f"{node.op_type}_{node.output[0]}", taken)
        taken[node.name] += 1
    return bool(nameless)


def clear_of_the_quantizers(editing: Editing) -> bool:
    """Renames tensors whose name the quantizer would give to a scale, a zero point or a quantized tensor."""
    fixed = editing.inputs | editing.outputs
    changed = False
    for name in sorted(editing.names):
        base = next((name.removesuffix(s) for s in _MADE_UP if name.endswith(s)), None)
        if base is None or base not in editing.names:
            continue
        if name not in fixed:
            rename(editing, name, editing.fresh(f"{name}_of_model"))
        elif base not in fixed:
            rename(editing, base, editing.fresh(f"{base}_tensor"))
        elif base in editing.inputs:
            _behind_identity(editing, base)
        else:
            _before_identity(editing, base)
        changed = True
    return changed


def rename(editing: Editing, old: str, new: str) -> None:
    """Gives a tensor of the main graph another name, wherever nodes compute or read it.

    Inputs and outputs of the main graph keep theirs, for a node that is put there; so do subgraphs that define `old`.
    """
    for tensor in editing.graph.initializer:
        if tensor.name == old:
            tensor.name = new
    for value in editing.graph.value_info:
        if value.name == old:
            value.name = new
    _rename_in(editing.graph.node, old, new)


def _rename_in(nodes: Any, old: str, new: str) -> None:
    waiting = [nodes]
    while waiting:
        for node in waiting.pop():
            for names in (node.input, node.output):
                for position, name in enumerate(names):
                    if name == old:
                        names[position] = new
            for graph in subgraphs(node):
                own = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
                own |= {name for inner in graph.node for name in inner.output}
                if old not in own:
                    waiting.append(graph.node)
                    for value in graph.output:
                        if value.name == old:
                            value.name = new


def _behind_identity(editing: Editing, name: str) -> None:
    """Lets all readers of a graph input read a copy of it, whose name is free."""
    import onnx

    copy = editing.fresh(f"{name}_tensor")
    _rename_in(editing.graph.node, name, copy)
    editing.graph.node.insert(0, onnx.helper.make_node("Identity", [name], [copy], name=f"{copy}_identity"))


def _before_identity(editing: Editing, name: str) -> None:
    """Lets a graph output be a copy of what was computed under its name."""
    import onnx

    inner = editing.fresh(f"{name}_tensor")
    rename(editing, name, inner)
    editing.graph.node.append(onnx.helper.make_node("Identity", [inner], [name], name=f"{inner}_identity"))


def _unused(wanted: str, taken: Counter[str]) -> str:
    number = 1
    while f"{wanted}_{number}" in taken:
        number += 1
    return f"{wanted}_{number}"
