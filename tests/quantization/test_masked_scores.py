"""Masked attention: what is hidden stays hidden, and real scores keep the resolution that they have without a mask."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.quantization.masked_scores import MARGIN, MaskedScores, find_masks, masked_scores, swallowed_scores
from onnxptq.tasks import Input, Signature, TensorSpec
from onnxptq.tasks.text_input import build


@pytest.fixture(scope="module")
def task() -> Input:
    inputs = tuple(TensorSpec(name, "int64", (None, None)) for name in ("input_ids", "attention_mask"))
    vocabulary = {"kind": "words", "vocabulary": ["<pad>", "<unk>"]}
    return build({"tokenizer": vocabulary}, Signature(inputs, (TensorSpec("y", "float32", (None, 2)),)))


def save(path: Path, kind: str, hidden: float = -1e4) -> Path:
    """(N, L) scores, masked by an Add or a Where, then a Softmax; "bias" adds numbers that hide nothing."""
    cast = helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT)
    nodes = {
        "Add": [
            cast,
            helper.make_node("Sub", ["one", "mask"], ["free"]),
            helper.make_node("Mul", ["free", "hidden"], ["bias"]),
            helper.make_node("Add", ["scores", "bias"], ["masked"]),
        ],
        "Where": [
            helper.make_node("Cast", ["attention_mask"], ["kept"], to=TensorProto.BOOL),
            helper.make_node("Where", ["kept", "scores", "hidden"], ["masked"]),
        ],
        "bias": [cast, helper.make_node("Add", ["scores", "mask"], ["masked"])],
    }[kind]
    nodes.append(helper.make_node("Softmax", ["masked"], ["y"]))
    initializers = [
        numpy_helper.from_array(np.float32(value), name) for name, value in (("one", 1), ("hidden", hidden))
    ]
    inputs = [
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", "L"]),
        helper.make_tensor_value_info("attention_mask", TensorProto.INT64, ["N", "L"]),
    ]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", "L"])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def ranges(**ends: tuple[float, float]) -> dict[str, Any]:
    return {name: (np.float32(low), np.float32(high)) for name, (low, high) in ends.items()}


@pytest.mark.parametrize("hidden", [-1e4, float(np.finfo(np.float32).min)])
def test_a_mask_is_found_by_what_it_can_hold(tmp_path: Path, task: Input, hidden: float) -> None:
    added = list(find_masks(save(tmp_path / "a.onnx", "Add", hidden), task, {}))
    assert added == [MaskedScores("scores", "bias", "masked")]
    chosen = list(find_masks(save(tmp_path / "w.onnx", "Where", hidden), task, {}))
    assert chosen == [MaskedScores("scores", None, "masked")]


def test_the_user_is_told_where_a_mask_takes_the_resolution(tmp_path: Path, task: Input) -> None:
    path = save(tmp_path / "a.onnx", "Add")
    given = ranges(scores=(-3, 5), bias=(-1e4, 0), masked=(-1e4, 5))
    (told,) = swallowed_scores(given, path)
    assert told.startswith("1 softmaxes see scores down to -10000, which is a mask")
    assert swallowed_scores(masked_scores(given, path, task), path) == ()


def test_a_bias_is_no_mask_unless_it_was_seen_to_hide(tmp_path: Path, task: Input) -> None:
    path = save(tmp_path / "b.onnx", "bias")
    given = ranges(scores=(-3, 4), mask=(0, 1), masked=(-3, 5))
    assert masked_scores(given, path, task) == given
    seen = {**given, **ranges(mask=(-1e4, 0), masked=(-1e4, 4))}
    assert masked_scores(seen, path, task)["masked"] == (np.float32(-3 - MARGIN), np.float32(4))


@pytest.mark.parametrize("observed", [(-1e4, 5.0), (-3.0, 5.0)], ids=["padding was seen", "padding was not seen"])
def test_real_scores_keep_their_resolution_and_padding_stays_hidden(
    tmp_path: Path, task: Input, observed: tuple[float, float]
) -> None:
    path = save(tmp_path / "a.onnx", "Add")
    found = masked_scores(ranges(scores=(-3, 5), bias=(-1e4, 0), masked=observed), path, task)
    assert found["scores"] == (np.float32(-3), np.float32(5))
    rng = np.random.default_rng(0)
    feeds = {"scores": rng.uniform(-3, 5, (50, 12)).astype(np.float32), "attention_mask": np.ones((50, 12), np.int64)}
    feeds["attention_mask"][:, 7:] = 0
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (exact,) = session.run(None, feeds)
    bias = rounded((1 - feeds["attention_mask"]) * np.float32(-1e4), found["bias"])
    masked = rounded(rounded(feeds["scores"], found["scores"]) + bias, found["masked"])
    weights = np.exp(masked - masked.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    assert np.abs(weights - exact).max() < 0.03
    assert weights[:, 7:].sum(axis=1).max() < 0.01


def test_the_widest_scores_decide_where_layers_share_a_mask(tmp_path: Path, task: Input) -> None:
    model = onnx.load(save(tmp_path / "a.onnx", "Add"))
    model.graph.node.extend(
        [helper.make_node("Add", ["other", "bias"], ["masked2"]), helper.make_node("Softmax", ["masked2"], ["y2"])]
    )
    model.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, ["N", "L"]))
    onnx.save(model, tmp_path / "two.onnx")
    given = ranges(scores=(-9, 9), other=(-1, 1), bias=(-1e4, 0), masked=(-1e4, 9), masked2=(-1e4, 1))
    found = masked_scores(given, tmp_path / "two.onnx", task)
    assert found["bias"] == (np.float32(-18 - MARGIN), np.float32(0))
    assert found["masked2"] == (np.float32(-1 - MARGIN), np.float32(1))


def rounded(values: np.ndarray, ends: tuple[Any, Any]) -> np.ndarray:
    """What an 8-bit asymmetric quantizer makes of the values."""
    low, high = min(float(ends[0]), 0.0), max(float(ends[1]), 0.0)
    scale = (high - low) / 255
    zero = round(-low / scale)
    return (np.clip(np.rint(values / scale) + zero, 0, 255) - zero) * scale
