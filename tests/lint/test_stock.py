"""Stock `quantize_static` with settings that do not suit the target is caught."""

from __future__ import annotations

import contextlib
import io

import pytest

from onnxptq.lint import lint

from .graphs import samples

SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True}


class Reader:
    def __init__(self):
        self.feeds = iter(samples())

    def get_next(self):
        return next(self.feeds, None)


@pytest.fixture
def stock(folded, tmp_path):
    """The findings in what `quantize_static` writes: (name, level) of every rule."""
    from onnxruntime.quantization import QuantType, quantize_static

    def quantize(net, target, activations="QInt8", weights="QInt8", **options):
        output = tmp_path / "stock.onnx"
        with contextlib.redirect_stdout(io.StringIO()):
            quantize_static(
                str(folded(net)),
                str(output),
                Reader(),
                activation_type=QuantType[activations],
                weight_type=QuantType[weights],
                **options,
            )
        return lint(output, target)

    return quantize


def errors(report):
    return {finding.rule for finding in report.findings if finding.level == "error"}


def rules(report):
    return {finding.rule for finding in report.findings}


def test_the_defaults_fail_for_tensorrt(stock):
    report = stock("residual", "tensorrt")
    assert not report.passed
    assert errors(report) == {"QDQ101", "QDQ201"}


def test_unsigned_activations_fail_for_tensorrt(stock):
    options = {"ActivationSymmetric": True, "QuantizeBias": False}
    assert "QDQ102" in errors(stock("residual", "tensorrt", activations="QUInt8", extra_options=options))


def test_a_quantized_bias_fails_for_tensorrt_and_is_warned_of_for_cuda(stock):
    for target, level in (("tensorrt", "error"), ("cuda", "warning")):
        report = stock("residual", target, extra_options=SYMMETRIC)
        assert {f.level for f in report.findings if f.rule == "QDQ201"} == {level}


def test_relu_between_pairs_and_both_branches_quantized_are_found_for_tensorrt(stock):
    report = stock("residual", "tensorrt", per_channel=True, extra_options={**SYMMETRIC, "QuantizeBias": False})
    assert report.passed
    assert {"QDQ221", "QDQ204"} <= rules(report)


@pytest.mark.parametrize("activations", ["QInt16", "QUInt16"])
def test_sixteen_bits_and_the_domain_of_onnx_runtime_are_found(stock, activations):
    options = {**SYMMETRIC, "QuantizeBias": False, "UseQDQContribOps": True}
    report = stock("residual", "tensorrt", activations=activations, extra_options=options)
    assert "QDQ103" in errors(report)
    assert "QDQ107" in rules(report)


def test_four_bit_weights_are_found(stock):
    assert "QDQ104" in rules(stock("depthwise", "cpu", activations="QUInt8", weights="QInt4"))


def test_scales_along_a_wrong_axis_fail_on_the_cpu(stock):
    wrong = {"QDQOpTypePerChannelSupportToAxis": {"MatMul": 0}}
    report = stock("transformer", "cpu", activations="QUInt8", per_channel=True, extra_options=wrong)
    assert errors(report) == {"QDQ116"}


def test_signed_activations_are_found_on_the_cpu(stock):
    assert "QDQ225" in rules(stock("residual", "cpu", extra_options=SYMMETRIC))


def test_unsigned_weights_are_found_for_openvino(stock):
    assert "QDQ118" in rules(stock("residual", "openvino", activations="QUInt8", weights="QUInt8"))


def test_pairs_on_constants_fail_for_openvino(stock):
    options = {**SYMMETRIC, "AddQDQPairToWeight": True}
    assert "QDQ209" in errors(stock("transformer", "openvino", extra_options=options))


def test_asymmetric_attention_is_found_for_openvino(stock):
    assert "QDQ226" in rules(stock("transformer", "openvino", activations="QUInt8"))


def test_operators_and_dynamic_quantization_fail_for_tensorrt(folded, tmp_path, stock):
    from onnxruntime.quantization import QuantFormat, quantize_dynamic

    assert "QDQ307" in errors(stock("depthwise", "tensorrt", quant_format=QuantFormat.QOperator))
    quantize_dynamic(str(folded("transformer")), str(tmp_path / "dynamic.onnx"))
    assert errors(lint(tmp_path / "dynamic.onnx", "tensorrt")) == {"QDQ306"}


def test_reduce_range_ends_the_risk_of_saturation(stock):
    for reduced in (False, True):
        report = stock("residual", "cpu", activations="QUInt8", per_channel=True, reduce_range=reduced)
        assert ("QDQ401" in rules(report)) != reduced


def test_an_excluded_node_is_found(stock, folded):
    import onnx

    name = next(n.name for n in onnx.load(str(folded("residual"))).graph.node if n.op_type == "Conv")
    report = stock("residual", "openvino", extra_options=SYMMETRIC, nodes_to_exclude=[name])
    assert [f.where for f in report.findings if f.rule == "QDQ301"] == [f"Conv {name}"]
