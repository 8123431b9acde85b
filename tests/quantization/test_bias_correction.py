"""After correction, a net with INT8 weights has the float net's mean in every channel of every Conv and Gemm."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from onnxptq.methods import apply_method
from onnxptq.quantization.bias_correction import correct_biases, quantized_weights
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.targets import TARGETS
from onnxptq.recipe import Recipe, Step

COARSE = QuantizerSettings(weight_type="QInt4", per_channel=False)
SETTINGS = {**{target.name: target.settings for target in TARGETS}, "per tensor": QuantizerSettings(), "4 bits": COARSE}


def run(model, feeds, names):
    import onnxruntime

    model = onnx.ModelProto.FromString(model.SerializeToString())
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(None, feeds), strict=True))


def means(model, samples, names):
    """Mean of each channel over all samples, all activations kept: float64, (C,)."""
    kept = [run(model, feeds, names) for _, feeds in samples]
    rows = {n: np.concatenate([np.moveaxis(v[n], 1, -1).reshape(-1, v[n].shape[1]) for v in kept]) for n in names}
    return {name: values.astype(np.float64).mean(axis=0) for name, values in rows.items()}


def layers(model):
    return [node.output[0] for node in model.graph.node if node.op_type in ("Conv", "Gemm")]


def with_weights(model, weights):
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    for tensor in changed.graph.initializer:
        if tensor.name in weights:
            tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    return changed


def biases(model):
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    return {n.output[0]: constants[n.input[2]] for n in model.graph.node if n.output[0] in layers(model)}


@pytest.mark.parametrize("name", ["residual", "depthwise_clip", "gemm_beta", "shared_bias", "batch_norm", "conv_relu"])
@pytest.mark.parametrize("target", ["cpu", "4 bits"])
def test_means_of_the_net_with_quantized_weights_are_those_of_the_float_net(name, target, build_graph, draw, tmp_path):
    path = build_graph(name)
    samples = draw(path, count=8)
    correct_biases(path, samples, tmp_path / "out.onnx", settings=SETTINGS[target])
    original, corrected = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(corrected, full_check=True)
    weights = quantized_weights(path, SETTINGS[target])
    names = layers(original)
    wanted = means(original, samples, names)
    before = means(with_weights(original, weights), samples, names)
    after = means(with_weights(corrected, weights), samples, names)
    for tensor in names:
        np.testing.assert_allclose(after[tensor], wanted[tensor], rtol=1e-4, atol=2e-5)
    assert max(np.abs(before[tensor] - wanted[tensor]).max() for tensor in names) > 1e-3


def test_it_is_what_going_layer_by_layer_with_all_activations_kept_gives(build_graph, draw, tmp_path):
    path = build_graph("residual")
    samples = draw(path, count=8)
    model = onnx.load(path)
    quantized = with_weights(model, quantized_weights(path, COARSE))
    names = layers(model)
    wanted = means(model, samples, names)
    expected = {}
    for tensor in names:  # In the order of the graph.
        error = means(quantized, samples, [tensor])[tensor] - wanted[tensor]
        node = next(node for node in quantized.graph.node if node.output[0] == tensor)
        bias = next(t for t in quantized.graph.initializer if t.name == node.input[2])
        expected[tensor] = numpy_helper.to_array(bias) - error.astype(np.float32)
        bias.CopyFrom(numpy_helper.from_array(expected[tensor], bias.name))
    correct_biases(path, samples, tmp_path / "out.onnx", settings=COARSE)
    found = biases(onnx.load(tmp_path / "out.onnx"))
    for tensor in names:
        np.testing.assert_allclose(found[tensor], expected[tensor], rtol=1e-4, atol=1e-5)


def test_only_biases_change(build_graph, draw, tmp_path):
    path = build_graph("depthwise_clip")
    correct_biases(path, draw(path), tmp_path / "out.onnx", settings=QuantizerSettings())
    before, after = onnx.load(path), onnx.load(tmp_path / "out.onnx")
    kept = {t.name: t for t in after.graph.initializer}
    assert all(kept[t.name] == t for t in before.graph.initializer)
    assert [(n.op_type, n.output[0], list(n.input)[:2]) for n in before.graph.node] == [
        (n.op_type, n.output[0], list(n.input)[:2]) for n in after.graph.node
    ]


@pytest.mark.parametrize("target", [name for name in SETTINGS if name != "4 bits"])
def test_the_weights_are_those_that_the_quantizer_writes(target, build_graph, draw, tmp_path, stock):
    """Read back from the QDQ file by ONNX Runtime itself."""
    path = build_graph("depthwise_clip")
    (tmp_path / "int8.onnx").write_bytes(stock(path, draw(path), **SETTINGS[target].to_kwargs()))
    int8 = onnx.load(tmp_path / "int8.onnx")
    found = quantized_weights(path, SETTINGS[target])
    by_name = {node.name: node.input[1] for node in int8.graph.node if node.op_type in ("Conv", "Gemm")}
    originals = [node for node in onnx.load(path).graph.node if node.op_type in ("Conv", "Gemm")]
    assert set(found) == {node.input[1] for node in originals}
    feeds = draw(path)[0][1]
    for node in originals:
        dequantized = run(int8, feeds, [by_name[node.name]])[by_name[node.name]]
        np.testing.assert_array_equal(found[node.input[1]], dequantized)


def test_layers_that_stay_in_float_are_left_alone(build_graph, draw, tmp_path):
    path = build_graph("depthwise_clip")
    excluded = [node.name for node in onnx.load(path).graph.node if node.op_type == "Gemm"]
    settings = QuantizerSettings(weight_type="QInt4", nodes_to_exclude=tuple(excluded))
    correct_biases(path, draw(path), tmp_path / "out.onnx", settings=settings)
    before, after = biases(onnx.load(path)), biases(onnx.load(tmp_path / "out.onnx"))
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert changed == {name for name in before if name.startswith("conv")}


def test_a_gemm_without_a_constant_bias_is_left_alone(build_graph, draw, tmp_path):
    model = onnx.load(build_graph("gemm_beta"))
    first = model.graph.node[0]
    first.input[2] = "other"
    model.graph.node.insert(0, helper.make_node("MatMul", ["x", "w0"], ["other"]))
    path = tmp_path / "other.onnx"
    onnx.save(model, path)
    correct_biases(path, draw(path), tmp_path / "out.onnx", settings=COARSE)
    after = onnx.load(tmp_path / "out.onnx")
    assert after.graph.node[1].input[2] == "other"
    assert after.graph.node[2].input[2].endswith("__bias")


def test_the_method_is_minmax_on_the_corrected_model(build_graph, calibration, write, tmp_path):
    recipe = apply_method("bias-correction", Recipe())
    assert (recipe.weight_transforms, recipe.ranges) == ((Step("bias-correction"),), Step("minmax"))
    path = build_graph("depthwise_clip")
    samples = calibration(path)
    written = write(path, samples, weight_transforms=recipe.weight_transforms)
    correct_biases(path, samples, tmp_path / "out.onnx", settings=TARGETS.get("cpu").settings)
    assert written == write(tmp_path / "out.onnx", samples)
    assert written != write(path, samples)
