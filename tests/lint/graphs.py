"""Q and DQ graphs written node by node, and float nets for the quantizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

IMAGE = (1, 4, 8, 8)


class Net:
    """A graph of the input x, float32 (1, 4, 8, 8), as one target wants it: unsigned for the CPU, else symmetric."""

    def __init__(self, target: str = "cpu", opset: int = 21) -> None:
        self.target = target
        self.opset = opset
        self.zero: Any = np.uint8(128) if target == "cpu" else np.int8(0)
        self.inputs: dict[str, Sequence[int]] = {"x": IMAGE}
        self.tensors: list[onnx.TensorProto] = []
        self.nodes: list[onnx.NodeProto] = []
        self.rng = np.random.default_rng(0)

    def constant(self, value: Any) -> str:
        name = f"c{len(self.tensors)}"
        self.tensors.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, domain: str = "", outputs: int = 1, **attributes: Any) -> str:
        number = len(self.nodes)
        names = [f"{kind.lower()}{number}" + "_" * i for i in range(outputs)]
        self.nodes.append(
            helper.make_node(kind, list(inputs), names, name=f"n{number}", domain=domain or None, **attributes)
        )
        return names[0]

    def pair(self, tensor: str, scale: Any = 0.02, zero: Any = None, **attributes: Any) -> str:
        zero = self.zero if zero is None else zero
        parameters = (self.constant(np.asarray(scale, np.float32)), self.constant(zero))
        quantized = self.op("QuantizeLinear", tensor, *parameters, **attributes)
        return self.op("DequantizeLinear", quantized, *parameters, **attributes)

    def weight(self, *shape: int, scale: Any = None, zero: Any = None, axis: int = 0, largest: int = 60) -> str:
        """A constant of QInt8 behind a DQ; one scale an output channel."""
        scale = np.linspace(0.001, 0.01, shape[axis]) if scale is None else scale
        scale = np.asarray(scale, np.float32)
        integers = self.rng.integers(-largest, largest + 1, shape).astype(np.int8)
        integers.flat[0] = largest
        zero = np.zeros(scale.shape, np.int8) if zero is None else zero
        names = (self.constant(integers), self.constant(scale), self.constant(zero))
        return self.op("DequantizeLinear", *names, axis=axis)

    def bias(self, values: Any, scale: Any) -> str:
        """A constant of int32 behind a DQ."""
        scale = np.asarray(scale, np.float32)
        names = (self.constant(np.asarray(values, np.int32)), self.constant(scale))
        return self.op("DequantizeLinear", *names, self.constant(np.zeros(scale.shape, np.int32)), axis=0)

    def conv(self, tensor: str, weight: str | None = None, *bias: str) -> str:
        return self.op("Conv", tensor, weight or self.weight(4, 4, 3, 3), *bias, pads=[1] * 4)

    def finished(self, tensor: str) -> str:
        """What a target expects after a Conv: a pair on the CPU, floats elsewhere."""
        return self.pair(tensor, 0.03) if self.target == "cpu" else tensor

    def model(self, *outputs: str) -> onnx.ModelProto:
        def values(names: Any, shapes: Any) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip(names, shapes, strict=True)]

        graph = helper.make_graph(
            self.nodes,
            "net",
            values(self.inputs, self.inputs.values()),
            values(outputs, [None] * len(outputs)),
            self.tensors,
        )
        domains = sorted({node.domain for node in self.nodes} - {""})
        imports = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(model)
        for output in inferred.graph.output:  # The checker wants one, and what follows a contrib operator has none.
            output.type.tensor_type.shape.SetInParent()
        return inferred


class FloatNet(Net):
    """A float net; weights are seeded."""

    def floats(self, *shape: int) -> str:
        return self.constant((self.rng.standard_normal(shape) * 0.3).astype(np.float32))

    def convolve(self, tensor: str, outputs: int, inputs: int, size: int = 3, **attributes: Any) -> str:
        weights = (self.floats(outputs, inputs, size, size), self.floats(outputs))
        return self.op("Conv", tensor, *weights, pads=[size // 2] * 4, **attributes)


def residual(net: FloatNet) -> str:
    """An identity block and one with a Conv on both branches, then a head."""
    y = net.op("Relu", net.convolve("x", 4, 4))
    y = net.op("Relu", net.op("Add", net.convolve(net.op("Relu", net.convolve(y, 4, 4)), 4, 4), y))
    y = net.op("Relu", net.op("Add", net.convolve(y, 6, 4), net.convolve(y, 6, 4, 1)))
    y = net.op("Flatten", net.op("GlobalAveragePool", y))
    return net.op("Gemm", y, net.floats(5, 6), net.floats(5), transB=1)


def depthwise(net: FloatNet) -> str:
    """Expand, depthwise, project, with Clip, and a Gemm as head."""
    limits = [net.constant(np.float32(v)) for v in (0, 6)]
    y = net.op("Clip", net.convolve("x", 8, 4, 1), *limits)
    y = net.op("Clip", net.convolve(y, 8, 1, group=8), *limits)
    y = net.op("Concat", net.convolve(y, 4, 8, 1), net.convolve(y, 4, 8, 1), axis=1)
    y = net.op("Flatten", net.op("AveragePool", net.op("Relu", y), kernel_shape=[8, 8]))
    return net.op("Gemm", y, net.floats(8, 5), net.floats(5))


def transformer(net: FloatNet) -> str:
    """One block over the rows of x: attention and a feed-forward part, both with an identity branch."""
    tokens = net.op("Reshape", "x", net.constant(np.array([1, 32, 8], np.int64)))
    q, k, v = (net.op("Add", net.op("MatMul", tokens, net.floats(8, 8)), net.floats(8)) for _ in range(3))
    scores = net.op("Softmax", net.op("MatMul", q, net.op("Transpose", k, perm=[0, 2, 1])), axis=-1)
    y = net.op("Add", net.op("MatMul", net.op("MatMul", scores, v), net.floats(8, 8)), tokens)
    y = net.op("LayerNormalization", y, net.floats(8), net.floats(8))
    hidden = net.op("Relu", net.op("Add", net.op("MatMul", y, net.floats(8, 16)), net.floats(16)))
    return net.op("Add", net.op("MatMul", hidden, net.floats(16, 8)), y)


FLOAT_NETS = {build.__name__: build for build in (residual, depthwise, transformer)}


def samples(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(1)
    return [{"x": rng.standard_normal(IMAGE).astype(np.float32)} for _ in range(count)]
