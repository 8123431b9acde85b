from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.comparison.numerics import difference, output_step

from .conftest import predictions


def test_the_difference_is_measured_against_the_first_run() -> None:
    base = predictions([0, 1], [0, 0], outputs=[[3.0, 0.0], [0.0, 4.0]])
    run = predictions([0, 0], [0, 0], outputs=[[3.0, 0.0], [0.0, 3.5]])
    found = difference(base, run)
    assert found.sqnr_db == pytest.approx(10 * np.log10(25 / 0.25))
    assert (found.largest, found.equal, found.flip_rate) == (0.5, False, 0.5)
    assert found.one_step_apart is None


def test_equal_outputs_are_called_equal_and_have_no_ratio() -> None:
    base = predictions([0], [0], outputs=[[1.0, 2.0]])
    assert difference(base, base).equal
    assert difference(base, base).sqnr_db is None


def test_steps_of_the_output_are_counted() -> None:
    base = predictions([0], [0], outputs=[[0.0, 0.1, 0.2, 0.3]])
    run = predictions([0], [0], outputs=[[0.0, 0.2, 0.1, 0.6]])
    found = difference(base, run, step=0.1)
    assert (found.one_step_apart, found.further_apart) == (0.5, 0.25)


def test_outputs_that_were_not_kept_leave_only_the_flips() -> None:
    found = difference(predictions([0, 1], [0, 0]), predictions([0, 0], [0, 0]))
    assert (found.equal, found.sqnr_db, found.largest, found.flip_rate) == (None, None, None, 0.5)


def graph_ending_in(tmp_path: Path, last: onnx.NodeProto | None, kind: int) -> Path:
    nodes = [helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"])] + ([last] if last else [])
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y" if last else "q", kind, [1, 4])],
        [
            numpy_helper.from_array(np.float32(0.25), "s"),
            numpy_helper.from_array(np.uint8(0), "z"),
        ],
    )
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def test_the_step_of_a_dequantized_output_is_its_scale(tmp_path: Path) -> None:
    last = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"])
    assert output_step(graph_ending_in(tmp_path, last, TensorProto.FLOAT)) == 0.25


def test_the_step_of_an_integer_output_is_one(tmp_path: Path) -> None:
    assert output_step(graph_ending_in(tmp_path, None, TensorProto.UINT8)) == 1.0


def test_a_float_output_has_no_step(tmp_path: Path) -> None:
    last = helper.make_node("Cast", ["q"], ["y"], to=TensorProto.FLOAT)
    assert output_step(graph_ending_in(tmp_path, last, TensorProto.FLOAT)) is None
