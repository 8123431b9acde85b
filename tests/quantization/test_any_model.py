"""Whatever is in the graph, `onnxptq.quantize` makes a model of it that runs and is close to the float one; what cannot
be INT8 is named; and where ONNX Runtime can do it too, MinMax gives its bytes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.cache import user_cache
from onnxptq.graphs import fold, load_model
from onnxptq.inputs import DataOptions

COUNT = 100
"""Half of them calibrate; of fewer, the other half exceeds the ranges by more than INT8 is off."""
value = helper.make_tensor_value_info
node = helper.make_node
FLOAT = TensorProto.FLOAT
TENSORS = DataOptions(task="tensor-classification")


class Net:
    """A model under construction: `w` makes a seeded weight, `save` writes the file."""

    def __init__(self, seed=0):
        self.rng = np.random.default_rng(seed)
        self.weights = []

    def w(self, name, *shape, scale=0.5):
        self.weights.append(numpy_helper.from_array((self.rng.standard_normal(shape) * scale).astype(np.float32), name))
        return name

    def constant(self, name, array):
        self.weights.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def save(self, path, nodes, inputs, outputs, *, opset=17, ir=8, listed=False):
        ends = [[value(n, FLOAT, s) for n, s in side.items()] for side in (inputs, outputs)]
        if listed:
            ends[0] += [value(t.name, t.data_type, list(t.dims)) for t in self.weights]
        graph = helper.make_graph(nodes, "net", *ends, self.weights)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)
        onnx.checker.check_model(model, full_check=True)
        onnx.save(model, path)
        return path


def branch(name, weight):
    inner = [node("MatMul", ["h", weight], [f"{name}_out"], name=f"{name}_matmul")]
    return helper.make_graph(inner, name, [], [value(f"{name}_out", FLOAT, ["N", 8])])


def choice(path):
    """A branch for each sign of the batch's sum."""
    net = Net()
    then, other = branch("then", net.w("w_then", 8, 8)), branch("else", net.w("w_else", 8, 8))
    nodes = [
        node("Gemm", ["x", net.w("w1", 6, 8), net.w("b1", 8)], ["h"], name="first"),
        node("ReduceSum", ["h"], ["sum"], keepdims=0),
        node("Greater", ["sum", net.constant("zero", np.float32(0))], ["positive"]),
        node("If", ["positive"], ["chosen"], name="choice", then_branch=then, else_branch=other),
        node("Relu", ["chosen"], ["r"]),
        node("Gemm", ["r", net.w("w2", 8, 4), net.w("b2", 4)], ["y"], name="last"),
    ]
    return net.save(path, nodes, {"x": [1, 6]}, {"y": [1, 4]})


def loop(path):
    """Three rounds of MatMul and Tanh."""
    net = Net()
    inner = [
        node("MatMul", ["state", net.w("w_loop", 8, 8)], ["m"]),
        node("Tanh", ["m"], ["next"]),
        node("Identity", ["go"], ["going"]),
    ]
    ends = [value("i", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("state", FLOAT, ["N", 8])]
    body = helper.make_graph(
        inner, "body", ends, [value("going", TensorProto.BOOL, []), value("next", FLOAT, ["N", 8])]
    )
    rounds, go = net.constant("rounds", np.int64(3)), net.constant("true", np.array(True))
    nodes = [
        node("Gemm", ["x", net.w("w1", 6, 8), net.w("b1", 8)], ["h"], name="first"),
        node("Loop", [rounds, go, "h"], ["l"], name="rounds_of", body=body),
        node("Gemm", ["l", net.w("w2", 8, 4), net.w("b2", 4)], ["y"], name="last"),
    ]
    return net.save(path, nodes, {"x": ["N", 6]}, {"y": ["N", 4]})


def recurrent(operator, gates):
    def build(path):
        net = Net()
        weights = [net.w("w", 1, gates * 5, 6), net.w("r", 1, gates * 5, 5), net.w("b", 1, 2 * gates * 5)]
        nodes = [
            node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            node(operator, ["t", *weights], ["all", "last"], name="rnn", hidden_size=5),
            node("Squeeze", ["last", net.constant("axis", np.int64([0]))], ["s"]),
            node("Gemm", ["s", net.w("w2", 5, 4), net.w("b2", 4)], ["y"], name="head"),
        ]
        return net.save(path, nodes, {"x": ["N", 7, 6]}, {"y": ["N", 4]})

    return build


def several_ends(path):
    """Two inputs, two outputs of which only one is scores."""
    net = Net()
    nodes = [
        node("Gemm", ["a", net.w("w1", 6, 8), net.w("b1", 8)], ["h1"]),
        node("Gemm", ["b", net.w("w2", 3, 8), net.w("b2", 8)], ["h2"]),
        node("Add", ["h1", "h2"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", net.w("w3", 8, 4), net.w("b3", 4)], ["y"]),
        node("Sigmoid", ["r"], ["z"]),
    ]
    return net.save(path, nodes, {"a": ["N", 6], "b": ["N", 3]}, {"y": ["N", 4], "z": ["N", 8]})


def convolution(opset, ir, listed=False):
    def build(path):
        net = Net()
        norm = [net.w("g", 6), net.w("nb", 6), net.w("m", 6), net.constant("v", np.full(6, 0.5, np.float32))]
        nodes = [
            node("Conv", ["x", net.w("w1", 6, 3, 3, 3), net.w("b1", 6)], ["c"], name="conv", pads=[1] * 4),
            node("BatchNormalization", ["c", *norm], ["n"], name="norm"),
            node("Relu", ["n"], ["r"]),
            node("GlobalAveragePool", ["r"], ["p"]),
            node("Flatten", ["p"], ["f"]),
            node("Gemm", ["f", net.w("w2", 4, 6, scale=2), net.w("b2", 4)], ["y"], name="head", transB=1),
        ]
        ends = {"x": ["N", 3, 8, 8]}, {"y": ["N", 4]}
        return net.save(path, nodes, *ends, opset=opset, ir=ir, listed=listed or ir < 4)

    return build


def sequences(path):
    """Any number of steps of six numbers each."""
    net = Net()
    nodes = [
        node("MatMul", ["x", net.w("w1", 6, 8)], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("ReduceMean", ["r"], ["p"], axes=[1], keepdims=0),
        node("Gemm", ["p", net.w("w2", 8, 4), net.w("b2", 4)], ["y"], name="head"),
    ]
    return net.save(path, nodes, {"x": ["N", "T", 6]}, {"y": ["N", 4]})


MODELS = {
    "If": choice,
    "Loop": loop,
    "LSTM": recurrent("LSTM", 4),
    "GRU": recurrent("GRU", 3),
    "several inputs and outputs": several_ends,
    "opset 7": convolution(7, 3),
    "opset 9": convolution(9, 4),
    "opset 11": convolution(11, 6),
    "opset 12": convolution(12, 7),
    "weights listed as inputs": convolution(17, 8, listed=True),
    "sequences": sequences,
}
NOTES = {
    "If": "If 'choice' stays in float with all that its subgraphs hold (2 MatMul)",
    "Loop": "Loop 'rounds_of' stays in float with all that its subgraphs hold (1 MatMul)",
    "LSTM": "LSTM 'rnn' stays in float",
    "GRU": "GRU 'rnn' stays in float",
    "opset 7": "is of opset 7; it was converted to opset 13",
    "opset 9": "is of opset 9; it was converted to opset 13",
    "opset 11": "is of opset 11; it was converted to opset 13",
    "opset 12": "is of opset 12; it was converted to opset 13",
    "weights listed as inputs": "lists 8 of its weights as inputs; they are constants of the INT8 model",
}


def draw(path, count=COUNT):
    """Feeds that fit, one sample each."""
    rng = np.random.default_rng(1)
    shapes = {s.name: [5 if d is None else d for d in s.shape[1:]] for s in load_model(path).signature.inputs}
    return [{n: rng.standard_normal([1, *s]).astype(np.float32) for n, s in shapes.items()} for _ in range(count)]


def save_data(feeds, path, labels=True):
    arrays = {name: np.concatenate([one[name] for one in feeds]) for name in feeds[0]}
    np.savez(path, **arrays, **({"label": np.arange(len(feeds)) % 4} if labels else {}))
    return str(path)


def run(path, feeds):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    # On x86 without VNNI the CPU's kernels saturate; the file is judged here, not the CPU.
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [np.concatenate(parts) for parts in zip(*(session.run(None, one) for one in feeds), strict=True)]


def without_metadata(path):
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if not entry.key.startswith("onnxptq.")]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    return model.SerializeToString(deterministic=True)


def check_close(int8, float32, feeds):
    """Half of the outputs are off by less than 3 % of the spread of the float ones: an If may take the other branch."""
    for ours, theirs in zip(run(int8, feeds), run(float32, feeds), strict=True):
        assert np.median(np.abs(ours - theirs)) < 0.03 * theirs.std()


@pytest.mark.parametrize("kind", MODELS)
def test_it_is_quantized_runs_and_is_close_to_float(kind, tmp_path):
    path = MODELS[kind](tmp_path / "net.onnx")
    feeds = draw(path)
    data = save_data(feeds, tmp_path / "data.npz")
    result = onnxptq.quantize(path, data=data, output=tmp_path / "int8.onnx", options=TENSORS)
    assert "DequantizeLinear" in {n.op_type for n in onnx.load(result.output).graph.node}
    check_close(result.output, path, feeds)
    assert result.report is not None
    said = [warning for warning in result.warnings if NOTES.get(kind, "no such note") in warning]
    assert len(said) == (kind in NOTES)


@pytest.mark.parametrize("kind", MODELS)
def test_minmax_gives_the_bytes_of_the_stock_quantizer_on_the_folded_model(kind, tmp_path):
    from onnxruntime.quantization import QuantType, quantize_static

    path = MODELS[kind](tmp_path / "net.onnx")
    feeds = draw(path)
    options = {"data": save_data(feeds, tmp_path / "data.npz", labels=False), "options": TENSORS}
    result = onnxptq.quantize(path, **options, output=tmp_path / "int8.onnx", evaluate=False)
    reader = onnxptq.draw_calibration(path, **options).reader()
    folded = fold(load_model(path), user_cache())
    quantize_static(
        folded,
        tmp_path / "stock.onnx",
        reader,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    assert without_metadata(result.output) == without_metadata(tmp_path / "stock.onnx")


def test_sequences_of_any_length_are_calibrated_and_judged(tmp_path):
    path = sequences(tmp_path / "net.onnx")
    rng = np.random.default_rng(2)
    feeds = [{"x": rng.standard_normal((1, rng.integers(2, 9), 6)).astype(np.float32)} for _ in range(COUNT)]
    rows = [json.dumps({"x": one["x"][0].tolist(), "label": i % 4}) for i, one in enumerate(feeds)]
    (tmp_path / "data.jsonl").write_text("\n".join(rows), encoding="utf-8")
    result = onnxptq.quantize(path, data=str(tmp_path / "data.jsonl"), output=tmp_path / "int8.onnx")
    check_close(result.output, path, feeds)
    assert result.report is not None
    fp32 = result.predictions[0]
    assert len({one["x"].shape[1] for one in feeds}) > 4
    assert fp32.sample_id.size > COUNT // 4


@pytest.mark.parametrize(
    ("opset", "engine", "method"),
    [(12, "one-pass", "minmax"), (17, "one-pass", "bias-correction"), (17, "stock", "minmax")],
)
def test_weights_in_a_file_of_their_own_go_beside_the_output(opset, engine, method, tmp_path, monkeypatch):
    """The path of models above 2 GB, with the limit lowered. 20 KB of weights, 5 of INT8: ONNX keeps less inside."""
    net = Net()
    nodes = [
        node("Gemm", ["x", net.w("w1", 6, 80), net.w("b1", 80)], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", net.w("w2", 80, 64), net.w("b2", 64)], ["y"]),
    ]
    source = net.save(tmp_path / "whole.onnx", nodes, {"x": ["N", 6]}, {"y": ["N", 64]}, opset=opset, ir=7)
    path = tmp_path / "net.onnx"
    onnx.save(onnx.load(source), path, save_as_external_data=True, location="net.weights", size_threshold=64)
    feeds = draw(path)
    data = save_data(feeds, tmp_path / "data.npz")
    small = onnxptq.quantize(source, data=data, method=method, output=tmp_path / "small.onnx", options=TENSORS)
    monkeypatch.setattr("onnxptq.graphs.external.SINGLE_FILE_LIMIT", 100)
    (tmp_path / "there").mkdir()
    output = tmp_path / "there" / "int8.onnx"
    large = onnxptq.quantize(path, data=data, engine=engine, method=method, output=output, options=TENSORS)
    assert {p.name for p in Path(large.output).parent.iterdir()} == {"int8.onnx", "int8.onnx.data"}
    for ours, theirs in zip(run(large.output, feeds), run(small.output, feeds), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    said = any("wrote the file: the weights go to a file of their own" in warning for warning in large.warnings)
    assert said == (engine == "one-pass")


def test_calibration_on_renormalized_activations_repairs_the_ranges_of_a_dark_set(tmp_path):
    path = convolution(17, 8)(tmp_path / "net.onnx")
    feeds = draw(path)
    dark = [{name: array * np.float32(0.1) for name, array in one.items()} for one in feeds]
    data = save_data(dark, tmp_path / "dark.npz", labels=False)

    def relu_scale(method):
        result = onnxptq.quantize(
            path, data=data, method=method, output=tmp_path / f"{method}.onnx", options=TENSORS, evaluate=False
        )
        tensors = {t.name: t for t in onnx.load(result.output).graph.initializer}
        assert not any(name.endswith(("__gamma", "__mean")) for name in tensors)
        return float(numpy_helper.to_array(tensors["r_scale"]))

    clean = max(float(values.max()) for values in run(_with_output(path, "r", tmp_path), feeds)) / 255
    assert relu_scale("minmax") < 0.9 * clean
    assert relu_scale("minmax-renormalized") > relu_scale("minmax")


def _with_output(path, name, folder):
    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.append(onnx.ValueInfoProto(name=name))
    onnx.save(model, folder / "r.onnx")
    return folder / "r.onnx"
