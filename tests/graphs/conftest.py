"""Graphs that take encoded images, made as users make them: by `PrePostProcessor` of onnxruntime-extensions."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper


def _classifier(opset, sides):
    rng = np.random.default_rng(0)
    shapes = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 5), "b2": (5,)}
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="head"),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, *sides])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 5])],
        [numpy_helper.from_array(rng.standard_normal(s).astype(np.float32) * 0.4, n) for n, s in shapes.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"author": "me"})
    return model


@pytest.fixture
def save_encoded(tmp_path):
    """Writes JPEG or PNG bytes -> decode, resize, crop, normalise -> classifier."""
    tools = pytest.importorskip("onnxruntime_extensions.tools.pre_post_processing")

    def save(name="encoded.onnx", *, opset=16, rgb=False, crop=True):
        steps = tools.PrePostProcessor(
            [tools.create_named_value("image", TensorProto.UINT8, ["bytes"])], onnx_opset=max(opset, 16)
        )
        steps.add_pre_processing(
            [
                tools.ConvertImageToBGR(),
                *([tools.ReverseAxis(axis=2, dim_value=3)] if rgb else []),
                *([tools.Resize(20), tools.CenterCrop(16, 16)] if crop else []),
                tools.ChannelsLastToChannelsFirst(),
                tools.ImageBytesToFloat(),
                tools.Normalize([(0.5, 0.25)] * 3),
                tools.Unsqueeze([0]),
            ]
        )
        onnx.save(steps.run(_classifier(opset, (16, 16) if crop else ("H", "W"))), tmp_path / name)
        return tmp_path / name

    return save


@pytest.fixture(params=[16, 12])
def encoded_model(request, save_encoded):
    return save_encoded(opset=request.param)


@pytest.fixture(scope="session")
def images():
    """`(count, kind)` -> encoded images of noise, of several sizes."""
    from PIL import Image

    def make(count, kind="PNG"):
        for seed in range(count):
            pixels = np.random.default_rng(seed).integers(0, 256, (30 + seed, 40, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, kind)
            yield buffer.getvalue()

    return make
