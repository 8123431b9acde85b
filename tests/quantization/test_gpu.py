"""The passes on the CUDA provider, where it really loads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxptq.calibrators.statistics import value_histogram
from onnxptq.quantization.collect import collect
from onnxptq.quantization.collect_on_device import LEAST_OPSET, DevicePass
from onnxptq.quantization.moments import collect_moments
from onnxptq.quantization.plan import plan_calibration
from onnxptq.quantization.settings import QuantizerSettings

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def cuda():
    from onnxptq.runtimes.providers import probe

    status = probe("cuda")
    if not status.loads:
        pytest.skip(f"the CUDA provider does not load here: {status.reason}")


@pytest.mark.parametrize("name", ["conv_relu", "depthwise_clip", "residual", "gemm_beta", "attention"])
@pytest.mark.parametrize("optimized", [False, True])
def test_statistics_are_those_of_the_cpu_within_rounding(build_graph, draw, name, optimized):
    path = build_graph(name)
    tensors = plan_calibration(path, QuantizerSettings()).observed
    on_cpu, on_gpu = (
        collect(path, draw(path), tensors, provider=provider, optimized=optimized).environments[""]
        for provider in ("cpu", "cuda")
    )
    for tensor in tensors:
        ours, theirs = on_gpu[tensor], on_cpu[tensor]
        assert ours.count == theirs.count
        # Without TF32 only the order of sums differs.
        width = theirs.maximum - theirs.minimum
        np.testing.assert_allclose([ours.minimum, ours.maximum], [theirs.minimum, theirs.maximum], atol=1e-5 * width)


def test_statistics_counted_on_the_gpu_are_those_of_the_values_that_are_copied(build_graph, draw):
    path = build_graph("residual")
    model = onnx.load(str(path))
    if model.opset_import[0].version < LEAST_OPSET:
        model.opset_import[0].version = 17
        onnx.save(model, str(path))
    tensors = plan_calibration(path, QuantizerSettings()).observed
    opened = DevicePass(path, tensors)
    there, again = (opened.collect(draw(path)).environments[""] for _ in range(2))
    copied = collect(path, draw(path), tensors, provider="cuda").environments[""]
    assert there == again
    for tensor in tensors:
        ours, theirs = there[tensor], copied[tensor]
        assert (ours.minimum, ours.maximum, ours.count) == (theirs.minimum, theirs.maximum, theirs.count)
        np.testing.assert_array_equal(value_histogram(ours).counts, value_histogram(theirs).counts)


def test_moments_are_those_of_the_cpu_within_rounding(build_graph, draw):
    path = build_graph("residual")
    on_cpu, on_gpu = (collect_moments(path, draw(path), {"conv2": 1}, provider=p) for p in ("cpu", "cuda"))
    for what in ("mean", "variance"):
        ours, theirs = (getattr(m.tensors["conv2"], what) for m in (on_gpu, on_cpu))
        np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-2)


def test_quantize_calibrates_on_it(build_graph, calibration, write):
    path = build_graph("depthwise_clip")
    on_cpu, on_gpu = (write(path, calibration(path), engine=engine) for engine in ("one-pass", "one-pass-cuda"))
    for ours, theirs in zip(scales(on_gpu), scales(on_cpu), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-2)


def scales(data):
    tensors = onnx.load_from_string(data).graph.initializer
    return [onnx.numpy_helper.to_array(tensor) for tensor in tensors if tensor.name.endswith("_scale")]
