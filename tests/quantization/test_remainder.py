"""A remainder in FP16: what is not quantized computes in FP16, the file still runs, and nothing of others changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.errors import UsageError
from onnxptq.lint import lint
from onnxptq.quantization.remainder import remainder_in_fp16
from onnxptq.recipe import Recipe
from onnxptq.runtimes import open_session


def made(tmp_path: Any, remainder: str) -> Any:
    return onnxptq.quantize(
        target="tensorrt11", remainder=remainder, evaluate=False, output=tmp_path / f"{remainder}.onnx"
    )


def types_of(path: Any) -> dict[str, set[int]]:
    graph = onnx.load(path).graph
    constants = {one.name: one.data_type for one in graph.initializer}
    scales = {constants[n.input[1]] for n in graph.node if n.op_type in ("QuantizeLinear", "DequantizeLinear")}
    return {
        "scales": scales,
        "ends": {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)},
        "floats": {t for t in constants.values() if t in (TensorProto.FLOAT, TensorProto.FLOAT16)},
    }


def test_scales_and_weights_are_fp16_and_inputs_and_outputs_are_not(tmp_path):
    plain, half = made(tmp_path, "fp32"), made(tmp_path, "fp16")
    assert types_of(half.output) == {
        "scales": {TensorProto.FLOAT16}, "ends": {TensorProto.FLOAT}, "floats": {TensorProto.FLOAT16},
    }  # fmt: skip
    assert TensorProto.FLOAT16 not in types_of(plain.output)["floats"]
    assert any("is FP16 in the file" in line for line in half.warnings)
    x = np.random.default_rng(0).uniform(0, 1, (64, 1, 8, 8)).astype(np.float32)
    one, other = (open_session(result.output).run({"input": x})[0] for result in (plain, half))
    assert one.dtype == other.dtype == np.float32
    assert 10 * np.log10((one**2).mean() / ((one - other) ** 2).mean()) > 25


def test_lint_finds_no_fp32_remainder_any_more(tmp_path):
    found = [{one.rule for one in lint(made(tmp_path, r).output, "tensorrt11").findings} for r in ("fp32", "fp16")]
    assert "QDQ311" in found[0]
    assert found[1] <= found[0] - {"QDQ311"}


def test_scales_that_fp16_cannot_hold_stay_in_fp32(tmp_path):
    tensors = {"tiny": np.float32(2e-6), "usual": np.float32(0.02), "zero": np.int8(0)}
    pairs = [
        helper.make_node("QuantizeLinear", ["x", "tiny", "zero"], ["q"], "first"),
        helper.make_node("DequantizeLinear", ["q", "tiny", "zero"], ["d"], "second"),
        helper.make_node("QuantizeLinear", ["d", "usual", "zero"], ["r"], "third"),
        helper.make_node("DequantizeLinear", ["r", "usual", "zero"], ["y"], "fourth"),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in tensors.items()]
    graph = helper.make_graph(pairs, "g", ends[:1], ends[1:], constants)
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    notes = remainder_in_fp16(path)
    assert "2 Q and DQ with scales below 6.1e-05 stay in FP32, such as first." in notes
    x = np.array([[1e-4, -1e-4, 2e-6, 0]], np.float32)
    np.testing.assert_allclose(open_session(path).run({"x": x})[0], np.zeros((1, 4)), atol=1e-6)
    assert onnx.load(path).opset_import[0].version >= 19


def test_nodes_whose_values_fp16_cannot_hold_stay_in_fp32_and_unnamed_ones_are_no_trap(tmp_path):
    """Evaluated by onnx itself, since ONNX Runtime's CPU provider computes FP16 in FP32 and hides an overflow."""
    weights = {"w": np.eye(4, dtype=np.float32), "up": np.float32(1e5), "down": np.float32(1e-5)}
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], "product"),
        helper.make_node("Mul", ["a", "up"], ["large"], "up"),
        helper.make_node("Mul", ["large", "down"], ["b"], "down"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 4]) for name in ("x", "y")]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    source = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), source)
    x = np.random.default_rng(0).uniform(1, 2, (64, 4)).astype(np.float32)
    np.savez(tmp_path / "d.npz", x=x)
    made = onnxptq.quantize(
        source, data=str(tmp_path / "d.npz"), target="tensorrt11", remainder="fp16", evaluate=False,
        output=tmp_path / "q.onnx",
    )  # fmt: skip
    assert any("nodes whose values FP16 might not hold stay in FP32" in line for line in made.warnings)
    (said,) = onnx.reference.ReferenceEvaluator(str(made.output)).run(None, {"x": x[:8]})
    np.testing.assert_allclose(said, x[:8], rtol=0.02)
    assert all(node.name for node in onnx.load(made.output).graph.node)


@pytest.mark.parametrize(
    ("remainder", "target", "message"),
    [("fp16", "cpu", "for the target tensorrt11.*the target here is cpu"), ("int4", "tensorrt11", "fp32 or fp16, got")],
)
def test_a_remainder_that_makes_no_sense_is_refused(remainder, target, message):
    with pytest.raises(UsageError, match=message):
        onnxptq.quantize(target=target, remainder=remainder, evaluate=False)


def test_recipes_keep_their_digest_and_say_fp16_where_it_is():
    assert "remainder" not in Recipe().to_dict()
    half = Recipe(target="tensorrt11", remainder="fp16")
    assert Recipe.from_dict(half.to_dict()) == half
    assert half.digest != Recipe(target="tensorrt11").digest
    with pytest.raises(UsageError, match="'remainder' in the recipe must be str"):
        Recipe.from_dict({"remainder": True})
