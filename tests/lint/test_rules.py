"""Every rule finds the graph that violates it and nothing else; clean graphs violate none."""

from __future__ import annotations

from collections.abc import Callable

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto

from onnxptq.lint import LINT_RULES, lint

from .graphs import Net

SCALES = np.linspace(0.001, 0.01, 4).astype(np.float32)
MICROSOFT = "com.microsoft"


def clean(net: Net) -> str:
    return net.finished(net.conv(net.pair("x")))


def with_input(net: Net, tensor: str) -> str:
    return net.finished(net.conv(tensor))


def with_weight(net: Net, weight: str) -> str:
    return net.finished(net.conv(net.pair("x"), weight))


def gemm(net: Net, bias: str, **attributes: float) -> str:
    flat = net.pair(net.op("Flatten", net.pair("x")))
    return net.op("Gemm", flat, net.weight(256, 4, axis=1), bias, **attributes)


def typed(net: Net, zero: object) -> str:
    y = net.conv(net.pair("x", zero=zero), net.weight(4, 4, 3, 3))
    return net.pair(y, zero=zero) if net.target == "cpu" else y


def float8(net: Net) -> str:
    zero = np.array(0, ml_dtypes.float8_e4m3fn)
    weight = net.pair(net.constant(np.ones((4, 4, 3, 3), np.float32)), zero=zero)
    y = net.conv(net.pair("x", zero=zero), weight)
    return net.pair(y, zero=zero) if net.target == "cpu" else y


def int4(net: Net) -> str:
    weight = net.constant(np.ones((4, 4, 3, 3), ml_dtypes.int4))
    zero = net.constant(np.array(0, ml_dtypes.int4))
    return with_weight(net, net.op("DequantizeLinear", weight, net.constant(np.float32(0.01)), zero))


def late_opset(net: Net) -> str:
    net.opset = 26 if net.target == "tensorrt11" else 25
    return clean(net)


def computed_scale(net: Net) -> str:
    scale, zero = net.op("ReduceMax", net.op("Abs", "x"), keepdims=0), net.constant(net.zero)
    return with_input(net, net.op("DequantizeLinear", net.op("QuantizeLinear", "x", scale, zero), scale, zero))


def quantized_bias(net: Net) -> str:
    return net.finished(net.conv(net.pair("x"), None, net.bias([1, 2, 3, 4], SCALES * np.float32(0.02))))


def wrong_bias_scale(net: Net) -> str:
    return net.finished(net.conv(net.pair("x"), None, net.bias([1, 2, 3, 4], SCALES)))


def half_residual(net: Net) -> str:
    y = net.conv(net.pair("x"))
    if net.target == "cpu":
        return net.pair(net.op("Add", net.pair(y), net.op("Sigmoid", "x")))
    return net.op("Add", y, net.op("Sigmoid", "x"))


def full_residual(net: Net) -> str:
    return net.op("Add", net.pair(net.conv(net.pair("x"))), net.pair("x"))


def lonely_quantize(net: Net) -> str:
    net.op("QuantizeLinear", "x", net.constant(np.float32(0.02)), net.constant(net.zero))
    return clean(net)


def lonely_dequantize(net: Net) -> str:
    kind = TensorProto.UINT8 if net.target == "cpu" else TensorProto.INT8
    integers = net.op("Abs", net.op("Cast", "x", to=kind))
    parameters = (net.constant(np.float32(0.02)), net.constant(net.zero))
    return with_input(net, net.op("DequantizeLinear", integers, *parameters))


def different_pair(net: Net) -> str:
    zero = net.constant(net.zero)
    quantized = net.op("QuantizeLinear", "x", net.constant(np.float32(0.02)), zero)
    return with_input(net, net.op("DequantizeLinear", quantized, net.constant(np.float32(0.03)), zero))


def concat(net: Net) -> str:
    return net.pair(net.op("Concat", net.pair("x", 0.02), net.pair(net.op("Sigmoid", "x"), 0.04), axis=1))


def constant_pair(net: Net) -> str:
    return net.op("Add", net.pair(net.conv(net.pair("x"))), net.pair(net.constant(np.ones((4, 1, 1), np.float32))))


def shared_signed(net: Net) -> str:
    net.zero = np.int8(0)
    x = net.pair("x")
    return net.pair(net.op("Concat", net.pair(net.conv(x)), net.pair(net.conv(x)), axis=1))


def asymmetric_product(net: Net) -> str:
    return net.op("MatMul", net.pair("x", zero=np.int8(5)), net.pair(net.op("Relu", "x")))


def float_branch(net: Net) -> list[str]:
    return [clean(net), net.conv("x", net.constant(np.ones((4, 4, 3, 3), np.float32)))]


def dynamic(net: Net) -> str:
    quantized = net.op("DynamicQuantizeLinear", "x", outputs=3)
    product = net.op("MatMulInteger", quantized, net.constant(np.ones((8, 8), np.uint8)))
    return net.op("Cast", product, to=TensorProto.FLOAT)


def operator_format(net: Net) -> str:
    scale, zero = net.constant(np.float32(0.02)), net.constant(net.zero)
    quantized = net.op("QuantizeLinear", "x", scale, zero)
    weight = net.constant(np.ones((8, 8), net.zero.dtype))
    product = net.op("QLinearMatMul", quantized, scale, zero, weight, scale, zero, scale, zero)
    return net.op("DequantizeLinear", product, scale, zero)


def computed_weight(net: Net) -> str:
    net.inputs["w"] = (4, 4, 3, 3)
    return with_weight(net, net.pair("w"))


def clipped_bias(net: Net) -> str:
    largest = np.iinfo(np.int32).max
    return net.finished(net.conv(net.pair("x"), None, net.bias([1, 2, largest, 4], SCALES * np.float32(0.02))))


def boxes_beside_scores(net: Net) -> str:
    boxes, scores = net.pair(net.conv(net.pair("x")), 2.0), net.pair(net.op("Sigmoid", "x"), 2.0)
    return net.pair(net.op("Concat", boxes, scores, axis=1), 2.0)


UNITS = np.array([1, 0.5, 0.02, 0.001], np.float32).reshape(4, 1, 1)

Build = Callable[[Net], str | list[str]]

VIOLATIONS: dict[str, Build] = {
    "QDQ101": lambda net: with_input(net, net.pair("x", zero=np.int8(3))),
    "QDQ102": lambda net: with_input(net, net.pair("x", zero=np.uint8(0))),
    "QDQ103": lambda net: typed(net, np.int16(0)),
    "QDQ104": int4,
    "QDQ105": float8,
    "QDQ106": late_opset,
    "QDQ107": lambda net: with_input(net, net.pair("x", domain=MICROSOFT)),
    "QDQ111": lambda net: with_input(net, net.pair("x", 0.0)),
    "QDQ112": lambda net: with_input(net, net.pair("x", 1e-40)),
    "QDQ113": computed_scale,
    "QDQ114": lambda net: with_weight(net, net.weight(4, 4, 3, 3, zero=np.int8(0))),
    "QDQ115": lambda net: with_input(net, net.pair("x", SCALES, np.full(4, net.zero), axis=1)),
    "QDQ116": lambda net: with_weight(net, net.weight(4, 4, 3, 3, axis=1)),
    "QDQ117": lambda net: with_weight(net, net.weight(4, 4, 3, 3, scale=SCALES[:3])),
    "QDQ118": lambda net: with_weight(net, net.weight(4, 4, 3, 3, zero=np.full(4, 3, np.int8))),
    "QDQ201": quantized_bias,
    "QDQ202": wrong_bias_scale,
    "QDQ203": half_residual,
    "QDQ204": full_residual,
    "QDQ205": lonely_quantize,
    "QDQ206": lonely_dequantize,
    "QDQ207": different_pair,
    "QDQ208": concat,
    "QDQ209": constant_pair,
    "QDQ210": lambda net: net.pair(net.op("Relu", net.conv(net.pair("x"), None, net.constant(SCALES)))),
    "QDQ221": lambda net: net.pair(net.op("Relu", net.pair(net.conv(net.pair("x"))))),
    "QDQ222": lambda net: net.pair(net.op("HardSwish", net.conv(net.pair("x")))),
    "QDQ223": lambda net: net.pair(gemm(net, net.bias([1, 2, 3, 4], SCALES * np.float32(0.02)), alpha=0.5)),
    "QDQ224": lambda net: net.finished(net.conv(net.pair("x"), None, net.constant(SCALES))),
    "QDQ225": shared_signed,
    "QDQ226": asymmetric_product,
    "QDQ301": float_branch,
    "QDQ302": lambda net: net.finished(net.conv("x")),
    "QDQ303": lambda net: net.conv("x", net.constant(np.ones((4, 4, 3, 3), np.float32))),
    "QDQ304": clean,
    "QDQ305": lambda net: net.pair(net.op("Tanh", net.pair("x"))),
    "QDQ306": dynamic,
    "QDQ307": operator_format,
    "QDQ308": computed_weight,
    "QDQ309": lambda net: net.op("FastGelu", net.conv(net.pair("x")), domain=MICROSOFT),
    "QDQ310": lambda net: with_weight(net, net.constant(np.ones((4, 4, 3, 3), np.float32))),
    "QDQ311": lambda net: net.op("Softmax", net.conv(net.pair("x"))),
    "QDQ401": lambda net: with_weight(net, net.weight(4, 4, 3, 3, largest=127)),
    "QDQ402": clipped_bias,
    "QDQ403": boxes_beside_scores,
    "QDQ404": lambda net: net.pair(net.op("Mul", net.pair("x"), net.constant(UNITS))),
}
EVERY_GRAPH = {"QDQ304", "QDQ311"}
"""Found once in every quantized graph: CUDA computes it in float; what is not quantized is in FP32."""

CASES = [(rule.name, target) for rule in LINT_RULES for target in rule.levels if rule.name != "QDQ119"]


def found(path, target):
    rules = {finding.rule for finding in lint(path, target).findings}
    return rules - EVERY_GRAPH


def build(make: Build, target: str) -> onnx.ModelProto:
    net = Net(target)
    outputs = make(net)
    return net.model(*([outputs] if isinstance(outputs, str) else outputs))


def test_each_rule_has_a_graph_that_violates_it():
    assert set(VIOLATIONS) == set(LINT_RULES.names()) - {"QDQ119"}


@pytest.mark.parametrize(("name", "target"), CASES)
def test_a_graph_that_violates_one_rule_gives_this_rule_alone(name, target, save):
    path = save(build(VIOLATIONS[name], target))
    if name in EVERY_GRAPH:
        assert [f.rule for f in lint(path, target).findings] == [name]
        return
    assert found(path, target) == {name}
    level = LINT_RULES.get(name).levels[target]
    assert {f.level for f in lint(path, target).findings if f.rule == name} == {level}
    assert lint(path, target).passed == (level != "error")


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt", "openvino"])
def test_a_clean_graph_violates_no_rule(target, save):
    assert found(save(build(clean, target)), target) == set()


def test_a_clean_unsigned_net_with_relu_bias_and_residual_violates_no_rule(save):
    net = Net("cpu")
    x = net.pair("x")
    conv = net.conv(x, None, net.bias([1, 2, 3, 4], SCALES * np.float32(0.02)))
    y = net.pair(net.op("Relu", conv), 0.02, np.uint8(0))
    y = net.pair(net.op("Add", net.pair(net.conv(y)), x))
    assert found(save(net.model(net.pair(net.op("Softmax", y)))), "cpu") == set()


def test_a_relu_that_the_quantization_does_not_make_superfluous_keeps_the_conv_in_float(save):
    net = Net("cpu")
    y = net.pair(net.op("Relu", net.conv(net.pair("x"))), 0.02, np.uint8(128))
    assert found(save(net.model(y)), "cpu") == {"QDQ222"}


def test_a_conv_that_is_an_output_or_has_two_readers_is_found(save):
    net = Net("cpu")
    y = net.conv(net.pair("x"))
    report = lint(save(net.model(net.pair(net.op("Tanh", y)), net.pair(y))), "cpu")
    assert "2 nodes read" in next(f.message for f in report.findings if f.rule == "QDQ222")


def test_a_gemm_with_float_bias_and_float_output_is_found(save):
    net = Net("cpu")
    assert found(save(net.model(gemm(net, net.constant(SCALES)))), "cpu") == {"QDQ223", "QDQ224"}


@pytest.mark.parametrize(("kind", "transposed", "axis"), [("Gemm", 1, 0), ("Gemm", 0, 1), ("MatMul", 0, 1)])
def test_the_channel_axis_of_products_is_known(kind, transposed, axis, save):
    for given in (0, 1):
        net = Net("cpu")
        flat = net.pair(net.op("Flatten", net.pair("x")))
        attributes = {"transB": transposed} if kind == "Gemm" else {}
        y = net.pair(net.op(kind, flat, net.weight(256, 256, axis=given), **attributes))
        assert found(save(net.model(y)), "cpu") == (set() if given == axis else {"QDQ116"})


def test_scales_in_external_data_are_not_read_and_said_so(tmp_path):
    net = Net("tensorrt")
    model = net.model(with_input(net, net.pair("x", 0.0)))
    scale = next(t for t in model.graph.initializer if t.name == model.graph.node[0].input[1])
    onnx.external_data_helper.set_external_data(scale, "scales.bin", offset=0, length=4)
    (tmp_path / "scales.bin").write_bytes(scale.raw_data)
    scale.ClearField("raw_data")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert found(tmp_path / "model.onnx", "tensorrt") == {"QDQ119"}


def test_subgraphs_and_functions_are_read_and_named(save):
    net, inner = Net("tensorrt"), Net("tensorrt")
    inner.nodes, inner.tensors = [], []
    y = with_input(inner, inner.pair("x", zero=np.int8(3)))
    graph = inner.model(y).graph
    del graph.input[:]
    condition = net.constant(np.array(True))
    net.op("If", condition, then_branch=graph, else_branch=graph)
    model = net.model("if0")
    report = lint(save(model), "tensorrt")
    assert {f.rule for f in report.findings} == {"QDQ101"}
    assert {f.where.split("/")[0] for f in report.findings} == {"n0.then_branch", "n0.else_branch"}


def test_constants_may_be_constant_nodes(save):
    net = Net("tensorrt")
    tensors = [onnx.numpy_helper.from_array(a) for a in (np.float32(0.02), np.int8(3))]
    scale, zero = (net.op("Constant", value=tensor) for tensor in tensors)
    y = net.op("DequantizeLinear", net.op("QuantizeLinear", "x", scale, zero), scale, zero)
    assert found(save(net.model(with_input(net, y))), "tensorrt") == {"QDQ101"}


def test_an_initializer_that_a_caller_can_override_is_no_constant(save):
    net = Net("tensorrt")
    model = net.model(clean(net))
    name = model.graph.node[0].input[1]
    model.graph.input.append(onnx.helper.make_tensor_value_info(name, TensorProto.FLOAT, []))
    assert found(save(model), "tensorrt") == {"QDQ113"}


@pytest.mark.parametrize(("scale", "said"), [(1 / 64, False), (1 / 16, True)])
def test_boxes_that_are_shares_of_the_picture_may_lie_beside_scores(scale, said, save):
    def make(net: Net) -> str:
        boxes, scores = net.pair(net.conv(net.pair("x")), scale), net.pair(net.op("Sigmoid", "x"), scale)
        return net.pair(net.op("Concat", boxes, scores, axis=1), scale)

    assert ("QDQ403" in found(save(build(make, "cpu")), "cpu")) == said
