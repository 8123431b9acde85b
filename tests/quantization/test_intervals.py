"""Interval bounds are sound: whatever a net computes on admissible input, in ONNX Runtime, stays inside."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnxptq.quantization.intervals import EVERYTHING, attained, propagate

LEVELS = (onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
C, SIDE = 4, 6

UNARY = ("Relu", "Sigmoid", "Tanh", "Erf", "HardSwish", "Elu", "Gelu", "Abs", "Neg", "Identity", "LeakyRelu", "Exp")


class Net:
    """Nodes and constants of a random net whose tensors are all float32 (2, 4, 6, 6)."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.tensors = ["x"]

    def constant(self, array, dtype=np.float32) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def weight(self, *shape: int) -> str:
        return self.constant(self.rng.standard_normal(shape) * 10.0 ** self.rng.uniform(-2, 1))

    def add(self, operator: str, *inputs: str, **attributes) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], **attributes))
        return name

    def save(self, path, outputs=None, shape=(2, C, SIDE, SIDE), opset=20):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        results = [onnx.ValueInfoProto(name=name) for name in outputs or [n.output[0] for n in self.nodes]]
        graph = helper.make_graph(self.nodes, "net", [x], results, self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
        return path


def grow(net: Net, kind: str, a: str, b: str) -> str:
    """One more step on the tensors a and b, of the same shape as they."""
    pads = {"kernel_shape": [3, 3], "pads": [1] * 4}
    limits = sorted(net.rng.standard_normal(2) * 3)
    steps = {
        "Conv": lambda: net.add("Conv", a, net.weight(C, C, 3, 3), net.weight(C), pads=[1] * 4),
        "Depthwise": lambda: net.add("Conv", a, net.weight(C, 1, 3, 3), group=C, pads=[1] * 4),
        "ConvTranspose": lambda: net.add(
            "ConvTranspose", a, net.weight(C, 2, 3, 3), net.weight(C), group=2, pads=[1] * 4
        ),
        "MatMul": lambda: net.add("MatMul", a, net.weight(SIDE, SIDE)),
        "LeftMatMul": lambda: net.add("MatMul", net.weight(SIDE, SIDE), a),
        "Gemm": lambda: net.add(
            "Reshape",
            net.add(
                "Gemm",
                net.add("Reshape", a, net.constant([-1, SIDE], np.int64)),
                net.weight(SIDE, SIDE),
                net.weight(SIDE),
                alpha=-0.5,
                beta=2.0,
                transB=1,
            ),
            net.constant([2, C, SIDE, SIDE], np.int64),
        ),
        "BatchNormalization": lambda: net.add(
            "BatchNormalization",
            *(a, net.weight(C), net.weight(C), net.weight(C), net.constant(net.rng.uniform(0.01, 2, C))),
        ),
        "Add": lambda: net.add("Add", a, b),
        "Sum": lambda: net.add("Sum", a, b, a),
        "Sub": lambda: net.add("Sub", a, b),
        "Mul": lambda: net.add("Mul", a, b),
        "Scale": lambda: net.add("Mul", net.weight(1, C, 1, 1), a),
        "Div": lambda: net.add("Div", a, net.constant(net.rng.uniform(0.1, 2, (1, C, 1, 1)))),
        "Min": lambda: net.add("Min", a, b),
        "Max": lambda: net.add("Max", a, net.weight(1)),
        "Clip": lambda: net.add("Clip", a, *map(net.constant, limits)),
        "LowClip": lambda: net.add("Clip", a, "", net.constant(limits[0])),
        "HardSigmoid": lambda: net.add("HardSigmoid", a, alpha=-0.3, beta=0.4),
        "TanhGelu": lambda: net.add("Gelu", a, approximate="tanh"),
        "NegativeElu": lambda: net.add("Elu", a, alpha=-1.5),
        "Softmax": lambda: net.add("Softmax", a, axis=1),
        "MaxPool": lambda: net.add("MaxPool", a, **pads),
        "AveragePool": lambda: net.add("AveragePool", a, **pads),
        "PaddedAveragePool": lambda: net.add("AveragePool", a, **pads, count_include_pad=1),
        "Gate": lambda: net.add("Mul", a, net.add("GlobalAveragePool", b)),
        "ReduceMean": lambda: net.add("Add", a, net.add("ReduceMean", b, net.constant([1, -1], np.int64))),
        "ReduceMax": lambda: net.add("Sub", a, net.add("ReduceMax", b, net.constant([1], np.int64))),
        "Where": lambda: net.add("Where", net.add("Less", a, b), a, net.constant([0.5])),
        "Concat": lambda: net.add(
            "Gather", net.add("Concat", a, b, axis=1), net.constant([7, 0, 5, 2], np.int64), axis=1
        ),
        "Transpose": lambda: net.add("Transpose", a, perm=[0, 1, 3, 2]),
        "Pad": lambda: net.add(
            "MaxPool",
            net.add("Pad", a, net.constant([0, 0, 1, 1] * 2, np.int64), net.constant(-0.3)),
            kernel_shape=[3, 3],
        ),
        "Resize": lambda: net.add(
            "MaxPool",
            net.add("Resize", a, "", net.constant([1, 1, 2, 2]), mode="linear"),
            kernel_shape=[2, 2],
            strides=[2, 2],
        ),
        "Sqrt": lambda: net.add("Sqrt", net.add("Relu", a)),
    }
    return steps[kind]() if kind in steps else net.add(kind, a)


KINDS = (
    *UNARY,
    *("Conv", "Depthwise", "ConvTranspose", "MatMul", "LeftMatMul", "Gemm", "BatchNormalization", "Add", "Sum", "Sub"),
    *("Mul", "Scale", "Div", "Min", "Max", "Clip", "LowClip", "HardSigmoid", "TanhGelu", "NegativeElu", "Softmax"),
    *("MaxPool", "AveragePool", "PaddedAveragePool", "Gate", "ReduceMean", "ReduceMax", "Where", "Concat", "Transpose"),
    *("Pad", "Resize", "Sqrt"),
)


def assert_inside(path, bounds, feeds):
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = level
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        for feed in feeds:
            for name, value in zip(names, session.run(None, {"x": feed}), strict=True):
                if value.dtype != np.float32:
                    continue
                low, high = bounds[name]
                # Beyond float32 a value is infinite, and what follows from it may be NaN: no admissible input.
                finite = value[np.isfinite(value)].astype(np.float64)
                assert finite.size == 0 or (low <= finite.min() and finite.max() <= high), (name, low, high, value)


def admissible(rng, low, high, shape):
    """Inputs inside the bounds: at random, at both ends, at one end."""
    ends = np.float32([low, high])
    for values in (
        rng.uniform(low, high, shape),
        rng.choice(ends, shape),
        np.full(shape, ends[0]),
        np.full(shape, ends[1]),
    ):
        yield np.clip(values.astype(np.float32), *ends)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=7),
    seed=st.integers(0, 2**32 - 1),
    low=st.sampled_from([-100.0, -2.1, 0.0, 0.25]),
    width=st.sampled_from([0.0, 1e-3, 1.0, 300.0]),
)
def test_no_value_of_a_random_net_leaves_its_bounds(tmp_path_factory, kinds, seed, low, width):
    net = Net(np.random.default_rng(seed))
    for kind in kinds:
        # The newest tensor goes on, so that errors add up over the depth; the other operand is any.
        net.tensors.append(grow(net, kind, net.tensors[-1], str(net.rng.choice(net.tensors))))
    path = net.save(tmp_path_factory.mktemp("net") / "net.onnx")
    ends = float(np.float32(low)), float(np.float32(low + width))
    assert_inside(path, propagate(path, {"x": ends}), admissible(net.rng, *ends, (2, C, SIDE, SIDE)))


@pytest.mark.parametrize("kind", KINDS)
def test_each_operator_alone(kind, tmp_path):
    net = Net(np.random.default_rng(sum(map(ord, kind))))
    last = grow(net, kind, "x", "x")
    path = net.save(tmp_path / "net.onnx")
    for low, high in ((-1e4, 1e4), (-20.0, 20.0), (-1.0, -0.2), (0.1, 3.0)):
        bounds = propagate(path, {"x": (low, high)})
        assert_inside(path, bounds, admissible(net.rng, low, high, (2, C, SIDE, SIDE)))
        if kind != "Exp":  # e ** 1e4 is no float32
            assert np.isfinite(bounds[last]).all(), "the rule of a known operator bounds it"
    propagate(path, {})  # Without bounds of the input nothing fails.


@pytest.mark.parametrize("operator", [name for name in UNARY if name != "Exp"])
def test_functions_are_bounded_at_every_float(operator, tmp_path):
    net = Net(np.random.default_rng(0))
    last = net.add(operator, "x")
    path = net.save(tmp_path / "net.onnx", shape=("N",))
    x = np.concatenate(
        [np.linspace(-30, 30, 200_001), np.geomspace(1e-40, 1e30, 2000), -np.geomspace(1e-40, 1e30, 2000)]
    )
    bounds = propagate(path, {"x": (float(x.astype(np.float32).min()), float(x.astype(np.float32).max()))})
    assert_inside(path, bounds, [x.astype(np.float32)])
    assert bounds[last][0] <= bounds[last][1]


def test_bounds_are_as_tight_as_they_are_known_to_be(tmp_path):
    net = Net(np.random.default_rng(0))
    relu = net.add("Relu", "x")
    clip = net.add("Clip", "x", net.constant(0), net.constant(6))
    gate = net.add("Sigmoid", "x")
    both = net.add("Concat", clip, gate, axis=1)
    sums = net.add("Add", clip, gate)
    flat = net.add("GlobalAveragePool", relu)
    unknown = net.add("CumSum", "x", net.constant(1, np.int64))
    found = propagate(net.save(tmp_path / "net.onnx"), {})
    assert found["x"] == EVERYTHING
    assert found[relu] == found[flat] == (0, np.inf)
    assert found[clip] == (0, 6)
    np.testing.assert_allclose(found[gate], (0, 1), atol=1e-5)
    np.testing.assert_allclose(found[both], (0, 6), atol=1e-5)
    np.testing.assert_allclose(found[sums], (0, 7), atol=1e-4)
    assert found[unknown] == EVERYTHING


def test_attained_bounds_go_through_preprocessing_and_stop_at_the_first_layer(tmp_path):
    net = Net(np.random.default_rng(0))
    scaled = net.add("Div", "x", net.constant([255]))
    centred = net.add("Sub", scaled, net.constant(np.float32([0.4, 0.5, 0.6]).reshape(1, 3, 1, 1)))
    moved = net.add("Transpose", centred, perm=[0, 2, 3, 1])
    layer = net.add("MatMul", moved, net.weight(3, 5))
    pooled = net.add("GlobalAveragePool", centred)
    path = net.save(tmp_path / "net.onnx", shape=("N", 3, 8, 8))
    found = attained(path, {"x": (0.0, 255.0)})
    assert found["x"] == (0, 255)
    np.testing.assert_allclose(found[scaled], (0, 1), atol=1e-6)
    np.testing.assert_allclose(found[moved], (-0.6, 0.6), atol=1e-6)
    assert not {layer, pooled} & found.keys()
    assert attained(path, {}) == {}
