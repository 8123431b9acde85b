"""Other operators as the quantizer expects them: ConvTranspose with groups, a MaxPool behind a Pad."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from onnxptq.graphs.fills import is_fill
from onnxptq.graphs.repair.editing import Editing, attribute, set_attribute

if TYPE_CHECKING:
    import onnx


def free_grouped_bias(editing: Editing) -> bool:
    """Hides the bias of a ConvTranspose with groups behind an Identity, so that it stays in float.

    Its weight is (inputs, outputs / groups, ...), and so has fewer scales than there are outputs: an int32 bias, whose
    scale is input times weight, cannot be made of them. No provider has an INT8 kernel for ConvTranspose that would
    miss an int32 bias.
    """
    import onnx

    changed = False
    for node in editing.nodes("ConvTranspose"):
        if attribute(node, "group", 1) == 1 or len(node.input) < 3 or node.input[2] not in editing.initializers:
            continue
        bias = node.input[2]
        node.input[2] = editing.fresh(f"{bias}_float")
        position = next(i for i, other in enumerate(editing.graph.node) if other == node)
        identity = onnx.helper.make_node("Identity", [bias], [node.input[2]], name=f"{node.input[2]}_identity")
        editing.graph.node.insert(position, identity)
        changed = True
    return changed


def pad_inside_max_pool(editing: Editing) -> bool:
    """Moves a Pad of the lowest float into the MaxPool behind it, which pads with nothing at all."""
    readers, outputs, inside = editing.readers(), editing.outputs, editing.read_inside()
    changed = False
    for pad in editing.nodes("Pad"):
        pools = [node for node, _ in readers.get(pad.output[0], [])]
        begins_ends = _spatial_padding(editing, pad)
        free = pad.output[0] not in outputs and pad.output[0] not in inside
        if begins_ends is None or not pools or not free or not all(_takes(p, begins_ends) for p in pools):
            continue
        for pool in pools:
            own = attribute(pool, "pads", [0] * len(begins_ends))
            set_attribute(pool, "pads", [a + b for a, b in zip(own, begins_ends, strict=True)])
            pool.input[0] = pad.input[0]
        editing.graph.node.remove(pad)
        changed = True
    return changed


def _spatial_padding(editing: Editing, pad: onnx.NodeProto) -> list[int] | None:
    """Begins and ends of the spatial axes, where a Pad fills nothing else and with the lowest float; else None."""
    if attribute(pad, "mode", b"constant") != b"constant" or len(pad.input) < 3 or any(pad.input[3:]):
        return None
    pads, fill = editing.values(pad.input[1]), editing.values(pad.input[2])
    if pads is None or fill is None or fill.size != 1 or not (is_fill(fill).all() and fill.item() < 0):
        return None
    begins, ends = np.split(pads.ravel(), 2)
    if len(begins) < 3 or (pads < 0).any() or begins[:2].any() or ends[:2].any():
        return None
    return [int(v) for v in (*begins[2:], *ends[2:])]


def _takes(pool: onnx.NodeProto, padding: list[int]) -> bool:
    """Whether a node is a MaxPool whose windows still see data when it pads so much more itself."""
    if pool.op_type != "MaxPool" or len([name for name in pool.output if name]) > 1:
        return False
    plain = attribute(pool, "auto_pad", b"NOTSET") == b"NOTSET" and not attribute(pool, "ceil_mode", 0)
    kernel = attribute(pool, "kernel_shape", [])
    own: Any = attribute(pool, "pads", [0] * len(padding))
    return plain and all(a + b < k for a, b, k in zip(own, padding, [*kernel, *kernel], strict=False))
