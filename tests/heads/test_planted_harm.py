"""Planted harm: whatever the head, the gate fails a file that ruins one group, and does not fail one that ruins none.

The net is one matrix. Group "loud" has inputs three times as large as group "quiet". A file that was calibrated on
quiet samples alone cuts the loud ones off; one that was calibrated on both does not. The direction of a vector, which
is all that the fidelity of an embedding sees, bears cuts that are alike everywhere: there the loud ones have spikes.
"""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import onnxptq
from onnxptq.inputs import DataOptions

EACH = 150
R = np.random.default_rng(0)
X = R.uniform(-1, 1, (2 * EACH, 16)).astype(np.float32)
X[EACH:] *= 3
SPIKED = X.copy()
SPIKED[EACH:] = 40 * (X[EACH:] / 3) ** 5
WHO = np.repeat(["quiet", "loud"], EACH)

PLACES = 4
"""Boxes that the detector finds in every sample."""

# Head: shape of the output behind the batch, what the specification says, and the truth that FP32 gives.
HEADS = {
    "classification": ((4,), {}, lambda y: {"label": y.argmax(1)}),
    "multilabel": ((6,), {}, lambda y: {"labels": (y > 0).astype(np.int64)}),
    "regression": ((3,), {"error_scale": 6.0}, lambda y: {"target": y}),
    "sequence": ((6, 5), {"decoding": "greedy", "vocabulary": "abcde"}, lambda y: {"transcript": letters(y)}),
    "token-classification": ((6, 5), {}, lambda y: {"tags": y.argmax(2)}),
    "segmentation": ((3, 4, 4), {}, lambda y: {"mask": y.argmax(1).astype(np.uint8)}),
    "restoration": ((1, 4, 4), {"peak": 8.0}, lambda y: {"wanted": y + R.normal(0, 0.5, y.shape)}),
    "detection": ((PLACES, 6), {"decoder": "end-to-end", "classes": ["cat", "dog"]}, lambda y: boxes(y)),
    "embedding": ((6,), {}, lambda y: {"label": nearest_alike(y)}),
    "raw": ((8,), {}, lambda y: {}),
}
WITHOUT_TRUTH = (
    "multilabel", "sequence", "token-classification", "segmentation", "restoration", "regression", "detection",
    "embedding",
)  # fmt: skip


def letters(y):
    return np.array(["".join("abcde"[k] for k in row) for row in y.argmax(2)])


def boxes(y):
    return {"boxes": y[..., :4], "box_classes": y[..., 5].astype(np.int64)}


def nearest_alike(y):
    """Labels of pairs: a sample and its nearest one, so far as they are free, are of one label."""
    unit = y / np.linalg.norm(y, axis=1, keepdims=True)
    near = unit @ unit.T
    label = np.full(len(y), -1)
    for first in range(len(y)):
        if label[first] < 0:
            others = np.flatnonzero(label < 0)
            others = others[others != first]
            label[first] = first
            if len(others):
                label[others[near[first, others].argmax()]] = first
    return label


def detector():
    """Weight and bias of four boxes of 16 x 16 pixels, whose corners follow the input, of classes that stay."""
    weight, bias = np.zeros((16, PLACES, 6), np.float32), np.zeros((PLACES, 6), np.float32)
    for place in range(PLACES):
        weight[2 * place, place, [0, 2]] = weight[2 * place + 1, place, [1, 3]] = 6
        bias[place] = [40 * place, 40, 40 * place + 16, 56, 0.9, place % 2]
    return weight.reshape(16, -1), bias


def save(path, shape, head, keys):
    """The model with its specification in its metadata; returns its weight and bias."""
    weight = np.random.default_rng(1).standard_normal((16, int(np.prod(shape)))).astype(np.float32)
    bias = np.zeros(shape, np.float32)
    if head == "detection":
        weight, bias = detector()
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"], name="matmul"),
        helper.make_node("Reshape", ["m", "shape"], ["r"], name="reshape"),
        helper.make_node("Add", ["r", "bias"], ["y"], name="add"),
    ]
    tensors = {"w": weight, "shape": np.array([-1, *shape], np.int64), "bias": bias}
    graph = helper.make_graph(
        nodes,
        "planted",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *shape])],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(
        model, {"onnxptq.task": f"tensor-{head}", "onnxptq.preprocessing": json.dumps({"output": "y", **keys})}
    )
    onnx.save(model, path)
    return weight, bias


@pytest.mark.parametrize("truth", [True, False], ids=["with truth", "by fidelity"])
@pytest.mark.parametrize("head", HEADS)
def test_the_gate_fails_the_harmed_file_and_not_the_other(head, truth, tmp_path):
    if not truth and head not in WITHOUT_TRUTH:
        pytest.skip("judged without truth already, or by the label alone")
    shape, keys, truths = HEADS[head]
    if head == "raw":
        keys = {"outputs": ["y"]}
    x = SPIKED if head == "embedding" and not truth else X
    weight, bias = save(tmp_path / "fp32.onnx", shape, head, keys)
    y = (x @ weight).reshape(-1, *shape) + bias
    known = truths(y) if truth else {}
    np.savez(tmp_path / "eval.npz", x=x, who=WHO, **known)
    found = {}
    for name, rows in (("harmed", slice(0, EACH, 2)), ("sound", slice(None, None, 2))):
        np.savez(tmp_path / f"{name}.npz", x=np.round(x[rows], 3))
        made = onnxptq.quantize(
            tmp_path / "fp32.onnx",
            calib_size=64,
            evaluate=False,
            options=DataOptions(calib_data=str(tmp_path / f"{name}.npz")),
            output=tmp_path / f"{name}.onnx",
            verify=False,
        )
        found[name] = onnxptq.check(
            made.output, reference=tmp_path / "fp32.onnx", data=str(tmp_path / "eval.npz"), groups=["who"],
            corruptions=["clean"],
        )  # fmt: skip
    assert found["harmed"].exit_code == 1, found["harmed"]
    assert found["sound"].exit_code in (0, 3), found["sound"]
    assert found["sound"].subject["judged"] == ["y"]
