"""SmoothQuant: the paper's factors, the same float function, and a smaller INT8 error where a channel sticks out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxptq.errors import DataError, UsageError
from onnxptq.methods import apply_method
from onnxptq.quantization.smoothing import smooth, smoothing_factors
from onnxptq.recipe import Recipe, Step

TOKENS = {"x": ["N", 6, 8]}
OUTLIERS = np.array([1, 40, 1, 1, 1, 25, 1, 1], np.float32)


def run(path, feeds, *names):
    import onnxruntime

    model = onnx.load(path)
    if names:
        del model.graph.output[:]
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # No saturation, whatever the CPU.
    data = model.SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"]).run(None, feeds)


def floats(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def layer_norm(g, x):
    return g.add("LayerNormalization", x, g.constant(OUTLIERS), g.weight(8), axis=-1)


def decomposed(g, x):
    centred = g.add("Sub", x, g.add("ReduceMean", x, axes=[-1]))
    spread = g.add("Sqrt", g.add("ReduceMean", g.add("Mul", centred, centred), axes=[-1]))
    return g.add("Add", g.add("Mul", g.add("Div", centred, spread), g.constant(OUTLIERS)), g.weight(8))


def linear(g, x):
    return g.add(
        "Add", g.add("MatMul", x, g.constant(g.rng.standard_normal((8, 8)).astype(np.float32) * OUTLIERS)), g.weight(8)
    )


def linear_relu(g, x):
    return g.add("Relu", linear(g, x))


def block(builder, path, front):
    """Something with outlying channels, three projections, and two layers behind an activation that is no Relu."""
    g = builder(0)
    y = front(g, "x")
    q, k, v = (g.add("MatMul", y, g.weight(8, 8)) for _ in range(3))
    scores = g.add("Softmax", g.add("MatMul", q, g.add("Transpose", k, perm=[0, 2, 1])), axis=-1)
    z = g.add("MatMul", g.add("Tanh", g.add("MatMul", scores, v)), g.weight(8, 8))
    return g.save(path, TOKENS, {z: ["N", 6, 8]}), y


def test_factors_are_those_of_the_papers_equation():
    activations, weights = np.float32([8, 2, 0, 9]), np.float32([2, 0.5, 1, 0])
    np.testing.assert_allclose(smoothing_factors(activations, weights, 0.5), [2, 2, 1, 1])
    np.testing.assert_allclose(smoothing_factors(activations, weights, 1.0), [8, 2, 1, 1])
    np.testing.assert_allclose(smoothing_factors(activations, weights, 0.75), [8**0.75 / 2**0.25, 2, 1, 1], rtol=1e-6)


@pytest.mark.parametrize("front", [layer_norm, decomposed, linear, linear_relu])
def test_activations_and_weights_meet_in_the_middle_and_the_function_stays(front, builder, draw, tmp_path):
    path, smoothed = block(builder, tmp_path / "net.onnx", front)
    samples = draw(path, count=8)
    changed = smooth(path, samples, tmp_path / "out.onnx")
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    readers = [n.input[1] for n in onnx.load(path).graph.node if n.op_type == "MatMul" and n.input[0] == smoothed]
    assert len(readers) == 3
    largest = np.max([np.abs(run(path, feeds, smoothed)[0]).max(axis=(0, 1)) for _, feeds in samples], axis=0)
    now = np.max([np.abs(run(tmp_path / "out.onnx", f, smoothed)[0]).max(axis=(0, 1)) for _, f in samples], axis=0)
    weights = np.max([np.abs(floats(tmp_path / "out.onnx")[name]).max(axis=1) for name in readers], axis=0)
    before = np.max([np.abs(floats(path)[name]).max(axis=1) for name in readers], axis=0)
    alive = largest > 0
    np.testing.assert_allclose(now[alive], weights[alive], rtol=1e-3)
    np.testing.assert_allclose(now[alive], np.sqrt(largest * before)[alive], rtol=1e-3)
    for _, feeds in samples:
        (wanted,), (found,) = run(path, feeds), run(tmp_path / "out.onnx", feeds)
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)
    assert changed.notes[0].startswith("smoothquant smoothed 1 tensors")
    assert "left" in changed.notes[1]
    assert "because nothing in front of them can take the scale (tanh" in changed.notes[1] or front is not layer_norm


def test_int8_of_a_block_with_outlying_channels_gets_a_quarter_of_the_error(builder, calibration, write, tmp_path):
    g = builder(1)
    y = layer_norm(g, "x")
    weight = g.rng.standard_normal((8, 16)).astype(np.float32) / OUTLIERS[:, None]  # All channels count as much.
    y = g.add("Add", g.add("MatMul", y, g.constant(weight)), g.weight(16))
    y = g.add("MatMul", g.add("Relu", y), g.weight(16, 4))
    y = g.add("ReduceMean", y, axes=[1], keepdims=0)
    path = g.save(tmp_path / "net.onnx", TOKENS, {y: ["N", 4]})
    samples = calibration(path, count=16)
    errors = {}
    for name, steps in (("minmax", ()), ("smoothquant", (Step("smoothquant"),))):
        (tmp_path / f"{name}.onnx").write_bytes(write(path, samples, weight_transforms=steps))
        pairs = [(run(path, feeds)[0], run(tmp_path / f"{name}.onnx", feeds)[0]) for _, feeds in samples]
        errors[name] = np.mean([np.square(wanted - found) for wanted, found in pairs])
    assert errors["smoothquant"] < errors["minmax"] / 4, errors


def test_what_another_node_reads_too_is_left_alone(builder, draw, tmp_path):
    g = builder(2)
    y = layer_norm(g, "x")
    z = g.add("Add", g.add("MatMul", y, g.weight(8, 8)), y)  # A residual branch reads the normalised tensor too.
    path = g.save(tmp_path / "net.onnx", TOKENS, {z: ["N", 6, 8]})
    changed = smooth(path, draw(path), tmp_path / "out.onnx")
    assert changed.notes[0].startswith("smoothquant changed nothing")
    assert (
        f"left 1 inputs of MatMul and Gemm as they are, because nothing in front of them can take the scale ({y})"
        in (changed.notes[1])
    )
    before, after = floats(path), floats(tmp_path / "out.onnx")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_a_scale_of_two_normalisations_is_copied_before_it_changes(builder, draw, tmp_path):
    g = builder(3)
    scale, bias = g.constant(OUTLIERS), g.weight(8)
    y = g.add("LayerNormalization", "x", scale, bias, axis=-1)
    y = g.add("Sigmoid", g.add("MatMul", y, g.weight(8, 8)))
    y = g.add("LayerNormalization", y, scale, bias, axis=2)
    path = g.save(tmp_path / "net.onnx", TOKENS, {y: ["N", 6, 8]})
    smooth(path, draw(path), tmp_path / "out.onnx")
    np.testing.assert_array_equal(floats(tmp_path / "out.onnx")[scale], OUTLIERS)
    for _, feeds in draw(path):
        np.testing.assert_allclose(run(tmp_path / "out.onnx", feeds)[0], run(path, feeds)[0], rtol=1e-3, atol=1e-4)


def test_wrong_input_is_refused(builder, draw, tmp_path):
    path, _ = block(builder, tmp_path / "net.onnx", layer_norm)
    with pytest.raises(UsageError, match=r"alpha must be between 0 and 1, got 1\.5"):
        smooth(path, draw(path), tmp_path / "out.onnx", alpha=1.5)
    with pytest.raises(DataError, match="calibration set is empty"):
        smooth(path, [], tmp_path / "out.onnx")
    broken = [("sample-7", {"x": np.full((1, 6, 8), np.nan, np.float32)})]
    with pytest.raises(DataError, match="not finite for the sample 'sample-7'"):
        smooth(path, broken, tmp_path / "out.onnx")


def test_the_method_takes_alpha():
    assert apply_method("smoothquant", Recipe()).weight_transforms == (Step.of("smoothquant", alpha=0.5),)
    assert apply_method("smoothquant:alpha=0.75", Recipe()).weight_transforms == (Step.of("smoothquant", alpha=0.75),)
