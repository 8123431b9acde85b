"""What the quantizer does not enter is named, with what it holds; and nothing else is."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from onnxptq.graphs.float_parts import float_parts


def save(path, nodes):
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, None)], [value("y", TensorProto.FLOAT, None)])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def branch(*operators):
    nodes = [helper.make_node(op, ["x", "w"], [f"{op}{i}"]) for i, op in enumerate(operators)]
    return helper.make_graph(nodes, "b", [], [onnx.ValueInfoProto(name=nodes[-1].output[0])])


def test_recurrent_operators_and_subgraphs_with_weights_are_named(tmp_path):
    inner = helper.make_node("Loop", ["n", "c"], ["l"], body=branch("Gemm"))
    outer = branch("Conv", "MatMul", "Relu")
    outer.node.append(inner)
    nodes = [
        helper.make_node("LSTM", ["x", "w", "r"], ["h"], "rnn"),
        helper.make_node("If", ["c"], ["y"], "choice", then_branch=outer, else_branch=branch("Conv")),
        helper.make_node("GRU", ["x", "w", "r"], ["i"]),
    ]
    lines = float_parts(save(tmp_path / "m.onnx", nodes))
    assert len(lines) == 3
    assert lines[0].startswith("LSTM 'rnn' stays in float")
    assert "If 'choice' stays in float with all that its subgraphs hold (2 Conv, 1 Gemm, 1 MatMul)" in lines[1]
    assert lines[2].startswith("GRU stays in float")


def test_subgraphs_without_weights_and_ordinary_operators_are_not(tmp_path):
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("If", ["b"], ["y"], then_branch=branch("Relu"), else_branch=branch("Identity")),
    ]
    assert float_parts(save(tmp_path / "m.onnx", nodes)) == ()
