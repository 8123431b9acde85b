"""Totals of classifiers: scikit-learn computes the same, and an interval by blocks covers what INT8 did."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnxptq.heads import HEADS
from onnxptq.heads.classification import TOTALS, classify

metrics = pytest.importorskip("sklearn.metrics")


def records(values: np.ndarray, label: np.ndarray) -> dict:
    answers = classify(values, "logits", "y")
    head = HEADS.get("classification").build({}, signature(values.shape[1]))
    return {"label": label, "code": answers.prediction, **head.records(answers, {"label": label})}


def signature(classes: int):
    from onnxptq.signature import Signature, TensorSpec

    return Signature((TensorSpec("x", "float32", (None, 3)),), (TensorSpec("y", "float32", (None, classes)),))


def total(name: str, found: dict) -> float:
    return next(one for one in TOTALS if one.name == name).compute(found)


@pytest.mark.parametrize("classes", [2, 3, 12])
def test_scikit_learn_computes_the_same(classes):
    rng = np.random.default_rng(classes)
    label = rng.integers(0, classes, 300) % max(2, classes - 1)  # The last of many classes is no label.
    values = rng.normal(0, 1, (300, classes)) + 1.5 * np.eye(classes)[label]
    values = np.round(values, 1).astype(np.float32)  # With ties.
    found = records(values, label)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert total("macro-F1", found) == pytest.approx(
            metrics.f1_score(label, values.argmax(1), average="macro", labels=np.union1d(label, values.argmax(1)))
        )
    if classes == 2:
        expected = metrics.roc_auc_score(label, found["second"])
        assert total("AUROC", found) == pytest.approx(expected)
        assert math.isnan(total("AUROC", {**found, "label": np.zeros(300, int)}))
    else:
        assert "second" not in found
    if classes > 5:
        exact = values + rng.random(values.shape).astype(np.float32) * 1e-3  # Without ties: they have no order.
        expected = metrics.top_k_accuracy_score(label, exact, k=5, labels=np.arange(classes))
        assert total("top-5", records(exact, label)) == pytest.approx(expected)
    else:
        assert "top5" not in found


def test_a_report_has_the_totals_that_fit_and_their_intervals(tmp_path):
    import onnx

    import onnxptq

    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, (400, 6)).astype(np.float32)
    for classes, names in ((2, ["macro-F1", "AUROC"]), (9, ["macro-F1", "top-5"])):
        w = rng.normal(0, 1, (6, classes)).astype(np.float32)
        ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["N", k]) for n, k in (("x", 6), ("y", classes))]
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        graph = helper.make_graph([node], "g", ends[:1], ends[1:], [numpy_helper.from_array(w, "w")])
        onnx.save(
            helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx"
        )
        label = (x @ w + rng.normal(0, 1, (400, classes))).argmax(1)
        for name, truth in (("labelled", {"label": label}), ("bare", {})):
            np.savez(tmp_path / f"{name}.npz", x=x, **truth)
            made = onnxptq.quantize(
                tmp_path / "m.onnx", data=str(tmp_path / f"{name}.npz"), corruptions=["clean"],
                output=tmp_path / f"{name}{classes}.onnx",
            )  # fmt: skip
            assert [one.name for one in made.report.totals] == (names if truth else [])
            for one in made.report.totals:
                low, high = one.bounds(0.975)
                assert 0.4 < one.before <= 1 and low <= one.drop <= high and one.standard_error >= 0
