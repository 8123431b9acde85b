"""A model that takes encoded images: cut, quantized and put together again it computes what its parts compute."""

from __future__ import annotations

import io

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.graphs import fold, load_model
from onnxptq.graphs.preprocessing_cut import cut, has_preprocessing, rejoin
from onnxptq.runtimes import open_session

value = helper.make_tensor_value_info


def run(path, feeds):
    return open_session(path).run(feeds)[0]


def test_the_parts_one_after_the_other_are_the_whole(encoded_model, images, tmp_path):
    parts = cut(encoded_model, tmp_path)
    assert has_preprocessing(encoded_model) and has_preprocessing(parts.head) and not has_preprocessing(parts.body)
    assert [s.shape for s in load_model(parts.body).signature.inputs] == [(1, 3, 16, 16)]
    (tensor,) = parts.tensors
    for encoded in images(3, "JPEG"):
        feeds = {"image": np.frombuffer(encoded, np.uint8)}
        pixels = run(parts.head, feeds)
        np.testing.assert_array_equal(run(parts.body, {tensor: pixels}), run(encoded_model, feeds))


def test_the_quantized_body_behind_its_preprocessing_computes_what_it_computes_alone(encoded_model, images, tmp_path):
    from onnxptq.quantization.collect import collect
    from onnxptq.quantization.settings import QuantizerSettings
    from onnxptq.quantization.writer import FastWriter

    parts = cut(encoded_model, tmp_path)
    (tensor,) = parts.tensors
    pixels = [run(parts.head, {"image": np.frombuffer(encoded, np.uint8)}) for encoded in images(6)]
    folded = fold(load_model(parts.body), Cache(tmp_path / "room"))
    writer = FastWriter(folded, QuantizerSettings(per_channel=True))
    statistics = collect(folded, [(str(i), {tensor: p}) for i, p in enumerate(pixels)], writer.plan.observed)
    ranges = {n: (s.minimum, s.maximum) for n, s in statistics.environments[""].items()}
    writer.write(ranges, tmp_path / "body.int8.onnx")
    rejoin(parts.head, tmp_path / "body.int8.onnx", tmp_path / "int8.onnx")
    for encoded, fed in zip(images(6), pixels, strict=True):
        feeds = {"image": np.frombuffer(encoded, np.uint8)}
        whole = run(tmp_path / "int8.onnx", feeds)
        np.testing.assert_array_equal(whole, run(tmp_path / "body.int8.onnx", {tensor: fed}))
        np.testing.assert_allclose(whole, run(encoded_model, feeds), atol=0.2)
    # An INT8 model is cut at the same place, so that it can be judged by its body.
    (tmp_path / "again").mkdir()
    again = cut(tmp_path / "int8.onnx", tmp_path / "again")
    assert again.tensors == parts.tensors
    np.testing.assert_array_equal(
        run(again.body, {tensor: pixels[0]}), run(tmp_path / "body.int8.onnx", {tensor: pixels[0]})
    )


def test_nothing_is_lost_on_the_way(encoded_model, tmp_path):
    parts = cut(encoded_model, tmp_path)
    rejoin(parts.head, parts.body, tmp_path / "whole.onnx")
    before, after = load_model(encoded_model), load_model(tmp_path / "whole.onnx")
    assert (before.signature, before.metadata) == (after.signature, after.metadata)
    operators = [sorted(n.op_type for n in onnx.load(m.path).graph.node) for m in (before, after)]
    assert operators[0] == operators[1]


def test_an_embedding_starts_the_body(tmp_path):
    """Ids of any preprocessing are integers; the table that they look up is the first weight."""
    table = numpy_helper.from_array(np.eye(7, 4, dtype=np.float32), "table")
    nodes = [
        helper.make_node("Abs", ["ids"], ["positive"]),
        helper.make_node("Gather", ["table", "positive"], ["found"]),
        helper.make_node("ReduceSum", ["found"], ["y"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes, "g", [value("ids", TensorProto.INT64, ["N"])], [value("y", TensorProto.FLOAT, [])], [table]
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    parts = cut(path, tmp_path)
    assert parts.tensors == ("positive",)
    assert [node.op_type for node in onnx.load(parts.head).graph.node] == ["Abs"]


def test_what_cannot_be_cut_or_joined_is_said(encoded_model, save_classifier, tmp_path):
    parts = cut(encoded_model, tmp_path)
    with pytest.raises(ModelError, match="no layer with weights"):
        cut(parts.head, tmp_path)
    with pytest.raises(ModelError, match=r"does not take what .* computes"):
        rejoin(parts.head, save_classifier("other.onnx"), tmp_path / "whole.onnx")
    model = onnx.load(encoded_model)
    model.graph.output.append(onnx.ValueInfoProto(name=parts.tensors[0]))
    onnx.save(model, tmp_path / "both.onnx")
    with pytest.raises(ModelError, match="comes from its pre-processing"):
        cut(tmp_path / "both.onnx", tmp_path)


@pytest.fixture
def save_drawing(tmp_path):
    """A net of images that hands them out as PNG: bytes or floats in, `PrePostProcessor` of the extension around it."""
    tools = pytest.importorskip("onnxruntime_extensions.tools.pre_post_processing")

    def save(*, encoded, name="drawing.onnx"):
        rng = np.random.default_rng(0)
        weights = {"w": rng.normal(size=(3, 3, 3, 3)) * 0.1, "b": np.full(3, 0.4)}
        graph = helper.make_graph(
            [
                helper.make_node("Conv", ["x", "w", "b"], ["c"], pads=[1] * 4),
                helper.make_node("Relu", ["c"], ["y"]),
            ],
            "g",
            [value("x", TensorProto.FLOAT, [1, 3, 16, 16])],
            [value("y", TensorProto.FLOAT, [1, 3, 16, 16])],
            [numpy_helper.from_array(array.astype(np.float32), key) for key, array in weights.items()],
        )
        net = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        given = ("image", TensorProto.UINT8, ["bytes"]) if encoded else ("x", TensorProto.FLOAT, [1, 3, 16, 16])
        steps = tools.PrePostProcessor([tools.create_named_value(*given)], onnx_opset=17)
        if encoded:
            before = [tools.ConvertImageToBGR(), tools.Resize((16, 16), policy="not_smaller"), tools.CenterCrop(16, 16)]
            steps.add_pre_processing(
                [*before, tools.ChannelsLastToChannelsFirst(), tools.ImageBytesToFloat(), tools.Unsqueeze([0])]
            )
        after = [tools.Squeeze([0]), tools.FloatToImageBytes(), tools.Transpose([1, 2, 0])]
        steps.add_post_processing([*after, tools.ConvertBGRToImage(image_format="png")])
        onnx.save(steps.run(net), tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize("encoded", [True, False])
def test_post_processing_is_cut_off_and_put_back(encoded, save_drawing, images, tmp_path):
    path = save_drawing(encoded=encoded)
    parts = cut(path, tmp_path)
    assert not has_preprocessing(parts.body) and parts.tail is not None
    whole = load_model(path)
    rejoin(parts.head, parts.body, tmp_path / "whole.onnx", parts.tail, [spec.name for spec in whole.signature.outputs])
    assert load_model(tmp_path / "whole.onnx").signature == whole.signature
    sample = np.random.default_rng(1).random((1, 3, 16, 16)).astype(np.float32)
    feeds = {"image": np.frombuffer(next(images(1)), np.uint8)} if encoded else {"x": sample}
    np.testing.assert_array_equal(run(tmp_path / "whole.onnx", feeds), run(path, feeds))


@pytest.mark.parametrize("encoded", [True, False])
def test_quantize_and_check_take_a_model_with_post_processing(encoded, save_drawing, images, tmp_path, run_here):
    from PIL import Image

    save_drawing(encoded=encoded)
    if encoded:
        (tmp_path / "data").mkdir()
        for number, data in enumerate(images(24)):
            (tmp_path / "data" / f"{number}.png").write_bytes(data)
    else:
        np.savez(tmp_path / "data.npz", x=np.random.default_rng(2).random((24, 3, 16, 16)).astype(np.float32))
    data = "data" if encoded else "data.npz"
    done = run_here(
        ["quantize", "drawing.onnx", "--data", data, "-o", "q.onnx", "--task", "tensor"][: 6 if encoded else 8],
        tmp_path,
        {},
    )
    assert done.returncode == 0, done.stderr
    assert [spec.dtype for spec in load_model(tmp_path / "q.onnx").signature.outputs] == ["uint8"]
    sample = np.random.default_rng(1).random((1, 3, 16, 16)).astype(np.float32)
    feeds = {"image": np.frombuffer(next(images(1)), np.uint8)} if encoded else {"x": sample}
    pictures = [
        np.asarray(Image.open(io.BytesIO(run(tmp_path / name, feeds).tobytes()))) for name in ("drawing.onnx", "q.onnx")
    ]
    assert pictures[0].shape == (16, 16, 3) and np.abs(pictures[0].astype(int) - pictures[1]).mean() < 6
    checked = run_here(["check", "q.onnx", "--data", data], tmp_path, {})
    assert checked.returncode in (0, 3), checked.stdout + checked.stderr
