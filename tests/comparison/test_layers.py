from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.comparison.layers import layer_errors, make_probes
from onnxptq.errors import ModelError


def save(path: Path, nodes: list[onnx.NodeProto]) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [numpy_helper.from_array(np.float32(0.5), "s"), numpy_helper.from_array(np.uint8(0), "z")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


@pytest.fixture
def fp32(tmp_path: Path) -> Path:
    return save(
        tmp_path / "fp32.onnx", [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Sqrt", ["h"], ["y"])]
    )


@pytest.fixture
def qdq(tmp_path: Path) -> Path:
    nodes = [
        helper.make_node("Relu", ["x"], ["h"]),
        helper.make_node("QuantizeLinear", ["h", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["h_read"]),
        helper.make_node("Sqrt", ["h_read"], ["y"]),
    ]
    return save(tmp_path / "qdq.onnx", nodes)


def test_a_quantized_tensor_is_taken_as_the_next_layer_reads_it(fp32: Path, qdq: Path, tmp_path: Path) -> None:
    probes = make_probes(fp32, qdq, tmp_path)
    assert dict(zip(probes.in_reference, probes.in_model, strict=True)) == {"h": "h_read", "y": "y"}
    exposed = [[value.name for value in onnx.load(str(path)).graph.output] for path in (probes.reference, probes.model)]
    assert [sorted(names) for names in exposed] == [["h", "y"], ["h_read", "y"]]


def test_the_shipped_files_stay_as_they_are(fp32: Path, qdq: Path, tmp_path: Path) -> None:
    before = qdq.read_bytes()
    make_probes(fp32, qdq, tmp_path)
    assert qdq.read_bytes() == before


def test_the_noisiest_layer_comes_first(fp32: Path, qdq: Path, tmp_path: Path) -> None:
    probes = make_probes(fp32, qdq, tmp_path)
    ones = np.ones((1, 4), np.float32)
    errors = layer_errors(probes, {"h": ones, "y": ones}, {"h_read": ones * 1.01, "y": ones * 1.1})
    assert [error.tensor for error in errors] == ["y", "h"]
    assert errors[0].sqnr_db == pytest.approx(20, abs=1e-3)
    assert errors[1].largest == pytest.approx(0.01, rel=1e-3)
    assert [error.operator for error in errors] == ["Sqrt", "Relu"]


def test_models_without_a_common_tensor_are_an_error(fp32: Path, tmp_path: Path) -> None:
    proto = onnx.load(str(fp32))
    for node, (inputs, outputs) in zip(proto.graph.node, ((["x"], ["k"]), (["k"], ["z9"])), strict=True):
        node.input[:], node.output[:] = inputs, outputs
    proto.graph.output[0].name = "z9"
    other = tmp_path / "other.onnx"
    onnx.save(proto, str(other))
    with pytest.raises(ModelError, match="no tensor of the same name"):
        make_probes(fp32, other, tmp_path)
