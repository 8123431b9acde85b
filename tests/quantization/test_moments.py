"""Moments are those of all activations together, exact in how they merge, and a pass keeps nothing else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.errors import DataError, ModelError
from onnxptq.quantization.level_by_level import rewrite_level_by_level
from onnxptq.quantization.moments import collect_moments


def activations(path, samples, names):
    """Every value of the tensors, one array a sample."""
    import onnxruntime

    model = onnx.load(path)
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [dict(zip(names, session.run(None, feeds), strict=True)) for _, feeds in samples]


def brute_force(arrays, axis):
    """Mean and variance of each channel over all arrays, in float64."""
    rows = np.concatenate([np.moveaxis(a.astype(np.float64), axis, -1).reshape(-1, a.shape[axis]) for a in arrays])
    return rows.mean(axis=0), rows.var(axis=0)


CONV = "residual", {"conv0": 1, "relu1": 1, "add3": 1}
GEMM = "gemm_beta", {"gemm0": 1, "x": 1}
ATTENTION = "attention", {"matmul0": -1, "layernormalization11": -1}


@pytest.mark.parametrize(
    ("opset", "graph", "tensors"),
    [(13, *CONV), (18, *CONV), (13, *GEMM), (18, *GEMM), (17, *ATTENTION), (18, *ATTENTION)],
)
def test_they_are_the_moments_of_all_values_together(build_graph, draw, opset, graph, tensors, tmp_path):
    model = onnx.load(build_graph(graph))
    model.opset_import[0].version = opset
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    samples = draw(path, count=7)
    found = collect_moments(path, samples, tensors)
    kept = activations(path, samples, [name for name in tensors if name != "x"])
    assert found.samples == 7
    for name, axis in tensors.items():
        arrays = [feeds["x"] for _, feeds in samples] if name == "x" else [values[name] for values in kept]
        mean, variance = brute_force(arrays, axis)
        np.testing.assert_allclose(found.tensors[name].mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.tensors[name].variance, variance, rtol=1e-5)
        assert found.tensors[name].count * len(mean) == sum(array.size for array in arrays)


def test_a_large_mean_costs_no_digits_of_the_variance(tmp_path):
    """E[x^2] - E[x]^2 in float32 would find a variance of 0 or less here."""
    nodes = [helper.make_node("Add", ["x", "offset"], ["z"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "offset",
        [value("x", TensorProto.FLOAT, ["N", 2, 64])],
        [value("z", TensorProto.FLOAT, ["N", 2, 64])],
        [numpy_helper.from_array(np.float32(3000), "offset")],
    )
    path = tmp_path / "offset.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    rng = np.random.default_rng(0)
    samples = [(str(i), {"x": rng.standard_normal((1, 2, 64)).astype(np.float32)}) for i in range(5)]
    found = collect_moments(path, samples, {"z": 1}).tensors["z"]
    _, variance = brute_force([feeds["x"] + np.float32(3000) for _, feeds in samples], 1)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-3)


def test_variable_shapes_weigh_by_their_number_of_values(build_graph):
    path = build_graph("attention")
    rng = np.random.default_rng(0)
    samples = [(str(n), {"x": rng.standard_normal((1, n, 8)).astype(np.float32)}) for n in (3, 9, 5)]
    found = collect_moments(path, samples, {"x": -1}).tensors["x"]
    mean, variance = brute_force([feeds["x"] for _, feeds in samples], -1)
    assert found.count == 17
    np.testing.assert_allclose(found.mean, mean, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(found.variance, variance, rtol=1e-5)


def test_external_data_is_found(build_graph, tmp_path, draw):
    path = build_graph("conv_relu")
    (tmp_path / "apart").mkdir()
    apart = tmp_path / "apart" / "model.onnx"
    onnx.save_model(onnx.load(path), apart, save_as_external_data=True, location="weights", size_threshold=0)
    assert collect_moments(apart, draw(path), {"conv2": 1}) == collect_moments(path, draw(path), {"conv2": 1})


def test_what_cannot_be_is_said(build_graph, draw):
    path = build_graph("conv_relu")
    samples = draw(path)
    with pytest.raises(ModelError, match="does not compute the tensor 'nosuch'"):
        collect_moments(path, samples, {"nosuch": 1})
    with pytest.raises(DataError, match="empty"):
        collect_moments(path, [], {"conv2": 1})
    samples[2][1]["x"][0, 0, 0, 0] = np.nan
    with pytest.raises(DataError, match=r"'conv2' is not finite for the sample 'sample-002'"):
        collect_moments(path, samples, {"conv2": 1})


@pytest.mark.parametrize("held_bytes", [0, 5000, 1 << 20])
def test_level_by_level_each_tensor_sees_what_was_done_before_it(build_graph, draw, held_bytes):
    """Adding 1 to every conv's output after its moments: the second conv's moments are those behind the changed first,
    whether activations are held between the levels or everything is computed anew."""
    path = build_graph("residual")
    samples = draw(path, count=5)

    def add_one(proto, tensor, moments):
        node = next(node for node in proto.graph.node if tensor in node.output)
        node.output[0] = f"{tensor}__raw"
        proto.graph.initializer.append(numpy_helper.from_array(np.float32(1), f"{tensor}__one"))
        position = list(proto.graph.node).index(node) + 1
        proto.graph.node.insert(position, helper.make_node("Add", [f"{tensor}__raw", f"{tensor}__one"], [tensor]))

    proto, found = rewrite_level_by_level(path, samples, {"conv0": 1, "conv2": 1}, add_one, held_bytes=held_bytes)
    changed = path.with_name("changed.onnx")
    onnx.save(proto, changed)
    kept = activations(changed, samples, ["conv0__raw", "conv2__raw"])
    for name in ("conv0", "conv2"):
        mean, variance = brute_force([values[f"{name}__raw"] for values in kept], 1)
        np.testing.assert_allclose(found.tensors[name].mean, mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found.tensors[name].variance, variance, rtol=1e-5)


def test_holding_activations_changes_nothing_but_the_work(build_graph, draw):
    path = build_graph("residual")
    samples = draw(path, count=5)
    results = [
        rewrite_level_by_level(path, samples, {"conv0": 1, "conv2": 1}, lambda *_: None, held_bytes=held)[1]
        for held in (0, 1 << 20)
    ]
    assert results[0] == results[1]


def test_held_activations_spare_the_passes_their_way_from_the_start(build_graph, draw):
    path = build_graph("residual")
    counted = []

    class Samples:
        def __iter__(self):
            counted.append(1)
            return iter(draw(path, count=3))

    for held, passes in ((0, 2), (1 << 20, 1)):
        counted.clear()
        rewrite_level_by_level(path, Samples(), {"conv0": 1, "conv2": 1}, lambda *_: None, held_bytes=held)
        assert len(counted) == passes
