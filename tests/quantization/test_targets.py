"""A target gives the types that it promises, in a graph that ONNX Runtime runs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, numpy_helper

from onnxptq.quantization.targets import TARGETS

ACTIVATIONS = {
    "cpu": TensorProto.UINT8,
    "cuda": TensorProto.INT8,
    "tensorrt": TensorProto.INT8,
    "tensorrt11": TensorProto.INT8,
    "openvino": TensorProto.INT8,
}


@pytest.fixture(params=sorted(ACTIVATIONS))
def quantized(request, build_graph, calibration, write):
    """The target's name and its INT8 model of Conv, Clip and Gemm with biases."""
    path = build_graph("depthwise_clip")
    return request.param, onnx.load_from_string(write(path, calibration(path), target=request.param))


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def producers(model):
    return {name: node for node in model.graph.node for name in node.output}


def layers(model):
    return [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]


def test_the_targets_are_those_tested_here():
    assert set(TARGETS.names()) == set(ACTIVATIONS)
    for target in TARGETS:
        assert target.summary
        assert all(choice.setting and choice.reason and choice.source for choice in target.reasons)


def test_activations_have_the_promised_type(quantized):
    name, model = quantized
    found = {node.input[0]: node for node in model.graph.node if node.op_type == "QuantizeLinear"}
    zero_points = {t.name: t.data_type for t in model.graph.initializer}
    types = {zero_points[node.input[2]] for tensor, node in found.items() if tensor not in zero_points}
    assert types == {ACTIVATIONS[name]}


def test_symmetric_activations_have_zero_point_zero(quantized):
    name, model = quantized
    values = constants(model)
    zeros = [values[n.input[2]] for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in values]
    assert zeros
    assert all((zero == 0).all() for zero in zeros) == (name != "cpu")


def test_weights_are_int8_with_one_scale_a_channel_and_zero_point_zero(quantized):
    _, model = quantized
    values, made = constants(model), producers(model)
    for layer in layers(model):
        dequantize = made[layer.input[1]]
        assert dequantize.op_type == "DequantizeLinear"
        scale, zero = values[dequantize.input[1]], values[dequantize.input[2]]
        channels = 5 if layer.op_type == "Gemm" else 6
        assert scale.shape == zero.shape == (channels,)
        assert zero.dtype == np.int8
        assert (zero == 0).all()


def test_biases_are_int32_on_the_cpu_and_float_elsewhere(quantized):
    name, model = quantized
    values, made = constants(model), producers(model)
    for layer in layers(model):
        bias = layer.input[2]
        stored = values[bias] if bias in values else values[made[bias].input[0]]
        assert stored.dtype == (np.int32 if name == "cpu" else np.float32)


def test_logits_stay_in_float_but_on_the_cpu(quantized):
    name, model = quantized
    head = producers(model)[model.graph.output[0].name]
    assert head.op_type == ("DequantizeLinear" if name == "cpu" else "Gemm")


def test_tensorrt_gets_q_and_dq_on_the_weights_and_a_pair_a_consumer(quantized):
    name, model = quantized
    made = producers(model)
    weights = [made[layer.input[1]] for layer in layers(model)]
    in_graph = [made.get(dequantize.input[0]) for dequantize in weights]
    assert all(
        (node is not None and node.op_type == "QuantizeLinear") == name.startswith("tensorrt") for node in in_graph
    )
    if name.startswith("tensorrt"):
        readers = [n for node in model.graph.node for n in node.input]
        assert all(readers.count(n.output[0]) <= 1 for n in model.graph.node if n.op_type == "DequantizeLinear")


def test_the_model_runs_on_the_cpu_and_is_close_to_fp32(quantized, build_graph, calibration):
    _, model = quantized
    path = build_graph("depthwise_clip")
    options = {"providers": ["CPUExecutionProvider"]}
    int8 = onnxruntime.InferenceSession(model.SerializeToString(), **options)
    fp32 = onnxruntime.InferenceSession(path, **options)
    pairs = [(int8.run(None, feeds)[0], fp32.run(None, feeds)[0]) for _, feeds in calibration(path)]
    got, exact = (np.concatenate(side) for side in zip(*pairs, strict=True))
    assert 0 < ((got - exact) ** 2).sum() / (exact**2).sum() < 0.01
