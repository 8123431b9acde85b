"""Re-normalised calibration gives what a net in training mode computes on the whole calibration set at once."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.graphs import fold, load_model
from onnxptq.graphs.batch_norms import KEY, forget_batch_norms, remembered_batch_norms
from onnxptq.quantization.renormalized import renormalize

NORMS = ("norm1", "norm2", "norm3")


@pytest.fixture
def net(tmp_path):
    """Conv, BN, Relu, Conv, BN, + the first Relu, BN on its own, Relu, classifier. One gamma is negative."""
    rng = np.random.default_rng(3)
    weights = {"w1": (4, 3, 3, 3), "w2": (4, 4, 3, 3), "w3": (5, 4), "b3": (5,)}
    arrays = {name: rng.standard_normal(shape).astype(np.float32) * 0.4 for name, shape in weights.items()}
    for name in NORMS:
        gamma = rng.uniform(0.5, 1.5, 4) * np.array([1, -1, 1, 1])
        for part, values in (("g", gamma), ("b", rng.normal(size=4)), ("m", rng.normal(size=4)), ("v", np.ones(4))):
            arrays[f"{name}_{part}"] = values.astype(np.float32)

    def norm(name, source):
        return helper.make_node("BatchNormalization", [source, *(f"{name}_{p}" for p in "gbmv")], [name], name=name)

    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], pads=[1] * 4),
        norm("norm1", "c1"),
        helper.make_node("Relu", ["norm1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1] * 4),
        norm("norm2", "c2"),
        helper.make_node("Add", ["norm2", "r1"], ["sum"]),
        norm("norm3", "sum"),
        helper.make_node("Relu", ["norm3"], ["r3"]),
        helper.make_node("GlobalAveragePool", ["r3"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w3", "b3"], ["y"], transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["N", 3, 6, 6])],
        [value("y", TensorProto.FLOAT, ["N", 5])],
        [numpy_helper.from_array(array, name) for name, array in arrays.items()],
    )
    path = tmp_path / "net.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def draw(count=12):
    rng = np.random.default_rng(0)
    return [(str(i), {"x": (rng.standard_normal((1, 3, 6, 6)) * 0.2).astype(np.float32)}) for i in range(count)]


def training_mode(path):
    """The net with each BatchNormalization written out over the whole batch, in elementary operators."""
    model = onnx.load(path)
    constants = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    nodes = []

    def constant(name, array):
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(array, np.float32), name))
        return name

    for node in model.graph.node:
        if node.op_type != "BatchNormalization":
            nodes.append(node)
            continue
        n, (source, g, b, m, v) = node.output[0], node.input
        # z is what the net computes at inference, running statistics included.
        z = (constants[g] / np.sqrt(constants[v] + 1e-5)).reshape(1, -1, 1, 1)
        shift = constants[b].reshape(1, -1, 1, 1) - z * constants[m].reshape(1, -1, 1, 1)
        steps = [
            ("Mul", [source, constant(f"{n}_z", z)], "scaled", {}),
            ("Add", [f"{n}_scaled", constant(f"{n}_shift", shift)], "affine", {}),
            ("ReduceMean", [f"{n}_affine"], "mean", {"axes": [0, 2, 3]}),
            ("Sub", [f"{n}_affine", f"{n}_mean"], "centred", {}),
            ("Mul", [f"{n}_centred", f"{n}_centred"], "square", {}),
            ("ReduceMean", [f"{n}_square"], "variance", {"axes": [0, 2, 3]}),
            ("Add", [f"{n}_variance", constant(f"{n}_epsilon", 1e-5)], "safe", {}),
            ("Sqrt", [f"{n}_safe"], "deviation", {}),
            ("Div", [f"{n}_centred", f"{n}_deviation"], "unit", {}),
            ("Mul", [f"{n}_unit", constant(f"{n}_gamma", np.abs(constants[g]).reshape(1, -1, 1, 1))], "wide", {}),
            ("Add", [f"{n}_wide", constant(f"{n}_beta", constants[b].reshape(1, -1, 1, 1))], "", {}),
        ]
        for operator, inputs, output, attributes in steps:
            nodes.append(helper.make_node(operator, inputs, [f"{n}_{output}" if output else n], **attributes))
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model


def run(model, feeds, names):
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(None, feeds), strict=True))


def test_it_computes_what_training_mode_computes_on_the_whole_set(net, tmp_path):
    folded = fold(load_model(net), Cache(tmp_path / "room"))
    assert sum(node.op_type == "BatchNormalization" for node in onnx.load(folded).graph.node) == 1
    samples = draw()
    renormalize(folded, samples, tmp_path / "out.onnx")
    names = [*NORMS, "r1", "r3", "y"]
    whole = run(training_mode(net), {"x": np.concatenate([feeds["x"] for _, feeds in samples])}, names)
    ours = [run(onnx.load(tmp_path / "out.onnx"), feeds, names) for _, feeds in samples]
    plain = run(onnx.load(folded), samples[0][1], names)
    for name in names:
        found = np.concatenate([values[name] for values in ours])
        np.testing.assert_allclose(found, whole[name], rtol=1e-3, atol=1e-4)
        assert np.abs(plain[name] - found[:1]).max() > 0.05


def test_folding_remembers_what_it_folds_and_the_int8_file_forgets(net, tmp_path):
    folded = fold(load_model(net), Cache(tmp_path / "room"))
    norms = remembered_batch_norms(folded)
    constants = {t.name: numpy_helper.to_array(t) for t in onnx.load(net).graph.initializer}
    assert set(norms) == set(NORMS)
    for name, norm in norms.items():
        np.testing.assert_array_equal(norm.scale, constants[f"{name}_g"])
        np.testing.assert_array_equal(norm.bias, constants[f"{name}_b"])
    proto = onnx.load(folded)
    forget_batch_norms(proto)
    assert KEY not in {entry.key for entry in proto.metadata_props}


def test_names_outputs_and_weights_stay(net, tmp_path):
    folded = fold(load_model(net), Cache(tmp_path / "room"))
    renormalize(folded, draw(), tmp_path / "out.onnx")
    before, after = onnx.load(folded), onnx.load(tmp_path / "out.onnx")
    onnx.checker.check_model(after, full_check=True)
    assert [v.name for v in before.graph.output] == [v.name for v in after.graph.output]
    assert {o for n in before.graph.node for o in n.output} <= {o for n in after.graph.node for o in n.output}
    weights = {t.name: t for t in after.graph.initializer}
    assert all(weights[t.name] == t for t in before.graph.initializer)


def test_a_model_without_batch_normalization_is_refused(save_classifier, tmp_path):
    folded = fold(load_model(save_classifier()), Cache(tmp_path / "room"))
    with pytest.raises(ModelError, match="has no BatchNormalization"):
        renormalize(folded, [], tmp_path / "out.onnx")
