"""Cross-layer equalisation: equal ranges on both sides of every channel, the same float function, better INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxptq.graphs.batch_norms import KEY, remembered_batch_norms
from onnxptq.methods import apply_method
from onnxptq.quantization.equalization import equalize
from onnxptq.quantization.grids import stock_grids
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.recipe import Recipe, Step

IMAGE = {"x": ["N", 3, 8, 8]}


def run(path, feeds):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)[0]


def sqnr(wanted, found):
    return 10 * np.log10((wanted.astype(np.float64) ** 2).sum() / ((wanted - found).astype(np.float64) ** 2).sum())


def weights(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def separable(builder, path, activation="Relu", spread=2.0, seed=0):
    """Pointwise, depthwise, pointwise, pool and head; channels of the depthwise layer differ in scale."""
    g = builder(seed)
    limits = [g.constant(np.array(v, np.float32)) for v in (0, 6)]

    def act(tensor):
        return g.add("Clip", tensor, *limits) if activation == "Clip" else g.add(activation, tensor)

    depthwise = g.rng.standard_normal((16, 1, 3, 3)).astype(np.float32)
    depthwise *= 10 ** g.rng.uniform(-spread, spread, (16, 1, 1, 1)).astype(np.float32)
    y = act(g.add("Conv", "x", g.weight(16, 3, 1, 1), g.weight(16)))
    y = act(g.add("Conv", y, g.constant(depthwise), g.weight(16), group=16, pads=[1] * 4))
    y = act(g.add("Conv", y, g.weight(8, 16, 1, 1), g.weight(8)))
    y = g.add("Flatten", g.add("GlobalAveragePool", y))
    y = g.add("Gemm", y, g.weight(5, 8), g.weight(5), transB=1)
    return g.save(path, IMAGE, {y: ["N", 5]})


@pytest.mark.parametrize("activation", ["Relu", "LeakyRelu", "Identity"])
def test_ranges_of_both_sides_become_the_root_of_their_product_and_the_function_stays(builder, activation, tmp_path):
    g = builder(1)
    first, second = g.weight(4, 3, 3, 3), g.weight(5, 4, 1, 1)
    y = g.add("Conv", g.add(activation, g.add("Conv", "x", first, g.weight(4))), second)
    path = g.save(tmp_path / "net.onnx", IMAGE, {y: ["N", 5, 6, 6]})
    before = weights(path)
    equalize(path, None, tmp_path / "out.onnx")
    after = weights(tmp_path / "out.onnx")
    r1, r2 = (np.abs(before[first]).max(axis=(1, 2, 3)), np.abs(before[second]).max(axis=(0, 2, 3)))
    np.testing.assert_allclose(np.abs(after[first]).max(axis=(1, 2, 3)), np.sqrt(r1 * r2), rtol=1e-5)
    np.testing.assert_allclose(np.abs(after[second]).max(axis=(0, 2, 3)), np.sqrt(r1 * r2), rtol=1e-5)
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": x}), run(path, {"x": x}), rtol=1e-4, atol=1e-5)


def test_in_a_chain_of_layers_all_pairs_settle(builder, tmp_path):
    path = separable(builder, tmp_path / "net.onnx")
    changed = equalize(path, None, tmp_path / "out.onnx")
    w = [a for name, a in weights(tmp_path / "out.onnx").items() if a.ndim == 4] + [
        weights(tmp_path / "out.onnx")["w8"]
    ]
    pointwise, depthwise, last, head = w
    of_outputs = [np.abs(a).max(axis=tuple(range(1, a.ndim))) for a in (pointwise, depthwise, last)]
    of_inputs = [of_outputs[1], np.abs(last).max(axis=(0, 2, 3)), np.abs(head).max(axis=0)]
    for outputs, inputs in zip(of_outputs, of_inputs, strict=True):
        np.testing.assert_allclose(outputs, inputs, rtol=0.01)
    assert changed.notes[0].startswith("cle equalised 3 pairs of layers; channels moved by up to a factor of")
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": x}), run(path, {"x": x}), rtol=1e-3, atol=1e-3)


def test_badly_scaled_depthwise_channels_gain_15_db_with_one_scale_a_tensor(builder, tmp_path):
    path = separable(builder, tmp_path / "net.onnx")
    equalize(path, None, tmp_path / "out.onnx")
    x = np.random.default_rng(0).standard_normal((64, 3, 8, 8)).astype(np.float32)
    found = {}
    for source in (path, tmp_path / "out.onnx"):
        model, grids = onnx.load(source), stock_grids(source, QuantizerSettings(per_channel=False))
        for tensor in model.graph.initializer:
            if tensor.name in grids:
                grid, integers = grids[tensor.name]
                tensor.CopyFrom(numpy_helper.from_array(grid.worth(integers), tensor.name))
        onnx.save(model, tmp_path / "int8-weights.onnx")
        found[source.name] = sqnr(run(path, {"x": x}), run(tmp_path / "int8-weights.onnx", {"x": x}))
    assert found["out.onnx"] > found["net.onnx"] + 15, found


def test_grouped_layers_and_a_flatten_of_images_keep_the_function(builder, tmp_path):
    g = builder(3)
    y = g.add("LeakyRelu", g.add("Conv", "x", g.weight(6, 3, 1, 1), g.weight(6)), alpha=0.3)
    y = g.add("Relu", g.add("Conv", y, g.weight(4, 3, 3, 3), group=2))
    y = g.add("Flatten", g.add("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]))
    y = g.add("Relu", g.add("Gemm", y, g.weight(36, 7), g.weight(1), alpha=0.5, beta=2.0))
    y = g.add("Gemm", y, g.weight(5, 7), transB=1)
    path = g.save(tmp_path / "net.onnx", IMAGE, {y: ["N", 5]})
    changed = equalize(path, None, tmp_path / "out.onnx")
    assert "equalised 3 pairs" in changed.notes[0]
    onnx.checker.check_model(onnx.load(tmp_path / "out.onnx"), full_check=True)
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": x}), run(path, {"x": x}), rtol=1e-4, atol=1e-4)


def test_what_is_shared_dead_or_read_twice_is_left_alone(builder, tmp_path):
    g = builder(4)
    shared, dead = g.weight(3, 3, 1, 1), np.ones((3, 3, 1, 1), np.float32)
    dead[1] = 0
    y = g.add("Conv", g.add("Conv", "x", shared), shared)  # One weight of two nodes.
    y = g.add("Conv", g.add("Relu", g.add("Conv", y, g.constant(dead))), g.weight(3, 3, 1, 1))
    y = g.add("Relu", g.add("Conv", y, g.weight(3, 3, 1, 1)))
    y = g.add("Add", y, g.add("Conv", y, g.weight(3, 3, 1, 1)))  # Read twice.
    path = g.save(tmp_path / "net.onnx", IMAGE, {y: ["N", 3, 8, 8]})
    equalize(path, None, tmp_path / "out.onnx")
    before, after = weights(path), weights(tmp_path / "out.onnx")
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert shared not in changed
    assert "w4" not in changed
    assert np.isfinite(after["w1"]).all()
    assert not after["w1"][1].any()
    x = np.random.default_rng(0).standard_normal((2, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": x}), run(path, {"x": x}), rtol=1e-4, atol=1e-4)


def test_a_layer_that_is_added_to_another_is_no_pair_with_it(builder, tmp_path):
    g = builder(6)
    y = g.add("Relu", g.add("Gemm", "x", g.weight(6, 6)))
    y = g.add("Gemm", "x", g.weight(6, 6), y)  # As its third input.
    path = g.save(tmp_path / "net.onnx", {"x": [2, 6]}, {y: [2, 6]})
    assert "cle changed nothing" in equalize(path, None, tmp_path / "out.onnx").notes[0]


def test_a_relu6_stands_in_the_way_unless_it_may_become_a_relu(builder, tmp_path):
    path = separable(builder, tmp_path / "net.onnx", "Clip")
    changed = equalize(path, None, tmp_path / "out.onnx")
    assert weights(path).keys() == weights(tmp_path / "out.onnx").keys()
    assert all(np.array_equal(weights(path)[name], array) for name, array in weights(tmp_path / "out.onnx").items())
    assert "cle left 3 pairs as they are, because a Clip stands between them" in changed.notes[1]
    changed = equalize(path, None, tmp_path / "out.onnx", relu6_to_relu=True)
    assert "made 3 Clip (Relu6) into Relu, which changes the float function" in changed.notes[1]
    assert [n.op_type for n in onnx.load(tmp_path / "out.onnx").graph.node].count("Relu") == 3
    relus = separable(builder, tmp_path / "relu.onnx", "Relu")
    x = np.random.default_rng(0).standard_normal((4, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(tmp_path / "out.onnx", {"x": x}), run(relus, {"x": x}), rtol=1e-3, atol=1e-3)


def test_remembered_batch_normalizations_follow_the_scales(builder, tmp_path):
    from onnxptq.cache import user_cache
    from onnxptq.graphs import fold, load_model

    g = builder(5)
    stats = [g.weight(4, scale=0.1, offset=1), g.weight(4), g.weight(4), g.constant(np.full(4, 0.5, np.float32))]
    y = g.add("Relu", g.add("BatchNormalization", g.add("Conv", "x", g.weight(4, 3, 1, 1)), *stats))
    y = g.add("Conv", y, g.weight(4, 4, 1, 1, scale=9))
    folded = fold(load_model(g.save(tmp_path / "net.onnx", IMAGE, {y: ["N", 4, 8, 8]})), user_cache())
    equalize(folded, None, tmp_path / "out.onnx")
    assert [entry.key for entry in onnx.load(tmp_path / "out.onnx").metadata_props].count(KEY) == 1
    (before,), (after,) = (remembered_batch_norms(p).values() for p in (folded, tmp_path / "out.onnx"))
    (bias_before, bias_after) = (
        next(a for a in weights(p).values() if a.shape == (4,)) for p in (folded, tmp_path / "out.onnx")
    )
    np.testing.assert_allclose(after.scale / before.scale, bias_after / bias_before, rtol=1e-4)
    np.testing.assert_allclose(after.bias / before.bias, bias_after / bias_before, rtol=1e-4)


def test_the_method_is_minmax_on_the_equalised_model(build_graph, calibration, write, tmp_path):
    assert apply_method("cle", Recipe()) == Recipe(weight_transforms=(Step.of("cle", relu6_to_relu=False),))
    recipe = apply_method("cle:relu6_to_relu=1", Recipe())
    assert recipe.weight_transforms == (Step.of("cle", relu6_to_relu=True),)
    path = build_graph("depthwise_clip")
    samples = calibration(path)
    written = write(path, samples, weight_transforms=recipe.weight_transforms)
    equalize(path, samples, tmp_path / "out.onnx", relu6_to_relu=True)
    assert written == write(tmp_path / "out.onnx", samples)
    assert written != write(path, samples)
