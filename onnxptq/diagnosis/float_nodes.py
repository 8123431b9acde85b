"""Which tensors stay quantized when some nodes are kept in float: the static quantizer's rule, read backwards.

1. A node that is quantized wants its float inputs and its outputs quantized, for all who read them.
2. A node that only hands values on (Reshape, MaxPool ...), a Relu or a Clip wants its output quantized where its
   input is, and nothing else.
3. An operator that the quantizer does not know wants nothing; it reads what others want.
4. So a tensor becomes float when every node that wants it is kept in float.

Source: `onnxruntime/quantization/operators/qdq_base_operator.py`, `direct_q8.py` and `activation.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnxptq.diagnosis.pairs import Pair, node_key

if TYPE_CHECKING:
    import onnx

_FOLLOW = frozenset(
    (
        *("Relu", "Clip", "MaxPool", "AveragePool", "Resize", "Pad", "Split", "Slice", "TopK"),
        *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"),
    )
)
"""Operators that are quantized where their input is quantized already."""


@dataclass(frozen=True)
class Wishes:
    """Who wants which tensor quantized.

    Attributes:
        wanted_by: for each paired tensor the keys of the nodes that want it quantized.
        nodes: keys of all nodes that want one, in the order of the graph.
    """

    wanted_by: Mapping[str, frozenset[str]]
    nodes: tuple[str, ...]

    def kept(self, float_nodes: Collection[str]) -> frozenset[str]:
        """Names of the tensors that stay quantized when these nodes are kept in float."""
        chosen = frozenset(float_nodes)
        return frozenset(tensor for tensor, nodes in self.wanted_by.items() if nodes - chosen)


def read_wishes(
    base: onnx.ModelProto,
    pairs: Collection[Pair],
    in_float: Collection[str] = (),
    without_output: Collection[str] = (),
) -> Wishes:
    """Who wants which of the paired tensors.

    Args:
        base: the float model.
        pairs: what its INT8 file quantizes.
        in_float: names of nodes that are in float in that file already.
        without_output: operator types whose outputs the file leaves alone.
    """
    from onnxruntime.quantization.registry import QDQRegistry, QLinearOpsRegistry

    known = {*QDQRegistry, *QLinearOpsRegistry}
    paired = {pair.tensor: pair for pair in pairs}
    wanted: dict[str, set[str]] = {}
    touched: dict[str, set[str]] = {}
    for node in base.graph.node:
        key = node_key(node)
        for name in [*node.input, *node.output]:
            touched.setdefault(name, set()).add(key)
        if key in in_float:
            continue
        if node.op_type in _FOLLOW:
            if node.input[0] in wanted:
                for name in node.output:
                    wanted.setdefault(name, set()).update(wanted[node.input[0]])
            continue
        if node.op_type not in known or not _is_quantized(node, paired):
            continue
        outputs = () if node.op_type in without_output else node.output
        for name in [*node.input, *outputs]:
            wanted.setdefault(name, set()).add(key)
    # A rule that we do not know: whoever touches the tensor may be the one that wants it.
    by = {name: frozenset(wanted.get(name) or touched[name]) for name in paired}
    wishing = set().union(*by.values()) if by else set()
    return Wishes(by, tuple(key for key in map(node_key, base.graph.node) if key in wishing))


def _is_quantized(node: onnx.NodeProto, paired: Mapping[str, Pair]) -> bool:
    """Whether the file quantizes a node: what it reads first, and its weights where it has some, are quantized."""
    first = next(iter(node.input), "")
    return first in paired and node_key(node) not in paired[first].float_readers
