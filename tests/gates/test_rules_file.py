"""Rules about the file itself: its graph, what lint says of it, what it says that it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import FlipRate, Graph, Lint, Policy, ProvenanceRule, Quantization, WorstGroupFlipRate
from onnxptq.gates.rules import judge
from onnxptq.gates.rules.graph import float_nodes
from onnxptq.gates.verdict import RuleResult, Verdict
from onnxptq.graphs import load_model
from onnxptq.models import builtin


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    onnxptq.quantize(output=path, evaluate=False, exclude=["node_conv2d_3"])
    return path


def result(policy: Policy, path: Path, reference: Path | None = None) -> RuleResult:
    evidence = Evidence(model=load_model(path), reference=load_model(reference) if reference else None)
    # Some of the files are in float: that is not what these tests are about.
    (found,) = judge(replace(policy, quantization=Quantization(required=False)), evidence)
    return found


def test_opset_and_external_data_are_held_to_the_policy(save_classifier: Callable[..., Path], tmp_path: Path) -> None:
    path = save_classifier()
    for rule, words in (
        (Graph(minimum_opset=18), "opset 17 is older than 18"),
        (Graph(maximum_opset=16), "opset 17 is newer than 16"),
        (Graph(quantized=True), "these compute in float: body, head"),
    ):
        found = result(Policy(graph=rule), path)
        assert found.verdict is Verdict.FAILED and words in found.explanation
    allowed = Graph(17, 17, external_data=False, quantized=True, float_nodes=("bo*", "head"))
    assert result(Policy(graph=allowed), path).verdict is Verdict.PASSED
    onnx.save(onnx.load(path), tmp_path / "e.onnx", save_as_external_data=True, location="e.data", size_threshold=0)
    found = result(Policy(graph=Graph(external_data=False)), tmp_path / "e.onnx")
    assert found.explanation == "weights lie in another file"


def test_nodes_in_float_are_found_in_branches_and_behind_what_only_moves_values() -> None:
    def value(name: str) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, ["a", "b"])

    inner = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["z"], "hidden")], "inner", [], [value("z")])
    nodes = [
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("Transpose", ["d"], ["t"]),
        helper.make_node("Reshape", ["t", "shape"], ["r"]),
        helper.make_node("MatMul", ["d", "r"], ["y1"], "quantized"),
        helper.make_node("Relu", ["d"], ["p"]),
        helper.make_node("Gemm", ["p", "d"], ["y2"], "half"),
        helper.make_node("Conv", ["d", "w"], ["y3"]),
        helper.make_node("If", ["c"], ["y4"], "if", then_branch=inner, else_branch=inner),
    ]
    assert float_nodes(helper.make_graph(nodes, "g", [], [])) == ["half", "y3", "hidden", "hidden"]


def test_a_model_of_ours_computes_in_int8_but_for_what_was_left_in_float(int8: Path) -> None:
    found = result(Policy(graph=Graph(quantized=True)), int8)
    assert (found.verdict, found.explanation) == (Verdict.FAILED, "these compute in float: node_conv2d_3")
    allowed = Graph(quantized=True, float_nodes=("node_conv2d_3",))
    assert result(Policy(graph=allowed), int8).verdict is Verdict.PASSED


def test_lint_fails_on_errors_and_names_them(int8: Path) -> None:
    assert result(Policy(lint=Lint("cpu")), int8).verdict is Verdict.PASSED
    found = result(Policy(lint=Lint("tensorrt")), int8)
    assert found.verdict is Verdict.FAILED
    assert "errors" in found.explanation and "QDQ" in found.explanation


def test_provenance_is_compared_piece_by_piece(int8: Path, save_classifier: Callable[..., Path]) -> None:
    reference = builtin().model
    source, other = load_model(reference).digest, "0" * 64
    digest = onnxptq.graphs.read_provenance(load_model(int8).metadata).calibration["digest"]
    right = ProvenanceRule("reference", "clean", digest[:12], onnxptq.__version__)
    assert result(Policy(provenance=right), int8, reference).verdict is Verdict.PASSED
    for changes, words in (
        ({"source": other}, f"it was made from digits.onnx ({source[:8]}), not from 00000000"),
        ({"source": source[:7]}, "it was made from digits.onnx"),
        ({"calibration": "dark"}, "it was calibrated on clean, not on dark"),
        ({"calibration_digest": other}, "its calibration samples are"),
        ({"version": "0.0.0"}, f"it was made by onnxptq {onnxptq.__version__}, not 0.0.0"),
    ):
        found = result(Policy(provenance=replace(right, **changes)), int8, reference)
        assert found.verdict is Verdict.FAILED and words in found.explanation
    assert result(Policy(provenance=right), int8).verdict is Verdict.NOT_JUDGED
    found = result(Policy(provenance=right), save_classifier())
    assert found.verdict is Verdict.FAILED and "says nothing" in found.explanation


def test_flip_rules_say_when_samples_are_too_few(make_runs: Callable[..., tuple]) -> None:
    from onnxptq.evaluation.paired import paired

    runs = make_runs(5, flips=0.5)
    evidence = Evidence(predictions=runs[1], reference_predictions=runs[0], pairing=paired(*runs))
    found = judge(Policy(flip_rate=FlipRate(), worst_group_flip_rate=WorstGroupFlipRate()), evidence)
    assert [rule.verdict for rule in found] == [Verdict.UNDECIDED] * 3
    assert np.isclose(found[1].value or 0, 0.5, atol=0.2)


def test_a_weight_that_is_no_constant_is_float() -> None:
    weights = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    assert float_nodes(helper.make_graph([node], "g", [], [], [weights])) == ["product"]
