"""What ONNX asks of a graph and ONNX Runtime does not: nodes in order, and one constant of a name."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from onnxptq.graphs.parts import reads, subgraphs

if TYPE_CHECKING:
    import onnx


def sort_model(proto: onnx.ModelProto) -> bool:
    """Sorts the nodes of a model's graphs, in place; nodes keep their order where they may. Whether anything moved.

    ONNX Runtime takes nodes in any order; the checker and the quantizer do not. Nodes on a circle stay behind all
    others, in their order, for the checker to complain about.
    """
    changed = False
    waiting = [proto.graph]
    while waiting:
        graph = waiting.pop()
        changed |= _sort(graph)
        waiting.extend(inner for node in graph.node for inner in subgraphs(node))
    return changed


def keep_last_constants(graph: onnx.GraphProto) -> bool:
    """Leaves the last of the constants of one name, which is the one that ONNX Runtime takes. Whether any went."""
    last = {tensor.name: i for i, tensor in enumerate(graph.initializer)}
    if len(last) == len(graph.initializer):
        return False
    kept = [tensor for i, tensor in enumerate(graph.initializer) if last[tensor.name] == i]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return True


def _sort(graph: onnx.GraphProto) -> bool:
    nodes = list(graph.node)
    producer = {name: i for i, node in enumerate(nodes) for name in node.output if name}
    needs = [{producer[name] for name in reads(node) if producer.get(name, i) != i} for i, node in enumerate(nodes)]
    if all(not need or max(need) < i for i, need in enumerate(needs)):
        return False
    readers: list[list[int]] = [[] for _ in nodes]
    missing = [len(need) for need in needs]
    for i, need in enumerate(needs):
        for other in need:
            readers[other].append(i)
    ready = [i for i, count in enumerate(missing) if not count]
    order: list[int] = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for reader in readers[i]:
            missing[reader] -= 1
            if not missing[reader]:
                heapq.heappush(ready, reader)
    circle = sorted(set(range(len(nodes))) - set(order))
    copies = [type(node).FromString(node.SerializeToString()) for node in (nodes[i] for i in (*order, *circle))]
    del graph.node[:]
    graph.node.extend(copies)
    return True
