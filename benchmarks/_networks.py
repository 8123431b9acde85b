"""The networks of the benchmarks, built in code with random weights: real layer shapes, no download."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = (1, 3, 224, 224)
TOKENS = (1, 128, 768)


class _Net:
    """Collects nodes and seeded weights of one network."""

    def __init__(self) -> None:
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, *shape: int, scale: float, offset: float = 0.0) -> str:
        return self.constant(self.rng.standard_normal(shape) * scale + offset)

    def constant(self, array: object, dtype: type = np.float32) -> str:
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(array, dtype=dtype), name))
        return name

    def add(self, op: str, *inputs: str, **attributes: object) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [name], name=f"{op}_{len(self.nodes)}", **attributes))
        return name

    def conv(self, x: str, cin: int, cout: int, k: int = 1, stride: int = 1, group: int = 1, gain: float = 2.0) -> str:
        weight = self.weight(cout, cin // group, k, k, scale=(gain / (cin // group * k * k)) ** 0.5)
        bias = self.weight(cout, scale=0.1)
        return self.add("Conv", x, weight, bias, strides=[stride] * 2, pads=[k // 2] * 4, group=group)

    def linear(self, x: str, cin: int, cout: int) -> str:
        return self.add(
            "Add", self.add("MatMul", x, self.weight(cin, cout, scale=cin**-0.5)), self.weight(cout, scale=0.1)
        )

    def save(self, path: Path, shape: tuple[int, ...], output: str) -> Path:
        values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
        results = [helper.make_tensor_value_info(output, TensorProto.FLOAT, None)]
        graph = helper.make_graph(self.nodes, path.stem, values, results, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(onnx.shape_inference.infer_shapes(model), path)
        return path


def mobilenet_v2(path: Path) -> Path:
    """Sandler et al., CVPR 2018, BatchNormalization folded: 3.5 million weights, depthwise convolutions, Relu6."""
    net = _Net()
    limits = net.constant(0.0), net.constant(6.0)

    def relu6(x: str) -> str:
        return net.add("Clip", x, *limits)

    y, cin = relu6(net.conv("x", 3, 32, 3, 2)), 32
    blocks = [(1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]
    for expand, cout, count, first in blocks:
        for i in range(count):
            stride, wide = (first if i == 0 else 1), cin * expand
            z = relu6(net.conv(y, cin, wide)) if expand > 1 else y
            z = net.conv(relu6(net.conv(z, wide, wide, 3, stride, wide)), wide, cout, gain=1.0)
            y = net.add("Add", y, z) if stride == 1 and cin == cout else z
            cin = cout
    y = net.add("Flatten", net.add("GlobalAveragePool", relu6(net.conv(y, cin, 1280))))
    y = net.add("Gemm", y, net.weight(1000, 1280, scale=0.03), net.weight(1000, scale=0.1), transB=1)
    return net.save(path, IMAGE, y)


def resnet50(path: Path) -> Path:
    """He et al., CVPR 2016, BatchNormalization folded: 25.6 million weights."""
    net = _Net()
    y = net.add("Relu", net.conv("x", 3, 64, 7, 2))
    y, cin = net.add("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4), 64
    for stage, count in enumerate((3, 4, 6, 3)):
        mid = 64 << stage
        for i in range(count):
            stride = 2 if i == 0 and stage else 1
            z = net.add("Relu", net.conv(y, cin, mid))
            z = net.add("Relu", net.conv(z, mid, mid, 3, stride))
            z = net.conv(z, mid, 4 * mid, gain=0.5)
            short = net.conv(y, cin, 4 * mid, 1, stride, gain=1.0) if i == 0 else y
            y, cin = net.add("Relu", net.add("Add", z, short)), 4 * mid
    y = net.add("Flatten", net.add("GlobalAveragePool", y))
    y = net.add("Gemm", y, net.weight(1000, 2048, scale=0.02), net.weight(1000, scale=0.1), transB=1)
    return net.save(path, IMAGE, y)


def transformer(path: Path) -> Path:
    """Six post-norm encoder layers (Devlin et al., 2019): width 768, 12 heads, 128 tokens, GELU through Erf."""
    net = _Net()
    split, joined = net.constant([0, 0, 12, 64], np.int64), net.constant([0, 0, 768], np.int64)
    eighth, half, one, root = net.constant(0.125), net.constant(0.5), net.constant(1.0), net.constant(2**0.5)

    def norm(x: str) -> str:
        return net.add(
            "LayerNormalization", x, net.weight(768, scale=0.1, offset=1), net.weight(768, scale=0.1), axis=-1
        )

    def heads(x: str, perm: list[int]) -> str:
        return net.add("Transpose", net.add("Reshape", net.linear(x, 768, 768), split), perm=perm)

    y = "x"
    for _ in range(6):
        scores = net.add("MatMul", heads(y, [0, 2, 1, 3]), heads(y, [0, 2, 3, 1]))
        weights = net.add("Softmax", net.add("Mul", scores, eighth), axis=-1)
        mixed = net.add("Transpose", net.add("MatMul", weights, heads(y, [0, 2, 1, 3])), perm=[0, 2, 1, 3])
        y = norm(net.add("Add", y, net.linear(net.add("Reshape", mixed, joined), 768, 768)))
        wide = net.linear(y, 768, 3072)
        gate = net.add("Add", net.add("Erf", net.add("Div", wide, root)), one)
        gelu = net.add("Mul", net.add("Mul", wide, gate), half)
        y = norm(net.add("Add", y, net.linear(gelu, 3072, 768)))
    return net.save(path, TOKENS, y)


NETWORKS: dict[str, tuple[Callable[[Path], Path], tuple[int, ...]]] = {
    "mobilenet_v2": (mobilenet_v2, IMAGE),
    "resnet50": (resnet50, IMAGE),
    "transformer": (transformer, TOKENS),
}
