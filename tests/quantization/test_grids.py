"""Weights that lie on a grid become the integers that were chosen, whatever the quantizer would have made of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnxptq.errors import UsageError
from onnxptq.quantization.grids import Grid, moved_grids, pinned, read_grids, stock_grids
from onnxptq.quantization.plugins import WEIGHT_TRANSFORMS, Changed, WeightTransform
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.targets import TARGETS, Choice, Target
from onnxptq.quantization.writer import FastWriter, quantize_with_ranges
from onnxptq.recipe import Step

PER_TENSOR = QuantizerSettings(per_channel=False)
ASYMMETRIC = QuantizerSettings(weight_type="QUInt8", per_channel=True, extra_options={"WeightSymmetric": False})
SETTINGS = {
    **{target.name: target.settings for target in TARGETS},
    "per tensor": PER_TENSOR,
    "asymmetric": ASYMMETRIC,
}


def rounded_down(model, settings, output):
    """Every weight rounded down, on the grid of the quantizer with each scale a tenth larger: the largest moves."""
    proto = onnx.load(model)
    grids = {}
    for name, (stock, _) in stock_grids(model, settings).items():
        grids[name] = Grid(stock.scale * np.float32(1.1), stock.zero_point, stock.type, stock.axis)
        tensor = next(t for t in proto.graph.initializer if t.name == name)
        low, high = grids[name].limits(settings)
        steps = np.clip(np.floor(grids[name].steps(numpy_helper.to_array(tensor))), low, high)
        tensor.CopyFrom(numpy_helper.from_array(grids[name].worth(steps), name))
    onnx.save(proto, output)
    return grids


def floats(path, names):
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer if t.name in names}


def written_weights(path):
    return {name: grid.worth(integers) for name, (grid, integers) in read_grids(onnx.load(path).graph).items()}


@pytest.mark.parametrize(
    ("graph", "name"),
    [*(("depthwise_clip", name) for name in sorted(SETTINGS)), ("attention", "tensorrt"), ("gemm_beta", "asymmetric")],
)
def test_what_was_chosen_is_what_the_file_holds_bit_for_bit(name, graph, build_graph, tmp_path):
    settings, path = SETTINGS[name], build_graph(graph)
    grids = rounded_down(path, settings, tmp_path / "rounded.onnx")
    chosen = floats(tmp_path / "rounded.onnx", grids)
    assert grids
    told = pinned(settings, grids)
    writer = FastWriter(tmp_path / "rounded.onnx", told)
    ranges = dict.fromkeys(writer.plan.cached, (np.float32(-3), np.float32(3)))
    quantize_with_ranges(tmp_path / "rounded.onnx", ranges, tmp_path / "stock.onnx", told)
    for _ in range(2):  # The first file is compared with the stock one, the second is the fast writer's own.
        assert writer.write(ranges, tmp_path / "fast.onnx") is None
        assert (tmp_path / "fast.onnx").read_bytes() == (tmp_path / "stock.onnx").read_bytes()
    found = written_weights(tmp_path / "stock.onnx")
    assert found.keys() == chosen.keys()
    for weight, values in chosen.items():
        np.testing.assert_array_equal(found[weight], values)
    assert moved_grids(tmp_path / "stock.onnx", grids) == ()
    # Without the grid the largest weight decides again, and it has moved.
    quantize_with_ranges(tmp_path / "rounded.onnx", ranges, tmp_path / "unpinned.onnx", settings)
    unpinned = written_weights(tmp_path / "unpinned.onnx")
    assert any(not np.array_equal(unpinned[weight], values) for weight, values in chosen.items())
    assert moved_grids(tmp_path / "unpinned.onnx", grids)


def test_four_bits_for_single_weights_are_pinned_too(build_graph, tmp_path):
    path = build_graph("conv_relu")
    four = QuantizerSettings(weight_type="QInt4", per_channel=True)
    grids = rounded_down(path, four, tmp_path / "rounded.onnx")
    told = pinned(QuantizerSettings(per_channel=True), grids)
    writer = FastWriter(tmp_path / "rounded.onnx", told)
    writer.write(dict.fromkeys(writer.plan.observed, (np.float32(-3), np.float32(3))), tmp_path / "out.onnx")
    found = read_grids(onnx.load(tmp_path / "out.onnx").graph)
    assert {grid.type for grid, _ in found.values()} == {"QInt4"}
    for weight, values in floats(tmp_path / "rounded.onnx", grids).items():
        np.testing.assert_array_equal(written_weights(tmp_path / "out.onnx")[weight], values)


@pytest.fixture
def rounding():
    """A weight transform that rounds down, one that doubles a weight, and a target with one scale a tensor."""

    def down(model, samples, output, settings):
        return Changed(rounded_down(model, settings, output), ("rounded down.",))

    def double(model, samples, output):
        proto = onnx.load(str(model))
        tensor = next(t for t in proto.graph.initializer if len(t.dims) == 4)
        tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
        onnx.save(proto, str(output))

    WEIGHT_TRANSFORMS.register(WeightTransform("test-down", "x", "x", down, takes_settings=True))
    WEIGHT_TRANSFORMS.register(WeightTransform("test-double", "x", "x", double))
    TARGETS.register(Target("test-per-tensor", "x", PER_TENSOR, (Choice("x", "x", "x"),)))
    yield
    for registry, names in ((WEIGHT_TRANSFORMS, ["test-down", "test-double"]), (TARGETS, ["test-per-tensor"])):
        for name in names:
            registry._entries.pop(name, None)


@pytest.mark.parametrize("target", ["cpu", "cuda", "tensorrt", "openvino", "test-per-tensor"])
@pytest.mark.parametrize("engine", ["one-pass", "stock"])
def test_a_recipe_hands_the_grids_to_every_target_and_engine(target, engine, rounding, build_graph, calibration, write):
    path = build_graph("depthwise_clip")
    samples = calibration(path)
    write(path, samples, target=target, engine=engine, weight_transforms=(Step("test-down"),))
    int8 = path.with_name("int8.onnx")
    rounded_down(path, TARGETS.get(target).settings, path.with_name("rounded.onnx"))
    chosen = floats(path.with_name("rounded.onnx"), written_weights(int8))
    assert len(chosen) == 3
    for weight, values in chosen.items():
        np.testing.assert_array_equal(written_weights(int8)[weight], values)


def test_notes_reach_the_user_and_rounded_weights_are_not_changed_again(rounding, build_graph, calibration, tmp_path):
    from onnxptq.graphs import load_model
    from onnxptq.quantization.static import quantize_folded
    from onnxptq.recipe import Recipe

    path = build_graph("depthwise_clip")
    samples = calibration(path)

    def make(*steps):
        recipe = Recipe(weight_transforms=tuple(map(Step, steps)))
        return quantize_folded(load_model(path), path, samples, recipe, tmp_path / "int8.onnx")

    assert "rounded down." in make("test-down").notes
    assert "rounded down." in make("test-double", "test-down", "bias-correction").notes
    with pytest.raises(UsageError, match=r"'test-double' changes 'w.', which an earlier one rounded"):
        make("test-down", "test-double")


def test_a_scale_that_a_bias_forced_up_is_reported(rounding, build_graph, calibration, tmp_path):
    from onnxptq.graphs import load_model
    from onnxptq.quantization.static import quantize_folded
    from onnxptq.recipe import Recipe

    path = build_graph("depthwise_clip")
    proto = onnx.load(path)
    weight = next(t for t in proto.graph.initializer if len(t.dims) == 4)
    tiny = numpy_helper.to_array(weight).copy()
    tiny[0] *= np.float32(1e-12)
    weight.CopyFrom(numpy_helper.from_array(tiny, weight.name))
    onnx.save(proto, path)
    recipe = Recipe(weight_transforms=(Step("test-down"),))
    notes = quantize_folded(load_model(path), path, calibration(path), recipe, tmp_path / "int8.onnx").notes
    assert any("enlarged the scale of 1 rounded weights (w2), so that their biases fit int32" in note for note in notes)
