"""AdaRound: near the best of all roundings, clearly better than the nearest at 4 bits, written as it was learned."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxptq.errors import UsageError
from onnxptq.methods import apply_method
from onnxptq.quantization.adaround import round_adaptively
from onnxptq.quantization.grids import read_grids
from onnxptq.quantization.learned_rounding import RoundingProblem, learn_rounding
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.recipe import Recipe, Step

PER_CHANNEL = QuantizerSettings(per_channel=True)


def floats(path):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}


def problem(seed, low):
    """One neuron with 9 weights of 4 bits, whose inputs are never negative, as behind a Relu."""
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal((1, 1, 9)).astype(np.float32)
    inputs = (np.maximum(rng.standard_normal((1, 500, 9)), 0) + rng.uniform(0, 1, 9)).astype(np.float32)
    scale = np.abs(weight).max() / np.full((1, 1, 1), 7, np.float32)
    return RoundingProblem(
        steps=weight / scale,
        zero_point=np.zeros_like(scale),
        scale=scale,
        limits=(-8, 7),
        inputs=inputs,
        wanted=inputs[0] @ weight[0].T,
        bias=np.zeros(1, np.float32),
        low=low,
        high=np.inf,
    )


def test_nine_weights_are_rounded_nearly_as_well_as_an_exhaustive_search_does():
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'onnxptq[reconstruct]'")
    learned, nearest = [], []
    for seed in range(8):
        layer = problem(seed, 0.0 if seed % 2 else -np.inf)
        ways = itertools.product((0, 1), repeat=9)
        best = min(layer.error(np.floor(layer.steps) + np.float32(way).reshape(1, 1, 9)) for way in ways)
        found = learn_rounding(layer, 200, 0)
        assert set(np.unique(found - np.floor(layer.steps))) <= {0, 1}
        learned.append(layer.error(found) / best)
        nearest.append(layer.error(layer.nearest) / best)
    assert min(learned) >= 1 - 1e-6
    assert np.exp(np.log(learned).mean()) < 1.25
    assert np.exp(np.log(nearest).mean()) > 1.7


def test_a_layer_that_rounding_does_not_hurt_keeps_the_nearest():
    layer = problem(0, -np.inf)
    wanted = layer.inputs[0] @ (layer.nearest * layer.scale)[0].T
    exact = replace(layer, steps=layer.nearest, wanted=wanted)
    np.testing.assert_array_equal(learn_rounding(exact, 100, 0), layer.nearest)  # Without PyTorch, even.


def sqnr(path, rounded, samples):
    import onnxruntime

    outputs = []
    for model in (path, rounded):
        session = onnxruntime.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        outputs.append(np.concatenate([session.run(None, feeds)[0] for _, feeds in samples]).astype(np.float64))
    return 10 * np.log10((outputs[0] ** 2).sum() / ((outputs[0] - outputs[1]) ** 2).sum())


@pytest.fixture(scope="module")
def digits():
    """The built-in model, folded, with 16 samples to round with and 64 others to judge with."""
    from onnxptq.api import draw_calibration
    from onnxptq.cache import user_cache
    from onnxptq.graphs import fold, load_model
    from onnxptq.models import builtin

    samples = list(draw_calibration(size=80))
    return fold(load_model(builtin().model), user_cache()), samples[:16], samples[16:]


def test_four_bits_on_the_digits_beat_the_nearest_by_five_db(digits, tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'onnxptq[reconstruct]'")
    model, samples, others = digits
    found = {}
    for iterations in (0, 150):
        output = tmp_path / f"{iterations}.onnx"
        round_adaptively(model, samples, output, settings=PER_CHANNEL, bits=4, iterations=iterations)
        found[iterations] = sqnr(model, output, others)
    assert found[150] > found[0] + 5, found


@pytest.mark.parametrize(("target", "bits"), [("cpu", 8), ("tensorrt", 8), ("cpu", 4)])
def test_the_integers_of_the_file_are_those_that_were_learned_and_one_seed_gives_one_file(
    target, bits, build_graph, calibration, write, tmp_path
):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'onnxptq[reconstruct]'")
    from onnxptq.quantization.targets import target_settings

    path = build_graph("depthwise_clip")
    samples = calibration(path)
    given = {"bits": bits, "iterations": 20}
    step = Step.of("adaround", **given)
    written = write(path, samples, target=target, weight_transforms=(step,))
    changed = round_adaptively(path, samples, tmp_path / "out.onnx", settings=target_settings(target, path), **given)
    assert len(changed.grids) == 3
    found = read_grids(onnx.load_from_string(written).graph)
    for name, values in floats(tmp_path / "out.onnx").items():
        if name in changed.grids:
            grid, integers = found[name]
            assert grid.type == f"QInt{bits}"
            np.testing.assert_array_equal(grid.worth(integers), values)
    assert written == write(path, samples, target=target, weight_transforms=(step,))


def test_progress_counts_layers_before_samples(build_graph, calibration, tmp_path):
    pytest.importorskip("torch", reason="needs PyTorch: pip install 'onnxptq[reconstruct]'")
    from onnxptq.graphs import load_model
    from onnxptq.quantization.static import quantize_folded

    path, said = build_graph("depthwise_clip"), []
    quantize_folded(
        load_model(path),
        path,
        calibration(path),
        Recipe(weight_transforms=(Step.of("adaround", iterations=5),)),
        tmp_path / "int8.onnx",
        progress=said.append,
        transforming=lambda *stage: said.append(stage),
    )
    assert said == [*(("rounding", done, 3) for done in range(4)), *[1] * 6]


def test_without_pytorch_it_says_what_to_install_and_still_rounds_to_nearest(build_graph, draw, tmp_path, monkeypatch):
    path = build_graph("attention")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"pip install 'onnxptq\[reconstruct\]'.*iterations=0 rounds to nearest"):
        round_adaptively(path, draw(path), tmp_path / "out.onnx", settings=PER_CHANNEL)
    changed = round_adaptively(path, draw(path), tmp_path / "out.onnx", settings=PER_CHANNEL, iterations=0)
    before, after = floats(path), floats(tmp_path / "out.onnx")
    for name, grid in changed.grids.items():
        distance = np.abs(after[name] - before[name]) / grid.scale
        inside = np.abs(before[name]) <= 127 * grid.scale
        assert distance[inside].max() <= 0.501


def test_listing_methods_does_not_import_pytorch():
    code = "import sys; from onnxptq.methods import all_methods; all_methods(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_shared_weight_is_left_to_the_quantizer(build_graph, builder, draw, tmp_path):
    g = builder(0)
    shared = g.weight(3, 3, 1, 1)
    y = g.add("Conv", g.add("Relu", g.add("Conv", "x", shared)), shared)
    y = g.add("Conv", y, g.weight(2, 3, 1, 1))
    path = g.save(tmp_path / "net.onnx", {"x": ["N", 3, 4, 4]}, {y: ["N", 2, 4, 4]})
    changed = round_adaptively(path, draw(path), tmp_path / "out.onnx", settings=PER_CHANNEL, iterations=0)
    assert set(changed.grids) == {"w1"}
    assert "left 2 layers to the quantizer" in changed.notes[0]
    np.testing.assert_array_equal(floats(tmp_path / "out.onnx")[shared], floats(path)[shared])


def test_wrong_parameters_are_refused(build_graph, draw, tmp_path):
    path = build_graph("gemm_beta")
    for wrong, message in (
        ({"bits": 3}, "8 or 4 bits, got bits=3"),
        ({"iterations": -1}, "must not be negative, got -1"),
    ):
        with pytest.raises(UsageError, match=message):
            round_adaptively(path, draw(path), tmp_path / "out.onnx", settings=PER_CHANNEL, **wrong)


def test_the_method_keeps_what_was_in_the_recipe():
    recipe = apply_method("adaround:bits=4", Recipe(weight_transforms=(Step("cle"),)))
    assert recipe.weight_transforms == (Step("cle"), Step.of("adaround", bits=4, iterations=1000))
