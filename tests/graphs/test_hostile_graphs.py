"""Graphs that are valid, or nearly, and were made to cost time, memory or a crash."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.cache import Cache
from onnxptq.errors import ModelError
from onnxptq.graphs import fold, load_model
from onnxptq.graphs.load import digest_of
from onnxptq.lint import lint

from .small_graphs import model, node, noise, quantized, rng, run, value, weights

X8 = {"x": rng().standard_normal((40, 8)).astype(np.float32)}
ROWS = [value("x", ["N", 8])]


def nested(depth):
    """A Gemm, and a tower of subgraphs beside it, two in each."""

    def branch(level):
        inner = [helper.make_node("Identity", ["x"], ["z"])]
        if level:
            inner = [helper.make_node("If", ["c"], ["z"], then_branch=branch(level - 1), else_branch=branch(0))]
        return helper.make_graph(inner, "b", [], [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])

    tower = helper.make_node("If", ["c"], ["z"], name="tower", then_branch=branch(depth), else_branch=branch(0))
    return model(
        [node("Gemm", ["x", "w"], ["y"]), tower], ROWS, [value("y", ["N", 3])], weights(w=(8, 3)) | {"c": True}
    )


def test_subgraphs_inside_each_other_cost_time_by_their_number_and_not_its_power(tmp_path):
    # Symbolic inference walks twice through each at every level: hours, where the rest takes a second.
    optimized, _ = noise(nested(17), X8, tmp_path)
    assert optimized > 22


@pytest.mark.parametrize("more", [4, 192])
def test_more_raw_data_than_the_shape_has_is_refused_by_name(more, tmp_path):
    proto = model([node("Gemm", ["x", "w"], ["y"])], ROWS, [value("y", ["N", 3])], weights(w=(8, 3)))
    proto.graph.initializer[0].raw_data += bytes(more)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=rf"tensor 'w' declares 24 elements .* holds {96 + more} bytes"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(("kind", "bits"), [(TensorProto.INT4, 4), (TensorProto.BOOL, 8), (TensorProto.DOUBLE, 64)])
def test_raw_data_of_every_width_is_measured_in_bits(kind, bits, tmp_path):
    proto = model([node("Gemm", ["x", "w"], ["y"])], ROWS, [value("y", ["N", 3])], weights(w=(8, 3)), opset=21, ir=10)
    proto.graph.initializer.append(
        onnx.TensorProto(name="other", data_type=kind, dims=[5], raw_data=bytes((5 * bits + 7) // 8))
    )
    onnx.save(proto, tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx").opset == 21


@pytest.mark.parametrize("location", ["a" * 300, "a" * 5000, "nul\0byte", "x/" * 200])
def test_an_external_path_that_no_file_can_have_is_refused(location, tmp_path):
    proto = model([node("Gemm", ["x", "w"], ["y"])], ROWS, [value("y", ["N", 3])], weights(w=(8, 3)))
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="external data") as caught:
        load_model(tmp_path / "m.onnx")
    assert len(str(caught.value)) < 500


def external(tmp_path, used, size):
    """A model whose weight lies at the beginning of a file that is larger."""
    proto = model([node("Gemm", ["x", "w"], ["y"])], ROWS, [value("y", ["N", 3])], weights(w=(8, 3)))
    tensor = proto.graph.initializer[0]
    with (tmp_path / "big.bin").open("wb") as file:
        file.write(tensor.raw_data)
        file.truncate(size)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, entry in (("location", "big.bin"), ("offset", "0"), ("length", str(used))):
        tensor.external_data.add(key=key, value=entry)
    onnx.save(proto, tmp_path / "m.onnx")
    return tmp_path / "m.onnx"


def test_of_a_file_that_a_model_hardly_uses_only_that_part_is_hashed(tmp_path):
    path = external(tmp_path, 96, 1 << 40)  # A terabyte of nothing: a sparse file.
    before = load_model(path).digest
    with (tmp_path / "big.bin").open("r+b") as file:
        file.seek(1 << 30)
        file.write(b"elsewhere")
    assert load_model(path).digest == before
    with (tmp_path / "big.bin").open("r+b") as file:
        file.write(b"in the weight")
    assert load_model(path).digest != before


def test_a_file_that_is_all_used_is_hashed_as_it_is(tmp_path):
    import hashlib

    (tmp_path / "f").write_bytes(bytes(range(200)))
    assert digest_of(tmp_path / "f", [(0, 50), (64, None)]) == hashlib.sha256(bytes(range(200))).digest()


def test_models_with_operators_of_other_domains_are_checked_as_well(tmp_path):
    nodes = [node("Mine", ["x"], ["a"], domain="com.acme"), node("Gemm", ["a"], ["y"])]
    proto = model(nodes, ROWS, [value("y", ["N", 3])], {}, domains=[("com.acme", 1)])
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=r"Gemm.*has input size 1"):
        load_model(tmp_path / "m.onnx")
    del proto.opset_import[1:]
    proto.graph.node[1].input.extend(["w", "b"])
    proto.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights(w=(8, 3), b=(3,)).items())
    onnx.save(proto, tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx").quantized is False  # ONNX Runtime knows whether it knows the domain.


def test_a_model_of_machine_learning_operators_alone_is_read_and_nothing_is_quantized(tmp_path):
    nodes = [node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=[0.5], scale=[2.0])]
    proto = model(nodes, ROWS, [value("y", ["N", 8])], {}, domains=[("ai.onnx.ml", 3)])
    del proto.opset_import[:1]
    source, output = quantized(proto, X8, tmp_path)
    np.testing.assert_array_equal(run(source, X8)[0], run(output, X8)[0])


def quantize_dequantize(prefix=""):
    return [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], [f"{prefix}q"]),
        helper.make_node("DequantizeLinear", [f"{prefix}q", "s", "z"], ["dq"]),
    ]


CONSTANTS = {"s": np.float32(0.05), "z": np.int8(0)}


def test_q_and_dq_inside_a_function_or_a_branch_are_seen_by_everybody(tmp_path):
    held = [
        helper.make_node("Constant", [], [n], value=numpy_helper.from_array(np.asarray(v)))
        for n, v in CONSTANTS.items()
    ]
    body = [*held, *quantize_dequantize()]
    function = helper.make_function("mine", "Fake", ["x"], ["dq"], body, [helper.make_opsetid("", 17)])
    called = [node("Fake", ["x"], ["a"], domain="mine"), node("Gemm", ["a", "w"], ["y"])]
    inside = model(called, ROWS, [value("y", ["N", 3])], weights(w=(8, 3)), domains=[("mine", 1)], functions=[function])
    branch = helper.make_graph(quantize_dequantize(), "b", [], [value("dq", ["N", 8])])
    chosen = node("If", ["c"], ["a"], then_branch=branch, else_branch=branch)
    branched = model(
        [chosen, node("Gemm", ["a", "w"], ["y"])],
        ROWS,
        [value("y", ["N", 3])],
        weights(w=(8, 3)) | CONSTANTS | {"c": True},
    )
    for proto in (inside, branched):
        onnx.save(proto, tmp_path / "m.onnx")
        assert load_model(tmp_path / "m.onnx").quantized
        assert "QDQ303" not in {finding.rule for finding in lint(tmp_path / "m.onnx", "cpu").findings}


def test_nothing_but_weights_stored_as_integers_is_a_float_model(tmp_path):
    nodes = [node("DequantizeLinear", ["wq", "s", "z"], ["w"]), node("Gemm", ["x", "w"], ["y"])]
    constants = {"wq": rng().integers(-127, 127, (8, 3)).astype(np.int8), **CONSTANTS}
    onnx.save(model(nodes, ROWS, [value("y", ["N", 3])], constants), tmp_path / "m.onnx")
    assert not load_model(tmp_path / "m.onnx").quantized


def test_folding_leaves_nothing_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    nodes = [
        node("NonZero", ["x"], ["a"]),
        node("Mystery", ["a"], ["b"], domain="com.microsoft"),
        node("Gemm", ["x", "w"], ["y"]),
    ]
    proto = model(nodes, ROWS, [value("y", ["N", 3])], weights(w=(8, 3)), domains=[("com.microsoft", 1)])
    onnx.save(proto, tmp_path / "m.onnx")
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    with pytest.raises(ModelError):
        fold(load_model(tmp_path / "m.onnx"), Cache(tmp_path / "room"))
    assert not list((tmp_path / "cwd").iterdir())
