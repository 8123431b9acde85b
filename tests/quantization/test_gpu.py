"""The passes on the CUDA provider, where it really loads."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxptq.quantization.collect import collect
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
        # TF32, which the CUDA provider may use, has 10 bits of mantissa.
        width = theirs.maximum - theirs.minimum
        np.testing.assert_allclose([ours.minimum, ours.maximum], [theirs.minimum, theirs.maximum], atol=5e-3 * width)


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
