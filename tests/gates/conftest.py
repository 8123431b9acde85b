"""Predictions made in memory: which group flips how often is what a test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxptq.evaluation import Predictions
from onnxptq.evaluation.paired import paired
from onnxptq.gates.evidence import Evidence

CLASSES = ("cat", "dog", "fox", "owl")
CORRUPTIONS = ("clean", "fog@3")


@pytest.fixture
def make_runs() -> Callable[..., tuple[Predictions, Predictions]]:
    """A reference that is always right, and a model that loses a share of the rows of some groups."""

    def make(
        n: int = 100,
        losses: dict[str, float] | None = None,
        *,
        flips: float = 0.0,
        labelled: bool = True,
        provider: str = "cpu",
        digest: str = "b" * 64,
        **identity: Any,
    ) -> tuple[Predictions, Predictions]:
        rng = np.random.default_rng(0)
        sources = np.repeat(np.arange(len(CLASSES) * n), len(CORRUPTIONS))
        label = sources % len(CLASSES)
        columns = {
            "label": np.asarray(CLASSES)[label],
            "corruption": np.tile(np.asarray(CORRUPTIONS), len(CLASSES) * n),
        }
        wrong = rng.random(len(label)) < flips
        for name, share in (losses or {}).items():
            parts = dict(part.split("=") for part in name.split("*"))
            rows = np.flatnonzero(np.all([columns[k] == v for k, v in parts.items()], axis=0))
            wrong[rows[: round(share * len(rows))]] = True
        common = {
            "sample_id": np.array([f"{s}+{c}" for s, c in zip(sources, columns["corruption"], strict=True)]),
            "source_id": sources.astype(str),
            "groups": columns if labelled else {"corruption": columns["corruption"]},
            "label": label if labelled else np.full(len(label), -1),
            "certainty": np.ones(len(label), np.float32),
            "outputs": None,
            "signal_energy": np.ones(len(label)),
            "error_energy": np.zeros(len(label)),
        }
        about = {
            "runtime": {"provider": provider, "onnxruntime": "1"},
            "data": {"digest": "d" * 64, "samples": len(CLASSES) * n},
            "task": "image-classification",
            "preprocessing": {"mean": [0.5]},
            "classes": list(CLASSES),
            "corruptions": list(CORRUPTIONS),
            "seed": 0,
            **identity,
        }
        reference = Predictions(
            **common, code=label, identity={**about, "model": {"name": "fp32.onnx", "digest": "a" * 64}}
        )
        model = Predictions(
            **common,
            code=np.where(wrong, (label + 1) % len(CLASSES), label),
            identity={**about, "model": {"name": "int8.onnx", "digest": digest}},
        )
        return reference, model

    return make


@pytest.fixture
def evidence(make_runs: Callable[..., Any]) -> Callable[..., Evidence]:
    """Evidence of such runs; the arguments are those of `make_runs`."""

    def make(*arguments: Any, group_by: tuple[str, ...] = (), **options: Any) -> Evidence:
        reference, model = make_runs(*arguments, **options)
        return Evidence(
            predictions=model, reference_predictions=reference, pairing=paired(reference, model, groupings=group_by)
        )

    return make
