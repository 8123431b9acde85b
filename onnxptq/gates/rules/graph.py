"""Hygiene of the graph: opset, external data, and what computes in float."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Graph, Policy
from onnxptq.gates.rules._common import listed
from onnxptq.gates.rules._registry import Finding, rule
from onnxptq.gates.verdict import RuleResult, Verdict

if TYPE_CHECKING:
    import onnx

_COMPUTING = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
_MOVING = frozenset({"Flatten", "Identity", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})
"""Operators that hand values on as they are, between a DequantizeLinear and the operator that computes."""


@rule("graph", "model")
def judge_graph(table: Graph, policy: Policy, evidence: Evidence) -> list[Finding]:
    """Each violation in one sentence. Domains and external data outside the folder were refused before."""
    assert evidence.model is not None
    import onnx

    proto = onnx.load(str(evidence.model.path), load_external_data=False)
    opset = evidence.model.opset
    wrong = []
    if table.minimum_opset and opset < table.minimum_opset:
        wrong.append(f"opset {opset} is older than {table.minimum_opset}")
    if table.maximum_opset and opset > table.maximum_opset:
        wrong.append(f"opset {opset} is newer than {table.maximum_opset}")
    if not table.external_data and evidence.model.size != Path(evidence.model.path).stat().st_size:
        wrong.append("weights lie in another file")
    if table.quantized:
        allowed = table.float_nodes
        nodes = [name for name in float_nodes(proto.graph) if not any(fnmatchcase(name, p) for p in allowed)]
        if nodes:
            wrong.append(f"these compute in float: {listed(nodes)}")
    if wrong:
        step = "Export or quantize it again, or allow it in [graph]."
        return [RuleResult("graph", Verdict.FAILED, "; ".join(wrong), step)]
    return [RuleResult("graph", Verdict.PASSED, f"opset {opset}; nothing that the policy forbids")]


def float_nodes(graph: onnx.GraphProto) -> list[str]:
    """Names of the Conv, ConvTranspose, Gemm and MatMul nodes, subgraphs included, with an input that is not quantized.

    Quantized is what comes from a DequantizeLinear, directly or through operators that only move values.
    """
    return [
        node.name or node.output[0]
        for nodes in _graphs(graph)
        for makers in [{output: node for node in nodes for output in node.output}]
        for node in nodes
        if node.op_type in _COMPUTING and not all(_is_quantized(name, makers) for name in list(node.input)[:2])
    ]


def _graphs(graph: onnx.GraphProto) -> Iterator[list[onnx.NodeProto]]:
    yield list(graph.node)
    for node in graph.node:
        for attribute in node.attribute:
            for inner in _subgraphs(attribute):
                yield from _graphs(inner)


def _subgraphs(attribute: onnx.AttributeProto) -> Iterable[onnx.GraphProto]:
    return [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]


def _is_quantized(name: str, makers: Mapping[str, onnx.NodeProto]) -> bool:
    seen: set[str] = set()
    while name in makers and name not in seen:
        seen.add(name)
        maker = makers[name]
        if maker.op_type == "DequantizeLinear":
            return True
        if maker.op_type not in _MOVING or not maker.input:
            return False
        name = maker.input[0]
    return False
