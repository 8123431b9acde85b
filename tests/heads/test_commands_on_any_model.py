"""The other commands take what `quantize` takes, whatever it gives: calibrate, audit, compare, diagnose."""

from __future__ import annotations

import json

import numpy as np
import pytest
from onnx import TensorProto

from .test_any_model import MODELS, X_IN, W, X

DETECTOR = (
    [
        ("MatMul", ["x", "w"], ["t"], {}), ("Reshape", ["t", "s"], ["b"], {}), ("Relu", ["b"], ["boxes"], {}),
        ("MatMul", ["x", "v"], ["u"], {}), ("Sigmoid", ["u"], ["p"], {}), ("Reshape", ["p", "r"], ["scores"], {}),
    ],
    [X_IN], [("boxes", ["N", 2, 4]), ("scores", ["N", 2, 3])],
    {
        "w": np.tile(W, 3)[:, :8], "v": np.tile(W, 2), "s": np.array([-1, 2, 4]), "r": np.array([-1, 2, 3]),
    },
)  # fmt: skip
SEGMENTER = (
    [("MatMul", ["x", "w"], ["t"], {}), ("Reshape", ["t", "s"], ["y"], {})],
    [X_IN], [("y", ["N", 3, 2, 2])], {"w": np.tile(W, 4), "s": np.array([-1, 3, 2, 2])},
)  # fmt: skip
STATE = (
    [
        ("MatMul", ["x", "w"], ["t"], {}), ("ReduceSum", ["state", "axes"], ["s"], {"keepdims": 0}),
        ("Add", ["t", "s"], ["y"], {}), ("Identity", ["state"], ["next"], {}),
    ],
    [X_IN, ("state", [2, "N", 3])], [("y", ["N", 3]), ("next", [2, "N", 3])], {"w": W, "axes": np.array([0])},
)  # fmt: skip
BEHIND = (
    [("MatMul", ["x", "w"], ["t"], {}), ("Relu", ["t"], ["y"], {})],
    [("x", ["T", "N", 8])], [("y", ["T", "N", 3])], {"w": W},
)  # fmt: skip
SCALAR_INTEGER = (
    [("MatMul", ["x", "w"], ["y"], {}), ("Greater", ["y", "zero"], ["big"], {}),
     ("Cast", ["big"], ["ones"], {"to": TensorProto.INT64}), ("ReduceSum", ["ones"], ["count"], {"keepdims": 0})],
    [X_IN], [("y", ["N", 3]), ("count", [], TensorProto.INT64)], {"w": W, "zero": np.float32(0)},
)  # fmt: skip
KINDS = {
    **{kind: (parts, {}, {"x": X}) for kind, parts in MODELS.items()},
    "a detector": (DETECTOR, {"head": "detection", "decoder": "decoded"}, {"x": X}),
    "a segmenter": (SEGMENTER, {"head": "segmentation"}, {"x": X}),
    "a state": (STATE, {}, {"x": X, "state": np.tile(X[:, None, :3], (1, 2, 1))}),
    "the batch behind": (BEHIND, {}, {"x": np.tile(X[:, None], (1, 5, 1))}),
    "a number of rows": (SCALAR_INTEGER, {}, {"x": X}),
}


ALWAYS = ("the input itself", "probabilities as maps", "a detector", "a state")
"""The others take two seconds each, and run with the fuzz tier."""


@pytest.mark.parametrize(
    "kind", [kind if kind in ALWAYS else pytest.param(kind, marks=pytest.mark.fuzz) for kind in KINDS]
)
def test_calibrate_audit_compare_and_diagnose_take_it(kind, save, onnxptq, tmp_path):
    parts, keys, arrays = KINDS[kind]
    save(*parts)
    (tmp_path / "m.json").write_text(json.dumps({"task": "tensor", **keys}))
    np.savez(tmp_path / "d.npz", **arrays)
    data = ["--data", "d.npz"]
    judged = [*data, "--corruption", "clean", "--json", "-"]

    def run(*words, codes=(0,)):
        done = onnxptq(*words)
        assert done.returncode in codes, f"{words}: {done.stderr}\n{done.stdout}"
        return done

    run("quantize", "m.onnx", *data, "--corruption", "clean", "-o", "q.onnx")
    run("calibrate", "m.onnx", *data, "-o", "s.npz")
    run("audit", "m.onnx", *data, codes=(0, 1, 3))
    compared = json.loads(run("compare", "m.onnx", "q.onnx", *judged, "--no-speed").stdout)
    assert all(row["status"] == "done" for row in compared["rows"]), compared
    told = json.loads(run("diagnose", "m.onnx", "q.onnx", *judged).stdout)
    assert told["tensors"] and (tmp_path / "s.npz").is_file()
