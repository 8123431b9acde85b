"""Evaluation samples in memory are the ones that would be decoded again, and stay only where they are few."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxptq.evaluation import EvaluationSamples
from onnxptq.inputs import DataOptions, build_task, open_model
from onnxptq.sweeps import kept_samples
from onnxptq.sweeps.kept_samples import KeptSamples


@pytest.mark.parametrize(("most", "reads"), [(2**20, 1), (100, 3)])
def test_batches_are_made_once_where_they_fit(
    most: int, reads: int, save_classifier: Any, make_dataset: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_samples, "KEPT_BYTES", most)
    task, _ = build_task(open_model(save_classifier()), DataOptions())
    data = make_dataset(20)
    read: list[int] = []
    monkeypatch.setattr(type(data), "read", _counted(type(data).read, read))
    samples = KeptSamples(task, data, ("clean", "tensor_noise@2"))
    rounds = [list(samples.batches(8)) for _ in range(3)]
    assert len(read) == reads
    expected = list(EvaluationSamples(task, data, ("clean", "tensor_noise@2")).batches(8))
    for found in rounds:
        for (rows, feeds), (same, other) in zip(found, expected, strict=True):
            np.testing.assert_array_equal(rows, same)
            np.testing.assert_array_equal(feeds["x"], other["x"])
    assert sum(len(rows) for rows, _ in samples.batches(5)) == 40, "and another batch size is another list"


def _counted(function: Any, calls: list[int]) -> Any:
    def counted(self: Any, indices: Any) -> Any:
        calls.append(len(indices))
        return function(self, indices)

    return counted
