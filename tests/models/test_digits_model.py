"""The built-in net: a valid ONNX file with the operators that INT8 finds hard, accurate enough to have much to lose."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from onnxptq.models import builtin

MODEL = builtin("digits").model
Predict = Callable[[Path, dict[str, Any]], Any]
Feeds = Callable[[Any], dict[str, Any]]


@pytest.fixture(scope="module")
def graph() -> Any:
    return onnx.load(MODEL).graph


@pytest.fixture(scope="module")
def folded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("folded") / "digits.onnx"
    quant_pre_process(MODEL, path)
    return path


class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
    def __init__(self, feeds: dict[str, Any]) -> None:
        self._samples = iter(feeds["input"])

    def get_next(self) -> dict[str, Any] | None:
        sample = next(self._samples, None)
        return None if sample is None else {"input": sample[None]}


def test_onnx_accepts_the_file_and_its_shapes() -> None:
    onnx.checker.check_model(onnx.load(MODEL), full_check=True)


def test_any_batch_size_gives_the_same_logits(digits_test: SimpleNamespace, digits_feeds: Feeds) -> None:
    session = onnxruntime.InferenceSession(MODEL, providers=["CPUExecutionProvider"])
    (seven,) = session.run(["logits"], digits_feeds(digits_test.pixels[:7] / 255))
    (one,) = session.run(["logits"], digits_feeds(digits_test.pixels[:1] / 255))
    assert (seven.shape, one.shape) == ((7, 10), (1, 10))
    assert seven.dtype == np.float32
    np.testing.assert_allclose(one[0], seven[0], rtol=1e-4, atol=1e-4)


def test_the_graph_has_depthwise_convolutions_a_residual_addition_and_unfolded_batch_normalization(graph: Any) -> None:
    channels = {tensor.name: tensor.dims[0] for tensor in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    groups = [next(a.i for a in node.attribute if a.name == "group") for node in convolutions]
    depthwise = [
        group for group, node in zip(groups, convolutions, strict=True) if group == channels[node.input[1]] > 1
    ]
    assert len(depthwise) == 3
    operators = Counter(node.op_type for node in graph.node)
    assert operators["BatchNormalization"] == len(convolutions) == 7
    assert operators["Add"] == 1


def test_quant_pre_process_folds_the_batch_normalization_away(
    folded: Path, digits_test: SimpleNamespace, digits_feeds: Feeds, predict: Predict
) -> None:
    assert not [node for node in onnx.load(folded).graph.node if node.op_type == "BatchNormalization"]
    feeds = digits_feeds(digits_test.pixels / 255)
    assert (predict(folded, feeds) == predict(MODEL, feeds)).all()


def test_the_metadata_say_how_to_use_the_model_without_flags(
    graph: Any, digits_train: SimpleNamespace, digits_metadata: dict[str, str]
) -> None:
    assert digits_metadata["onnxptq.task"] == "image-classification"
    preprocessing = json.loads(digits_metadata["onnxptq.preprocessing"])
    values = digits_train.pixels / 255
    assert preprocessing.pop("mean") == pytest.approx([values.mean()], abs=1e-4)
    assert preprocessing.pop("std") == pytest.approx([values.std()], abs=1e-4)
    assert preprocessing == {
        "input": graph.input[0].name,
        "output": graph.output[0].name,
        "layout": "NCHW",
        "size": [8, 8],
        "color": "L",
        "rescale": "x/255, then (x-mean)/std",
        "classes": list("0123456789"),
    }


def test_the_file_carries_no_traces_of_the_machine_that_exported_it(graph: Any) -> None:
    parts = [graph, *graph.node, *graph.initializer, *graph.value_info]
    assert not [part.name for part in parts if part.metadata_props or part.doc_string]
    assert b".py" not in MODEL.read_bytes()


def test_fp32_reads_clean_digits_and_suffers_from_corrupted_ones(
    digits_test: SimpleNamespace, digits_feeds: Feeds, predict: Predict
) -> None:
    clean = digits_test.pixels / 255
    rng = np.random.default_rng(0)
    impulse = np.where(rng.random(clean.shape) < 0.2, rng.integers(0, 2, clean.shape), clean)

    def accuracy(values: Any) -> float:
        return float((predict(MODEL, digits_feeds(values)) == digits_test.labels).mean())

    assert accuracy(clean) > 0.95
    assert 0.4 < accuracy(impulse) < 0.9
    assert 0.7 < accuracy(clean**2.5) < accuracy(clean)


def test_int8_calibrated_on_dark_digits_loses_a_digit_that_clean_calibration_keeps(
    folded: Path,
    tmp_path: Path,
    digits_train: SimpleNamespace,
    digits_test: SimpleNamespace,
    digits_feeds: Feeds,
    predict: Predict,
) -> None:
    drawn = np.random.default_rng(0).permutation(len(digits_train.pixels))[:128]
    calibration = digits_train.pixels[drawn] / 255
    feeds = digits_feeds(digits_test.pixels / 255)

    def accuracy_by_digit(model: Path) -> Any:
        correct = predict(model, feeds) == digits_test.labels
        return np.array([correct[digits_test.labels == digit].mean() for digit in range(10)])

    def drop(values: Any) -> Any:
        int8 = tmp_path / "int8.onnx"
        quantize_static(
            folded,
            int8,
            Reader(digits_feeds(values)),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
        )
        return accuracy_by_digit(MODEL) - accuracy_by_digit(int8)

    assert abs(drop(calibration)).max() < 0.04
    # The 95 % interval of a difference of two groups of 90 is at most 15 points to either side.
    assert drop(calibration * 0.15).max() > 0.3
