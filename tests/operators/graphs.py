"""A graph for each operator that the quantizer knows, in the variants that quantizers stumble over."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper


@dataclass
class Graph:
    """A graph that grows from `x`, float (N, 4, 8, 8).

    Attributes:
        opset: of the default domain; operators change their signature with it.
        half: all floats are float16.
        prefix: of all names, for graphs inside of others.
    """

    opset: int
    half: bool = False
    prefix: str = ""
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    constants: list[onnx.TensorProto] = field(default_factory=list)
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @property
    def kind(self) -> int:
        return TensorProto.FLOAT16 if self.half else TensorProto.FLOAT

    def constant(self, array: object, name: str | None = None) -> str:
        array = np.asarray(array)
        if array.dtype.kind == "f":
            array = array.astype(np.float16 if self.half else np.float32)
        name = self.prefix + (name or f"c{len(self.constants)}")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape) * 0.4, f"w{len(self.constants)}")

    def add(self, operator: str, *inputs: str, outputs: int = 1, **attributes: object) -> str:
        number = len(self.nodes)
        names = [f"{self.prefix}t{number}" + (f"_{i}" if i else "") for i in range(outputs)]
        domain = "com.microsoft" if operator == "EmbedLayerNormalization" else ""
        self.nodes.append(
            helper.make_node(operator, list(inputs), names, name=f"{operator}_{number}", domain=domain, **attributes)
        )
        return names[0]

    def conv(self, source: str, channels: int = 4) -> str:
        return self.add("Conv", source, self.weight(channels, 4, 3, 3), self.weight(channels), pads=[1] * 4)

    def axes(self, operator: str, source: str, axes: list[int], **attributes: object) -> str:
        """A reduction, whose axes became an input with opset 18."""
        if self.opset >= 18:
            return self.add(operator, source, self.constant(np.array(axes)), **attributes)
        return self.add(operator, source, axes=axes, **attributes)


Build = Callable[[Graph, str], str]
"""Adds an operator behind a tensor of shape (N, 4, 8, 8) and returns its result."""


def _gemm(g: Graph, t: str) -> str:
    return g.add("Gemm", g.add("Flatten", t), g.weight(256, 5), g.weight(5))


def _gather_elements(g: Graph, t: str) -> str:
    return g.add("GatherElements", t, g.constant(np.zeros((1, 4, 8, 8), np.int64)), axis=0)


def _split(g: Graph, t: str) -> str:
    g.add("Split", t, outputs=2, axis=1, **({"num_outputs": 2} if g.opset >= 18 else {}))
    node = g.nodes[-1]
    return g.add("Concat", node.output[1], node.output[0], axis=1)


def _where(g: Graph, t: str) -> str:
    return g.add("Where", g.constant(np.arange(8) % 2 == 0), t, g.conv(t))


def _top_k(g: Graph, t: str) -> str:
    return g.add("TopK", t, g.constant(np.array([3])), outputs=2, axis=1)


def _embed(g: Graph, t: str) -> str:
    ids = g.constant(np.arange(6, dtype=np.int32).reshape(1, 6))
    names = [ids, "", g.weight(9, 8), g.weight(7, 8), "", g.weight(8), g.weight(8)]
    g.add("EmbedLayerNormalization", *names, outputs=2)
    embedded = g.nodes[-1].output[0]
    pooled = g.axes("ReduceMean", embedded, [1], keepdims=0)
    return g.add("Add", g.add("Gemm", g.add("Flatten", t), g.weight(256, 8)), pooled)


def _layer_norm(g: Graph, t: str) -> str:
    return g.add("LayerNormalization", t, g.weight(8), g.weight(8))


def _batch_norm(g: Graph, t: str) -> str:
    variance = g.constant(np.full(4, 1.5))
    return g.add("BatchNormalization", g.add("Relu", t), g.weight(4), g.weight(4), g.weight(4), variance)


def _resize(g: Graph, t: str) -> str:
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), f"{g.prefix}scales{len(g.constants)}")
    g.constants.append(scales)
    return g.add("Resize", t, "", scales.name, mode="nearest")


def _stored(g: Graph, t: str) -> str:
    """A Conv whose weight is stored as integers by another tool."""
    quantized = g.constant(g.rng.integers(-127, 127, (4, 4, 3, 3)).astype(np.int8))
    scale = g.constant(np.full(4, 0.004))
    weight = g.add("DequantizeLinear", quantized, scale, g.constant(np.zeros(4, np.int8)), axis=0)
    return g.add("Conv", t, weight, g.weight(4), pads=[1] * 4)


def _stored_gemm(g: Graph, t: str) -> str:
    quantized = g.constant(g.rng.integers(-127, 127, (256, 5)).astype(np.int8))
    weight = g.add("DequantizeLinear", quantized, g.constant(np.float32(0.004)), g.constant(np.int8(0)))
    return g.add("Gemm", g.add("Flatten", t), weight, g.weight(5))


def _stored_split(g: Graph, t: str) -> str:
    """A weight that is stored as integers and taken apart: the parts would take the scale of something unquantized."""
    quantized = g.constant(g.rng.integers(-127, 127, (2, 4, 8, 8)).astype(np.int8))
    table = g.add("DequantizeLinear", quantized, g.constant(np.float32(0.004)), g.constant(np.int8(0)))
    g.add("Split", table, outputs=2, axis=0, **({"num_outputs": 2} if g.opset >= 18 else {}))
    node = g.nodes[-1]
    return g.add("Add", g.add("Mul", t, node.output[0]), node.output[1])


def _tail(operator: str, *constants: object, **attributes: object) -> Build:
    return lambda g, t: g.add(operator, t, *(g.constant(np.asarray(c)) for c in constants), **attributes)


OPERATORS: dict[str, Build] = {
    "Conv": lambda g, t: g.conv(t),
    "Conv, depthwise": lambda g, t: g.add("Conv", t, g.weight(4, 1, 3, 3), g.weight(4), group=4, pads=[1] * 4),
    "Conv, no bias": lambda g, t: g.add("Conv", t, g.weight(4, 4, 1, 1)),
    "ConvTranspose": lambda g, t: g.add("ConvTranspose", t, g.weight(4, 3, 2, 2), g.weight(3), strides=[2, 2]),
    "ConvTranspose, groups": lambda g, t: g.add("ConvTranspose", t, g.weight(4, 3, 2, 2), g.weight(6), group=2),
    "Gemm": _gemm,
    "MatMul": lambda g, t: g.add("MatMul", t, g.weight(8, 6)),
    "MatMul, weight in front": lambda g, t: g.add("MatMul", g.weight(6, 8), t),
    "MatMul, weights of three axes": lambda g, t: g.add("MatMul", t, g.weight(4, 8, 6)),
    "MatMul, of two tensors": lambda g, t: g.add("MatMul", t, g.add("Transpose", t, perm=[0, 1, 3, 2])),
    "MatMul, vector": lambda g, t: g.add("MatMul", t, g.weight(8)),
    "Clip": _tail("Clip", 0.0, 0.5),
    "Relu": _tail("Relu"),
    "LeakyRelu": _tail("LeakyRelu", alpha=0.1),
    "Sigmoid": _tail("Sigmoid"),
    "Reshape": _tail("Reshape", np.array([0, 32, 8])),
    "Transpose": _tail("Transpose", perm=[0, 2, 3, 1]),
    "Squeeze": lambda g, t: g.add("Squeeze", g.add("GlobalAveragePool", t), g.constant(np.array([2, 3]))),
    "Unsqueeze": _tail("Unsqueeze", np.array([1])),
    "Flatten": _tail("Flatten"),
    "Resize": _resize,
    "MaxPool": _tail("MaxPool", kernel_shape=[2, 2], strides=[2, 2]),
    "AveragePool": _tail("AveragePool", kernel_shape=[3, 3], pads=[1] * 4),
    "GlobalAveragePool": _tail("GlobalAveragePool"),
    "Slice": _tail("Slice", np.array([1]), np.array([3]), np.array([1])),
    "Pad": _tail("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1])),
    "Pad, value": _tail("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), 0.5),
    "Pad, reflect": _tail("Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1]), mode="reflect"),
    "Split": _split,
    "Gather": _tail("Gather", np.array([2, 0]), axis=1),
    "GatherElements": _gather_elements,
    "Where": _where,
    "InstanceNormalization": lambda g, t: g.add("InstanceNormalization", t, g.weight(4), g.weight(4)),
    "LayerNormalization": _layer_norm,
    "BatchNormalization": _batch_norm,
    "TopK": _top_k,
    "CumSum": _tail("CumSum", np.array(1)),
    "ArgMax": lambda g, t: g.add("Cast", g.add("ArgMax", t, axis=1), to=g.kind),
    "Add": lambda g, t: g.add("Add", t, g.conv(t)),
    "Add, constant": lambda g, t: g.add("Add", t, g.weight(4, 1, 1)),
    "Add, of scales far apart": lambda g, t: g.add("Add", g.add("Mul", t, g.constant(1e-6)), g.conv(t)),
    "Mul": lambda g, t: g.add("Mul", t, g.add("Sigmoid", t)),
    "Mul, constant": lambda g, t: g.add("Mul", t, g.weight(4, 1, 1)),
    "Concat": lambda g, t: g.add("Concat", t, g.conv(t), axis=1),
    "Softmax": _tail("Softmax", axis=1),
    "Softmax, reshaped": lambda g, t: g.add("Flatten", g.add("Softmax", t, axis=1)),
    "EmbedLayerNormalization": _embed,
    "stored weight": _stored,
    "stored weight of a Gemm": _stored_gemm,
    "stored weight, taken apart": _stored_split,
}


def _alone(g: Graph, build: Build) -> str:
    return build(g, "x")


def _inside(g: Graph, build: Build) -> str:
    return build(g, g.add("Relu", g.conv("x")))


def _shared(g: Graph, build: Build) -> str:
    """What the operator reads is read by two Convs of one weight and bias too, and by a Relu."""
    t = g.conv("x")
    weight, bias = g.weight(4, 4, 1, 1), g.weight(4)
    first, second = (g.add("Conv", t, weight, bias) for _ in range(2))
    more = g.add("Add", g.add("Add", first, g.add("Relu", second)), g.add("Relu", t))
    result = build(g, t)
    flat = [g.add("Flatten", name) for name in (more, result)]
    reduced = [g.axes("ReduceMean", name, [1], keepdims=0) for name in flat]
    return g.add("Add", *reduced)


def _subgraph(g: Graph, build: Build) -> str:
    """The operator is in both branches of an If, which read a tensor of the graph around it."""
    t = g.conv("x")
    branches = []
    for name in ("yes", "no"):
        inner = Graph(g.opset, g.half, name)
        inner.nodes.append(helper.make_node("Identity", [t], [f"{name}in"], name=f"{name}in"))
        result = build(inner, f"{name}in")
        # A branch that is chosen by nobody knows when: the quantizer does not enter it.
        info = helper.make_tensor_value_info(result, g.kind, None)
        branches.append(helper.make_graph(inner.nodes, name, [], [info], inner.constants))
    chosen = helper.make_node("If", ["which"], ["chosen"], name="If", then_branch=branches[0], else_branch=branches[1])
    total = g.axes("ReduceSum", "x", [0, 1, 2, 3], keepdims=0) if g.opset < 13 else g.add("ReduceSum", "x", keepdims=0)
    zero = g.constant(0.0)
    g.nodes.append(helper.make_node("Greater", [total, zero], ["which"], name="Greater"))
    g.nodes.append(chosen)
    return g.conv(t)


PLACES = {"alone": _alone, "inside": _inside, "shared": _shared, "subgraph": _subgraph}
"""Where an operator stands."""


def graph_of(operator: str, place: str, opset: int, *, half: bool = False) -> onnx.ModelProto:
    """The model of an operator in a place."""
    g = Graph(opset, half)
    result = PLACES[place](g, OPERATORS[operator])
    outputs = [result, *(["chosen"] if place == "subgraph" else [])]
    entry = helper.make_tensor_value_info("x", g.kind, ["N", 4, 8, 8])
    values = [helper.make_tensor_value_info(name, g.kind, None) for name in outputs]
    graph = helper.make_graph(g.nodes, "g", [entry], values, g.constants)
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=8)
    # ONNX asks for the rank of an output, and ONNX Runtime knows it of its own operators too.
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    shapes = [value.shape for value in session.get_outputs()]
    found = [helper.make_tensor_value_info(name, g.kind, shape) for name, shape in zip(outputs, shapes, strict=True)]
    del model.graph.output[:]
    model.graph.output.extend(found)
    return model


def samples(half: bool = False, count: int = 8) -> list[dict[str, np.ndarray]]:
    """Seeded normal numbers, float32 or float16, (1, 4, 8, 8)."""
    rng = np.random.default_rng(1)
    dtype = np.float16 if half else np.float32
    return [{"x": rng.standard_normal((1, 4, 8, 8)).astype(dtype)} for _ in range(count)]
