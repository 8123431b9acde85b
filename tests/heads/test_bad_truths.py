"""Truths that a head cannot read name the row; truths that are missing for some samples are told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

import onnxptq
from onnxptq.errors import DataError
from onnxptq.gates import check

R = np.random.default_rng(0)
N = 120
X = R.standard_normal((N, 6)).astype(np.float32)
MASKS = R.integers(0, 3, (N, 2, 2)).astype(np.uint8)
MASKS[:, 0, 0] = 9
CLASSES = R.integers(0, 2, (N, 2))
CLASSES[50, 1] = 7
BOXES = np.tile(np.array([[0, 0, 5, 5], [1, 1, 9, 9]], np.float32), (N, 1, 1))
WRONG = {
    "segmentation": ((3, 2, 2), {"classes": ["a", "b", "c"]}, {"mask": MASKS}, r"row \d+: a mask has the class 9"),
    "detection": (
        (2, 6), {"decoder": "end-to-end", "classes": ["a", "b"]}, {"boxes": BOXES, "box_classes": CLASSES},
        "row 50: the data has objects of the class '7', which the model lacks",
    ),
    "regression": ((3,), {"error_scale": 1.0}, {"target": X[:, :2]}, r"row \d+: column 'target' has 2 numbers"),
}  # fmt: skip


def model(save, folder, shape, head, keys):
    weights = {"w": R.standard_normal((6, int(np.prod(shape)))).astype(np.float32), "s": np.array([-1, *shape])}
    nodes = [("MatMul", ["x", "w"], ["m"], {}), ("Reshape", ["m", "s"], ["y"], {})]
    path = save(nodes, [("x", ["N", 6], TensorProto.FLOAT)], [("y", ["N", *shape])], weights)
    (folder / "m.json").write_text(json.dumps({"task": f"tensor-{head}", **keys}))
    return path


@pytest.mark.parametrize("head", WRONG)
def test_a_truth_that_the_head_cannot_read_names_the_row(head, save, tmp_path):
    shape, keys, truths, message = WRONG[head]
    path = model(save, tmp_path, shape, head, keys)
    np.savez(tmp_path / "d.npz", x=X, **truths)
    with pytest.raises(DataError, match=rf"d.npz: {message}"):
        onnxptq.quantize(
            path, data=str(tmp_path / "d.npz"), corruptions=["clean"], output=tmp_path / "q.onnx", verify=False
        )
    assert not (tmp_path / "q.onnx").exists()


def test_truths_that_some_samples_lack_are_told(save, tmp_path):
    path = model(save, tmp_path, (6, 5), "sequence", {"decoding": "greedy", "vocabulary": "abcde"})
    rows = [{"x": x.tolist(), "transcript": None if n == 40 else "abc"} for n, x in enumerate(X)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    onnxptq.quantize(path, calib="random", evaluate=False, output=tmp_path / "q.onnx", verify=False)
    said = check(tmp_path / "q.onnx", reference=path, data=str(tmp_path / "d.jsonl"), corruptions=["clean"]).warnings
    assert any("have no truth (the first is row 40" in line for line in said), said
    judged = onnxptq.evaluate(
        [tmp_path / "q.onnx"], reference=path, data=str(tmp_path / "d.jsonl"), corruptions=["clean"]
    )
    assert judged.reports[0].measure == "text fidelity" and any("have no truth" in line for line in judged.warnings)
