"""Plug-ins of a recipe: weight transforms change the model before it is calibrated, bounds the ranges after."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxptq.errors import UsageError
from onnxptq.quantization.plugins import BOUNDS, WEIGHT_TRANSFORMS, Bound, WeightTransform
from onnxptq.recipe import Step


def scales(data):
    model = onnx.load_from_string(data)
    return {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer if t.name.endswith("_scale")}


@pytest.fixture
def plugins():
    """Test plug-ins: transforms that scale the first weight or add to it, bounds that cut or widen all ranges."""

    def transform(change):
        def apply(model, samples, output, by):
            proto = onnx.load(str(model))
            weight = next(t for t in proto.graph.initializer if t.name == "w0")
            array = change(onnx.numpy_helper.to_array(weight), np.float32(by))
            weight.CopyFrom(onnx.numpy_helper.from_array(array, "w0"))
            onnx.save(proto, str(output))

        return apply

    def bound(change):
        return lambda ranges, model, samples, by: {k: change(low, high, by) for k, (low, high) in ranges.items()}

    added = [
        WEIGHT_TRANSFORMS.register(WeightTransform("test-times", "x", "x", transform(np.multiply), {"by": 3.0})),
        WEIGHT_TRANSFORMS.register(WeightTransform("test-plus", "x", "x", transform(np.add), {"by": 1.0})),
        BOUNDS.register(
            Bound("test-cut", "x", "x", bound(lambda a, b, by: np.clip(np.float32([a, b]), -by, by)), {"by": 1.0})
        ),
        BOUNDS.register(
            Bound("test-widen", "x", "x", bound(lambda a, b, by: np.float32([a * by, b * by])), {"by": 2.0})
        ),
    ]
    yield added
    for registry in (WEIGHT_TRANSFORMS, BOUNDS):
        for plugin in added:
            registry._entries.pop(plugin.name, None)


@pytest.mark.parametrize("engine", ["one-pass", "stock"])
def test_weight_transforms_are_applied_in_order_before_calibration(plugins, engine, build_graph, calibration, write):
    path = build_graph("gemm_beta")
    samples = calibration(path)
    weight = onnx.numpy_helper.to_array(next(t for t in onnx.load(path).graph.initializer if t.name == "w0"))

    def both(*steps):
        found = scales(write(path, samples, weight_transforms=steps, engine=engine))
        return found["w0_scale"].ravel(), float(found["gemm0_scale"])

    times_plus = both(Step("test-times"), Step.of("test-plus", by=2.0))
    plus_times = both(Step.of("test-plus", by=2.0), Step("test-times"))
    np.testing.assert_allclose(times_plus[0], np.abs(weight * 3 + 2).max(axis=0) / 127.5, rtol=0.01)
    np.testing.assert_allclose(plus_times[0], np.abs((weight + 2) * 3).max(axis=0) / 127.5, rtol=0.01)
    # Activations are those of the changed model.
    assert both(Step.of("test-times", by=10.0))[1] > 2 * both()[1]


@pytest.mark.parametrize("engine", ["one-pass", "stock"])
def test_bounds_are_applied_in_order_after_the_range_method(plugins, engine, build_graph, calibration, write):
    path = build_graph("gemm_beta")
    samples = calibration(path)

    def width(*steps):
        return 255 * float(scales(write(path, samples, bounds=steps, engine=engine))["x_scale"])

    assert width(Step("test-cut")) == pytest.approx(2, rel=1e-3)
    assert width(Step("test-cut"), Step("test-widen")) == pytest.approx(4, rel=1e-3)
    assert width(Step("test-widen"), Step("test-cut")) == pytest.approx(2, rel=1e-3)
    assert width(Step.of("test-cut", by=0.5)) == pytest.approx(1, rel=1e-3)


def test_a_bound_sees_observed_ranges_only(build_graph, calibration, write):
    seen = {}

    def look(ranges, model, samples):
        seen.update(ranges)
        return ranges

    BOUNDS.register(Bound("test-look", "x", "x", look))
    try:
        path = build_graph("depthwise_clip")
        write(path, calibration(path), bounds=(Step("test-look"),))
    finally:
        del BOUNDS._entries["test-look"]
    assert "x" in seen
    assert (np.float32(0), np.float32(1)) not in seen.values()


def test_what_there_is_not_is_said(plugins, build_graph, calibration, write):
    path = build_graph("gemm_beta")
    samples = calibration(path)
    for wrong, message in (
        ({"weight_transforms": (Step("test-time"),)}, "unknown weight transform 'test-time'.*'test-times'"),
        ({"weight_transforms": (Step.of("test-times", bye=1),)}, "'test-times' has no parameter 'bye'.*'by'"),
        ({"bounds": (Step("test-cutt"),)}, "unknown bound 'test-cutt'.*'test-cut'"),
        ({"bounds": (Step.of("test-cut", at=1),)}, "the bound 'test-cut' has no parameter 'at'"),
    ):
        with pytest.raises(UsageError, match=message):
            write(path, samples, **wrong)
