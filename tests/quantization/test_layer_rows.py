"""Rows of a layer's input times its weight are its output, whatever its strides, pads, dilations and groups."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxptq.quantization.layer_graph import LayerGraph
from onnxptq.quantization.layer_rows import linear_layer

IMAGE, SERIES = (2, 4, 9, 7), (2, 4, 11)
CONVS = {
    "pads and strides": (IMAGE, (6, 4, 3, 2), {"pads": [1, 0, 2, 1], "strides": [2, 3]}),
    "groups and dilations": (IMAGE, (6, 2, 2, 3), {"group": 2, "dilations": [2, 2]}),
    "depthwise": (IMAGE, (4, 1, 3, 3), {"group": 4, "pads": [1] * 4}),
    "same upper": (IMAGE, (5, 4, 3, 2), {"auto_pad": "SAME_UPPER", "strides": [2, 2]}),
    "same lower": (IMAGE, (5, 4, 2, 2), {"auto_pad": "SAME_LOWER"}),
    "valid": (IMAGE, (5, 4, 3, 3), {"auto_pad": "VALID"}),
    "one axis": (SERIES, (3, 4, 3), {"pads": [2, 0], "strides": [2]}),
}
MATRICES = {
    "gemm": ("Gemm", (5, 6), (6, 3), {"alpha": 0.5, "beta": 2.0}),
    "gemm of transposed": ("Gemm", (6, 5), (3, 6), {"transA": 1, "transB": 1}),
    "matmul of sequences": ("MatMul", (2, 5, 6), (6, 3), {}),
}


def check(builder, path, operator, shape, weight, attributes, *more):
    import onnxruntime

    g = builder(0)
    y = g.add(operator, "x", g.weight(*weight), *([] if operator == "MatMul" else [g.weight(*more)]), **attributes)
    path = g.save(path, {"x": list(shape)}, {y: [None] * (2 if operator == "Gemm" else len(shape))})
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (wanted,) = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})
    graph = LayerGraph(path)
    layer = linear_layer(graph, graph.nodes[0])
    positions = np.arange(layer.positions(wanted))[::-1]
    values = graph.input_constant(graph.nodes[0], 1)
    rows = np.matmul(layer.inputs(x, values, positions), layer.to_rows(values).transpose(0, 2, 1))
    found = rows.transpose(1, 0, 2).reshape(len(positions), -1) + layer.bias
    np.testing.assert_allclose(found, layer.outputs(wanted, positions), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(layer.from_rows(layer.to_rows(values), values.shape), values)


@pytest.mark.parametrize("name", sorted(CONVS))
def test_conv(name, builder, tmp_path):
    shape, weight, attributes = CONVS[name]
    check(builder, tmp_path / "net.onnx", "Conv", shape, weight, attributes, weight[0])


@pytest.mark.parametrize("name", sorted(MATRICES))
def test_matrices(name, builder, tmp_path):
    operator, shape, weight, attributes = MATRICES[name]
    check(builder, tmp_path / "net.onnx", operator, shape, weight, attributes, 3)


def test_the_activation_behind_a_layer_is_known(builder, tmp_path):
    g = builder(0)
    y = g.add("Relu", g.add("Conv", "x", g.weight(3, 3, 1, 1)))
    y = g.add("Clip", g.add("Conv", y, g.weight(3, 3, 1, 1)), *(g.constant(np.array(v, np.float32)) for v in (0, 6)))
    y = g.add("Sigmoid", g.add("Conv", y, g.weight(3, 3, 1, 1)))
    graph = LayerGraph(g.save(tmp_path / "net.onnx", {"x": [1, 3, 4, 4]}, {y: [1, 3, 4, 4]}))
    layers = [linear_layer(graph, node) for node in graph.nodes if node.op_type == "Conv"]
    assert [(layer.low, layer.high) for layer in layers] == [(0, np.inf), (0, 6), (-np.inf, np.inf)]
    assert linear_layer(graph, onnx.helper.make_node("Conv", ["x", "y"], ["z"])) is None
