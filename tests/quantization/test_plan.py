from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnxptq.errors import ModelError
from onnxptq.quantization.plan import observed_tensors, plan_calibration
from onnxptq.quantization.reference_quantizer import quantize_with_ranges
from onnxptq.quantization.settings import QuantizerSettings

SETTINGS = {
    "cpu": QuantizerSettings(),
    "tensorrt": QuantizerSettings(
        activation_type="QInt8", per_channel=True, extra_options={"ActivationSymmetric": True}
    ),
}


@pytest.mark.parametrize("target", SETTINGS)
def test_only_observed_ranges_reach_the_quantized_file(model_path, tmp_path, target):
    plan = plan_calibration(model_path, SETTINGS[target])
    assert plan.observed
    assert set(plan.observed) <= set(plan.cached)
    written = []
    for unread in (1.0, 1000.0):
        value = np.float32(unread)
        ranges = dict.fromkeys(plan.cached, (-value, value))
        ranges |= {name: (np.float32(-3), np.float32(i + 1)) for i, name in enumerate(plan.observed)}
        quantize_with_ranges(model_path, ranges, tmp_path / "out.onnx", SETTINGS[target])
        written.append((tmp_path / "out.onnx").read_bytes())
    assert written[0] == written[1]


def test_every_observed_range_changes_the_quantized_file(model_path, tmp_path):
    plan = plan_calibration(model_path, QuantizerSettings())
    files = set()
    base = {name: (np.float32(-1), np.float32(1)) for name in plan.cached}
    for changed in (None, *plan.observed):
        ranges = base if changed is None else base | {changed: (np.float32(-2), np.float32(1))}
        quantize_with_ranges(model_path, ranges, tmp_path / "out.onnx", QuantizerSettings())
        files.add((tmp_path / "out.onnx").read_bytes())
    assert len(files) == 1 + len(plan.observed)


def test_relu_hides_its_input_and_softmax_needs_no_range(build_graph):
    conv = observed_tensors(build_graph("conv_relu"), QuantizerSettings())
    assert conv == ("conv2", "relu1", "x")
    assert not any(
        name.startswith("softmax") for name in observed_tensors(build_graph("attention"), QuantizerSettings())
    )


def test_excluded_nodes_are_not_observed(build_graph):
    settings = QuantizerSettings(nodes_to_exclude=("node_gemm6",))
    path = build_graph("depthwise_clip")
    assert "gemm6" in observed_tensors(path, QuantizerSettings())
    assert "gemm6" not in observed_tensors(path, settings)


def test_a_minimum_range_does_not_confuse_the_marks(build_graph):
    path = build_graph("residual")
    stretched = QuantizerSettings(extra_options={"MinimumRealRange": 6.5})
    assert observed_tensors(path, stretched) == observed_tensors(path, QuantizerSettings())


def test_where_an_activation_is_overridden_everything_is_observed(build_graph):
    from onnxruntime.quantization import QuantType

    path = build_graph("conv_relu")
    overrides = {"relu1": [{"quant_type": QuantType.QInt8, "symmetric": True}]}
    plan = plan_calibration(path, QuantizerSettings(extra_options={"TensorQuantOverrides": overrides}))
    assert set(plan.observed) == set(plan.cached)


def test_planning_leaves_nothing_beside_the_model(build_graph, tmp_path):
    path = build_graph("conv_relu")
    observed_tensors(path, QuantizerSettings())
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_without_float_tensors_is_refused(tmp_path):
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    ints = onnx.TensorProto.INT64
    graph = onnx.helper.make_graph([node], "ints", [value("x", ints, [1])], [value("y", ints, [1])])
    path = tmp_path / "ints.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=9), path)
    with pytest.raises(ModelError, match="nothing to quantize"):
        observed_tensors(path, QuantizerSettings())
