"""Predictions made by hand, and what models are judged on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from onnxptq.evaluation import EvaluationSamples, Predictions
from onnxptq.graphs import load_model
from onnxptq.tasks import make_task


@pytest.fixture
def predictions() -> Callable[..., Predictions]:
    """Makes predictions of classes: label and prediction as given, one source a row unless told."""

    def make(
        prediction: Sequence[int],
        label: Sequence[int] | None = None,
        *,
        name: str = "m.onnx",
        sources: Sequence[str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        outputs: Any = None,
        energies: tuple[float, float] = (np.nan, np.nan),
    ) -> Predictions:
        count = len(prediction)
        labels = np.full(count, -1) if label is None else np.asarray(label)
        columns = dict(groups or {})
        if label is not None:
            columns.setdefault("label", [f"class{value}" for value in labels])
        columns.setdefault("corruption", ["clean"] * count)
        return Predictions(
            sample_id=np.array([f"{row}:sample" for row in range(count)]),
            source_id=np.array([f"source{row:04d}" for row in range(count)] if sources is None else sources),
            groups={key: np.asarray(column, np.str_) for key, column in columns.items()},
            label=labels.astype(np.int64),
            code=np.asarray(prediction, np.int64),
            certainty=np.linspace(0, 3, count, dtype=np.float32),
            outputs=None if outputs is None else np.asarray(outputs, np.float32),
            signal_energy=np.full(count, energies[0]),
            error_energy=np.full(count, energies[1]),
            identity={"model": {"name": name, "digest": "d"}, "runtime": {"provider": "cpu"}, "classes": ["class0"]},
        )

    return make


@pytest.fixture
def samples(make_dataset: Callable[..., Any], save_classifier: Callable[..., Any]) -> Callable[..., EvaluationSamples]:
    """Makes evaluation samples for `save_classifier`'s nets: `make(corruptions, specification, seed, **dataset)`."""

    def make(
        corruptions: Sequence[str] = ("clean", "tensor_noise@3"),
        specification: Mapping[str, Any] | None = None,
        seed: int = 0,
        **dataset: Any,
    ) -> EvaluationSamples:
        signature = load_model(save_classifier("signature.onnx")).signature
        task = make_task("tensor-classification", specification or {}, signature)
        return EvaluationSamples(task, make_dataset(**dataset), tuple(corruptions), seed)

    return make
