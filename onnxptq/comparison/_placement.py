"""Where the nodes of a model really ran: from the assignment of nodes and from the kernels of a profile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnxptq.comparison.multiply_adds import multiply_adds
from onnxptq.runtimes.isolated import Kernel, PlacedNode

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_COPIES = ("MemcpyFromHost", "MemcpyToHost")
_OWN_GRAPHS = frozenset(
    {
        "TensorrtExecutionProvider",
        "NvTensorRTRTXExecutionProvider",
        "OpenVINOExecutionProvider",
        "QNNExecutionProvider",
        "CoreMLExecutionProvider",
    }
)
"""Providers that compile their part of the graph: what they fuse in there is not to be seen from outside."""


@dataclass(frozen=True)
class NodePlacement:
    """Where a model ran.

    Attributes:
        nodes: number of nodes assigned to each provider (ONNX Runtime's name), before fusion; None where this ONNX
            Runtime cannot tell.
        multiply_add_share: share of the estimated multiply-adds on each provider; None where it is not known.
        unfused: QuantizeLinear and DequantizeLinear that ran as kernels of their own although they are neither at an
            input nor at an output of the graph; None where a provider compiles its own graph.
        copies: copies between the host and a device in one run; None where no profile could be taken.
    """

    nodes: Mapping[str, int] | None = None
    multiply_add_share: Mapping[str, float] | None = field(default=None)
    unfused: int | None = None
    copies: int | None = None


def placement(model: Path, nodes: Sequence[PlacedNode] | None, kernels: Sequence[Kernel] | None) -> NodePlacement:
    """What is known about a model's placement.

    Args:
        model: the file.
        nodes: as ONNX Runtime assigned them, or None where it cannot tell.
        kernels: of one run, or None without a profile.
    """
    ran = {kernel.provider for kernel in kernels or ()}
    return NodePlacement(
        nodes=None if nodes is None else dict(Counter(node.provider for node in nodes)),
        multiply_add_share=_shares(model, nodes, ran),
        unfused=None if kernels is None or ran & _OWN_GRAPHS else _unfused(model, kernels),
        copies=None if kernels is None else sum(kernel.operator in _COPIES for kernel in kernels),
    )


def _shares(model: Path, nodes: Sequence[PlacedNode] | None, ran: set[str]) -> dict[str, float] | None:
    providers = {node.provider for node in nodes} if nodes is not None else ran
    if len(providers) == 1:
        return {next(iter(providers)): 1.0}
    if nodes is None:  # the names of kernels after fusion do not tell which nodes they came from
        return None
    estimated = multiply_adds(model)
    total = sum(estimated.values())
    by_name = {node.name: node.provider for node in nodes}
    sums: Counter[str] = Counter()
    for name, count in estimated.items():
        if (provider := by_name.get(name) or _renamed(name, by_name)) is not None:
            sums[provider] += count
    return {provider: count / total for provider, count in sums.items()} if sums else None


def _renamed(name: str, by_name: Mapping[str, str]) -> str | None:
    """The provider of what basic optimization made of node `name`: it appends to the name ("x/MatMulAddFusion")."""
    found = {provider for other, provider in by_name.items() if other.startswith(name + "/")}
    return next(iter(found)) if len(found) == 1 else None


def _unfused(model: Path, kernels: Sequence[Kernel]) -> int:
    ran = sum(kernel.operator in _QUANTIZERS for kernel in kernels)
    return max(0, ran - _at_the_border(model))


def _at_the_border(model: Path) -> int:
    """Quantizers that read an input of the graph and dequantizers that make an output: nothing to fuse with."""
    import onnx

    graph = onnx.load(str(model), load_external_data=False).graph
    inputs, outputs = {value.name for value in graph.input}, {value.name for value in graph.output}
    entering = {node.input[0] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] in inputs}
    leaving = [node for node in graph.node if node.op_type == "DequantizeLinear" and node.output[0] in outputs]
    return len(entering) + len(leaving)
