"""What our own targets make passes lint for its target."""

from __future__ import annotations

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner

import onnxptq
from onnxptq.calibrators.methods import RANGE_METHODS
from onnxptq.commands.targets import targets as targets_command
from onnxptq.lint import lint
from onnxptq.quantization.collect import collect
from onnxptq.quantization.plan import plan_calibration
from onnxptq.quantization.settings import QuantizerSettings
from onnxptq.quantization.targets import TARGETS, Target, target_settings
from onnxptq.quantization.writer import FastWriter, quantize_with_ranges

from .graphs import FLOAT_NETS, samples

EXPECTED = {
    "cpu": {"QDQ401", "QDQ305"},  # 8-bit weights; LayerNormalization has no kernel
    "cuda": {"QDQ304", "QDQ210"},  # ONNX Runtime makes int32 of float biases unless it is told not to
    "tensorrt": {"QDQ204", "QDQ210"},  # a weighted operator on both branches
    "tensorrt11": {"QDQ204", "QDQ210", "QDQ311"},  # what is not quantized is in FP32
    "openvino": {"QDQ208"},
}


@pytest.fixture
def quantized(folded, tmp_path):
    def quantize(net, target):
        path, output = folded(net), tmp_path / f"{net}.{target}.onnx"
        settings = target_settings(target, path)
        plan = plan_calibration(path, settings)
        drawn = [(f"s{i}", feeds) for i, feeds in enumerate(samples())]
        statistics = collect(path, drawn, plan.observed)
        ranges = {
            tensor: RANGE_METHODS.get("minmax").range(statistics.per_environment(tensor), settings.quantization)
            for tensor in plan.observed
        }
        unread = dict.fromkeys(plan.cached, (np.float32(0), np.float32(0)))
        quantize_with_ranges(path, unread | ranges, output, settings)
        return path, settings, ranges, output

    return quantize


@pytest.mark.parametrize("net", FLOAT_NETS)
@pytest.mark.parametrize("target", list(EXPECTED))
def test_the_output_of_a_target_passes_its_lint(quantized, net, target):
    report = lint(quantized(net, target)[3], target)
    assert report.passed
    assert {finding.rule for finding in report.findings} <= EXPECTED[target]
    assert report.count("warning") == (1 if target == "cuda" else 0)


def test_every_target_is_tested_here():
    assert set(EXPECTED) == set(TARGETS.names())


@pytest.mark.parametrize("net", FLOAT_NETS)
@pytest.mark.parametrize("target", list(EXPECTED))
def test_the_fast_writer_writes_the_bytes_of_the_reference_for_every_target(quantized, tmp_path, net, target):
    path, settings, ranges, reference = quantized(net, target)
    writer = FastWriter(path, settings)
    for _ in range(2):
        writer.write(ranges, tmp_path / "fast.onnx")
        assert (tmp_path / "fast.onnx").read_bytes() == reference.read_bytes()
    assert writer.anew == []


def test_tensorrt_gets_the_identity_branch_quantized_and_not_the_conv(quantized):
    graph = onnx.load(str(quantized("residual", "tensorrt")[3])).graph
    made = {name: node for node in graph.node for name in node.output}
    identity, both = ([made[name].op_type for name in n.input] for n in graph.node if n.op_type == "Add")
    assert sorted(identity) == ["Conv", "DequantizeLinear"]
    assert both == ["DequantizeLinear", "DequantizeLinear"]


def test_tensorrt_leaves_normalisation_softmax_and_concat_to_tensorrt(quantized):
    for net, kinds in (("transformer", {"LayerNormalization", "Softmax"}), ("depthwise", {"Concat", "Clip"})):
        graph = onnx.load(str(quantized(net, "tensorrt")[3])).graph
        made = {name: node for node in graph.node for name in node.output}
        read = [made[name].op_type for n in graph.node if n.op_type in kinds for name in n.input if name in made]
        assert read
        assert "DequantizeLinear" not in read


def test_the_command_lists_every_target_with_a_reason_and_a_source_beside_each_choice():
    result = CliRunner().invoke(targets_command, ["--json", "-"])
    listed = {row["name"]: row for row in json.loads(result.stdout)}
    assert set(listed) == set(TARGETS.names())
    assert listed["tensorrt"]["extra_options"]["AddQDQPairToWeight"] is True
    for row in listed.values():
        assert row["choices"]
        assert all(choice["setting"] and choice["reason"] and choice["source"] for choice in row["choices"])
    table = CliRunner().invoke(targets_command).stdout
    assert all(name in table for name in listed)


def test_nodes_that_a_target_leaves_in_float_join_those_of_its_settings(folded, monkeypatch):
    settings = QuantizerSettings(nodes_to_exclude=("mine",))
    target = Target("npu", "", settings, (), lambda graph: (graph.node[0].name,))
    monkeypatch.setitem(TARGETS._entries, "npu", target)
    path = folded("residual")
    first = onnx.load(str(path)).graph.node[0].name
    assert target_settings("npu", path).nodes_to_exclude == ("mine", first)


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt11"])
def test_an_addition_behind_a_relu_gets_both_inputs_quantized(tmp_path, target):
    path = tmp_path / "digits.onnx"
    onnxptq.quantize(evaluate=False, target=target, output=path)
    report = lint(path, target)
    assert "QDQ203" not in {finding.rule for finding in report.findings}
    assert report.count("warning") == 0
    graph = onnx.load(str(path)).graph
    made = {name: node for node in graph.node for name in node.output}
    (add,) = [node for node in graph.node if node.op_type == "Add"]
    assert [made[name].op_type for name in add.input] == ["DequantizeLinear"] * 2


def test_lint_names_the_biases_that_onnx_runtime_quantizes_as_it_loads_a_file(quantized, tmp_path):
    # What it rewrites is read from the graph that it optimized; the CPU shows it, as the rewriting asks no provider.
    for net in ("residual", "depthwise"):
        path = quantized(net, "cuda")[3]
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        graph = onnx.load(options.optimized_model_filepath).graph
        integers = {tensor.name for tensor in graph.initializer if tensor.data_type == onnx.TensorProto.INT32}
        rewritten = [node for node in graph.node if len(node.input) == 3 and _source(graph, node.input[2]) in integers]
        named = [finding for finding in lint(path, "cuda").findings if finding.rule == "QDQ210"]
        assert len(named) == len(rewritten)


def _source(graph, name):
    return next((n.input[0] for n in graph.node if name in n.output and n.op_type == "DequantizeLinear"), None)
