"""What the rules judge: everything that was measured, or read from a file of predictions, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from onnxptq.evaluation.paired import Paired
from onnxptq.evaluation.predictions import Predictions
from onnxptq.evaluation.totals import TotalDrop
from onnxptq.gates.baseline import Baseline
from onnxptq.graphs import Model


@dataclass(frozen=True)
class LatencyRatios:
    """Paired measurements: in each round FP32 and INT8 ran in turn.

    Attributes:
        ratios: INT8 / FP32 of the medians of each round, sorted.
        provider: what both ran on.
    """

    ratios: tuple[float, ...]
    provider: str


@dataclass(frozen=True)
class Evidence:
    """What was found. None is what was not looked at.

    Attributes:
        model, reference: the files.
        predictions, reference_predictions: of the two.
        pairing: both, row by row.
        by_provider: predictions of the model on other execution providers.
        latency: see there.
        placement: how many nodes each provider took, ONNX Runtime's names; None where it cannot tell.
        baseline: the last accepted model.
        totals: numbers of the whole data set under both models, by name; empty where the task has none.
    """

    model: Model | None = None
    reference: Model | None = None
    predictions: Predictions | None = None
    reference_predictions: Predictions | None = None
    pairing: Paired | None = None
    by_provider: Mapping[str, Predictions] = field(default_factory=dict)
    latency: LatencyRatios | None = None
    placement: Mapping[str, int] | None = None
    placement_known: bool = False
    baseline: Baseline | None = None
    totals: Mapping[str, TotalDrop] = field(default_factory=dict)
