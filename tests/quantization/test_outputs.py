"""Float outputs: only what ends in an output loses its Q and DQ, and the model computes what it computed before."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType

from onnxptq.quantization.outputs import leave_outputs_in_float


@pytest.fixture
def quantize(tmp_path, stock):
    """The INT8 file of a test graph, by `quantize_static` with options."""

    def quantize(path, samples, name="int8.onnx", **options):
        data = stock(path, samples, per_channel=True, activation_type=QuantType.QUInt8, extra_options=options)
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return quantize


def run(path, feeds, level=onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return dict(zip([o.name for o in session.get_outputs()], session.run(None, feeds), strict=True))


def operators(path):
    return sorted(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("graph", ["depthwise_clip", "batch_norm"])
def test_with_one_gemm_as_the_head_it_equals_onnx_runtimes_own_option(graph, build_graph, draw, quantize):
    path = build_graph(graph)
    samples = draw(path)
    ours = quantize(path, samples)
    theirs = quantize(path, samples, "theirs.onnx", OpTypesToExcludeOutputQuantization=["Gemm"])
    assert operators(ours) != operators(theirs)
    leave_outputs_in_float(ours)
    onnx.checker.check_model(onnx.load(ours), full_check=True)
    assert operators(ours) == operators(theirs)
    for _, feeds in samples:
        one, other = run(ours, feeds), run(theirs, feeds)
        assert list(one) == list(other)
        for name in one:
            np.testing.assert_array_equal(one[name], other[name])


def test_internal_q_and_dq_stay_and_the_weights_stay_int8(build_graph, draw, quantize):
    path = build_graph("gemm_beta")  # Gemm, Gemm, Sigmoid
    int8 = quantize(path, draw(path))
    before = onnx.load(int8)
    notes = leave_outputs_in_float(int8)
    after = onnx.load(int8)

    def count(model, op):
        return sum(node.op_type == op for node in model.graph.node)

    for op in ("QuantizeLinear", "DequantizeLinear"):
        assert (
            count(before, op) - count(after, op) == 2
        )  # Before the Sigmoid, which only reads the head out, and after.
    assert len(notes) == 1
    assert notes[0].startswith("Gemm 'node_gemm1' leaves its result in float, for the output ")
    types = [{t.name: t.data_type for t in m.graph.initializer if "quantized" in t.name} for m in (before, after)]
    assert types[0] == types[1]
    assert TensorProto.INT8 in types[0].values()


def test_an_output_has_its_float_values_and_not_256_levels(build_graph, draw, quantize):
    path = build_graph("gemm_beta")
    samples = draw(path, 6)
    int8 = quantize(path, samples)
    (name,) = run(int8, samples[0][1])
    levels = [np.unique(np.concatenate([run(int8, feeds)[name].ravel() for _, feeds in samples]))]
    leave_outputs_in_float(int8)
    freed = np.concatenate([run(int8, feeds)[name].ravel() for _, feeds in samples])
    scale = np.diff(levels[0]).min()
    assert np.abs(freed / scale - np.rint(freed / scale)).max() > 0.1


def test_several_outputs_and_one_that_is_read_inside(build_graph, draw, quantize):
    path = build_graph("two_inputs")  # c = a * b is an output and goes on to Tanh and Softmax, the other output.
    samples = draw(path)
    int8 = quantize(path, samples)
    outputs = [output.name for output in onnx.load(path).graph.output]
    level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    before = [run(int8, feeds, level) for _, feeds in samples]
    leave_outputs_in_float(int8)
    model = onnx.load(int8)
    onnx.checker.check_model(model, full_check=True)
    assert [output.name for output in model.graph.output] == outputs
    producers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert not {producers[name] for name in outputs} & {"QuantizeLinear", "DequantizeLinear"}
    steps = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for (_, feeds), quantized in zip(samples, before, strict=True):
        freed = run(int8, feeds, level)
        # c loses only its own rounding. The nodes inside still read the rounded one, so the last output, before its
        # own rounding, is what it was.
        step = steps[f"{outputs[0]}_scale"]
        assert 0 < np.abs(freed[outputs[0]] - quantized[outputs[0]]).max() <= step / 2 + 1e-6
        assert np.abs(freed[outputs[1]] - quantized[outputs[1]]).max() <= 1 / 255 / 2 + 1e-6


def test_no_initializer_is_left_that_nothing_reads_and_none_is_lost(build_graph, draw, quantize):
    path = build_graph("depthwise_clip")
    int8 = quantize(path, draw(path))
    leave_outputs_in_float(int8)
    graph = onnx.load(int8).graph
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


def test_initializers_that_a_branch_or_another_pair_reads_stay(tmp_path):
    """If reads `w` from outside its branches; input and output are quantized with one scale."""
    y = helper.make_tensor_value_info("b", TensorProto.FLOAT, [2])
    branch = helper.make_graph([helper.make_node("Identity", ["w"], ["b"])], "branch", [], [y])
    nodes = [
        helper.make_node("If", ["c"], ["chosen"], then_branch=branch, else_branch=branch),
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("Add", ["xd", "chosen"], ["raw"]),
        helper.make_node("QuantizeLinear", ["raw", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    arrays = {"w": np.float32([1.03, 2.04]), "c": np.array(True), "s": np.float32(0.1), "z": np.uint8(0)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    path = tmp_path / "if.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    leave_outputs_in_float(path)
    assert operators(path) == ["Add", "DequantizeLinear", "If", "QuantizeLinear"]
    assert {tensor.name for tensor in onnx.load(path).graph.initializer} == set(arrays)
    # x is rounded to steps of 0.1, the sum is not rounded.
    y = run(path, {"x": np.float32([0.21, 0.28])})["y"]
    np.testing.assert_allclose(y, [1.23, 2.34], rtol=1e-6)


def test_a_float_model_is_left_as_it_is(build_graph):
    path = build_graph("residual")
    before = onnx.load(path).SerializeToString()
    leave_outputs_in_float(path)
    assert onnx.load(path).SerializeToString() == before


def test_the_head_is_found_behind_a_softmax_and_the_addition_of_a_constant(build_graph, draw, stock, tmp_path):
    """MatMul, Add, Softmax, as transformers end: neither of their results keeps 256 levels."""
    path = tmp_path / "head.onnx"
    arrays = {"w": np.eye(6, dtype=np.float32), "b": np.linspace(0, 1, 6, dtype=np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["product"], "head"),
        helper.make_node("Add", ["product", "b"], ["logits"], "bias"),
        helper.make_node("Softmax", ["logits"], ["y"], "softmax"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 6]) for name in "xy"]
    graph = helper.make_graph(
        nodes, "g", ends[:1], ends[1:], [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    int8 = tmp_path / "int8.onnx"
    int8.write_bytes(stock(path, draw(path), activation_type=QuantType.QUInt8))
    assert leave_outputs_in_float(int8) == ("MatMul 'head' leaves its result in float, for the output 'y'.",)
    onnx.checker.check_model(onnx.load(int8), full_check=True)
    producers = {name: node for node in onnx.load(int8).graph.node for name in node.output}
    softmax = producers["y"]
    assert softmax.op_type == "Softmax"
    assert producers[softmax.input[0]].op_type == "Add"
    assert {producers[name].op_type for name in producers[softmax.input[0]].input} == {"MatMul", "DequantizeLinear"}
    assert set(operators(int8)) == {"Add", "DequantizeLinear", "MatMul", "QuantizeLinear", "Softmax"}
    run(int8, draw(path)[0][1])
