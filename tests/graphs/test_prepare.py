"""Preparation does what a graph needs and no more, and its result is ONNX Runtime's."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import quant_pre_process

from onnxptq.graphs.prepare import _optimized, changes_nothing, prepare
from tests.quantization.conftest import GRAPHS, GraphBuilder, draw_samples

IMAGE = {"x": ["N", 3, 8, 8]}


def plain(path):
    """A residual block, pooling and a head: nothing to fold."""
    g = GraphBuilder(1)
    a = g.add("Relu", g.add("Conv", "x", g.weight(4, 3, 3, 3), g.weight(4), pads=[1] * 4))
    b = g.add("Relu", g.add("Add", a, g.add("Conv", a, g.weight(4, 4, 3, 3), g.weight(4), pads=[1] * 4)))
    limits = [g.constant(np.array(v, np.float32)) for v in (0, 6)]
    b = g.add("Clip", g.add("Conv", b, g.weight(4, 4, 1, 1)), *limits)
    y = g.add("Flatten", g.add("GlobalAveragePool", g.add("MaxPool", b, kernel_shape=[2, 2])))
    y = g.add("Gemm", y, g.weight(5, 4), g.weight(5), transB=1)
    return g.save(path, IMAGE, {y: ["N", 5]})


def nodes_of(graph):
    return sorted((n.op_type, tuple(n.input), tuple(n.output), n.name) for n in graph.node)


@pytest.mark.parametrize("name", [*GRAPHS, "plain"])
def test_a_graph_in_which_nothing_changes_is_one_that_onnx_runtime_leaves_as_it_is(tmp_path, name):
    proto = onnx.load(GRAPHS.get(name, plain)(tmp_path / "m.onnx"))
    untouched = nodes_of(_optimized(proto).graph) == nodes_of(proto.graph)
    assert not changes_nothing(proto.graph) or untouched
    assert changes_nothing(proto.graph) or name != "plain"


def changed(edit):
    def make(path):
        proto = onnx.load(plain(path))
        edit(proto.graph)
        onnx.save(proto, path)
        return path

    return make


def behind(graph, node):
    graph.node.append(node)
    graph.output[0].name = node.output[0]


def constant_sum(graph):
    graph.initializer.append(numpy_helper.from_array(np.ones((4, 1, 1), np.float32), "ones"))
    conv = graph.node[2]
    (reader,) = (n for n in graph.node if conv.output[0] in n.input)
    reader.input[list(reader.input).index(conv.output[0])] = "sum"
    graph.node.insert(3, helper.make_node("Add", [conv.output[0], "ones"], ["sum"], "sum"))


def twin(graph):
    copy = helper.make_node("Relu", list(graph.node[1].input), ["twin"], "twin")
    graph.node.insert(2, copy)
    graph.node[-1].input.append("")
    del graph.node[-1].input[-1]
    behind(graph, helper.make_node("GlobalAveragePool", ["twin"], ["end"], "end"))


EDITS = {
    "an Identity": lambda g: behind(g, helper.make_node("Identity", [g.output[0].name], ["end"], "end")),
    "a constant that a Conv takes in": constant_sum,
    "two nodes that do the same": twin,
    "a nameless node": lambda g: g.node[0].ClearField("name"),
    "a node that nobody reads": lambda g: g.node.append(helper.make_node("Relu", ["x"], ["unread"], "unread")),
    "another domain": lambda g: behind(g, helper.make_node("Relu", [g.output[0].name], ["end"], "e", domain="mine")),
    "a Relu behind a Relu": lambda g: g.node.extend(
        [helper.make_node("Relu", [g.node[0].output[0]], ["r1"], "r1"), helper.make_node("Relu", ["r1"], ["r2"], "r2")]
    ),
}


@pytest.mark.parametrize("edit", EDITS)
def test_whatever_may_change_is_left_to_onnx_runtime(tmp_path, edit):
    path = changed(EDITS[edit])(tmp_path / "m.onnx")
    assert not changes_nothing(onnx.load(path).graph)


@pytest.mark.parametrize("name", [*GRAPHS, "plain"])
def test_what_is_prepared_has_the_nodes_the_types_and_the_function_of_quant_pre_process(tmp_path, name):
    path = GRAPHS.get(name, plain)(tmp_path / "m.onnx")
    prepare(path, tmp_path / "ours.onnx", large=False)
    quant_pre_process(str(path), str(tmp_path / "stock.onnx"))
    ours, stock = (onnx.load(tmp_path / file).graph for file in ("ours.onnx", "stock.onnx"))
    assert nodes_of(ours) == nodes_of(stock)
    types = [{v.name: v.type.tensor_type.elem_type for v in (*g.value_info, *g.output)} for g in (ours, stock)]
    computed = {name for node in ours.node for name in node.output}
    assert computed <= types[0].keys()
    assert {name: types[1][name] for name in computed} == {name: types[0][name] for name in computed}
    _, feeds = draw_samples(path, 1)[0]
    found = [
        onnxruntime.InferenceSession(tmp_path / file, providers=["CPUExecutionProvider"]).run(None, feeds)
        for file in ("ours.onnx", "m.onnx")
    ]
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_only_a_graph_with_open_dimensions_imports_sympy(tmp_path):
    plain(tmp_path / "closed.onnx")
    g = GraphBuilder(2)
    y = g.add("Reshape", "x", g.constant(np.array([-1, 4], np.int64)))
    g.save(tmp_path / "open.onnx", {"x": ["A", "B"]}, {y: [None, 4]})
    code = (
        "import sys\nfrom pathlib import Path\nfrom onnxptq.graphs.prepare import prepare\n"
        "prepare(Path(sys.argv[1]), Path(sys.argv[2]), large=False)\nprint('sympy' in sys.modules)"
    )
    for name, expected in (("closed", "False"), ("open", "True")):
        command = [sys.executable, "-c", code, tmp_path / f"{name}.onnx", tmp_path / "out.onnx"]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.split() == [expected]


def test_inference_that_gives_up_leaves_nothing_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    graph = helper.make_graph(
        [helper.make_node("LpPool", ["x"], ["y"], "pool", kernel_shape=[2, 2], ceil_mode=1, domain="")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, tmp_path / "m.onnx")
    prepare(tmp_path / "m.onnx", tmp_path / "out.onnx", large=False)
    assert {path.name for path in tmp_path.iterdir()} == {"m.onnx", "out.onnx"}
