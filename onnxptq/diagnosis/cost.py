"""What nodes in float cost in latency: predicted from the multiply-adds, and measured in turns."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path

from onnxptq.comparison.multiply_adds import multiply_adds
from onnxptq.diagnosis.result import MixedSpeed
from onnxptq.evaluation.sample_runner import arranged
from onnxptq.evaluation.samples import EvaluationSamples
from onnxptq.runtimes import open_session
from onnxptq.runtimes.latency import Latency, measure, timed

RUNS = 100
"""Timed calls of each model."""


def measure_cost(
    fp32: Path, int8: Path, mixed: Path, base: Path, float_nodes: Collection[str], samples: EvaluationSamples
) -> MixedSpeed:
    """Times the three models in turns on one sample.

    Args:
        fp32, int8, mixed: the models.
        base: the float graph that the nodes are those of.
        float_nodes: names of the nodes that `mixed` keeps in float.
        samples: the first one is what they are timed on.
    """
    _, feeds = next(samples.batches(1))
    sessions = [open_session(path) for path in (fp32, int8, mixed)]
    times = measure([timed(partial(one.run, arranged(feeds, one.signature))) for one in sessions], RUNS)
    for failed in times:
        if not isinstance(failed, Latency):
            raise failed
    first, second, third = (one for one in times if isinstance(one, Latency))
    share = _share(base, float_nodes)
    return MixedSpeed(first, second, third, second.p50 + share * (first.p50 - second.p50))


def _share(base: Path, float_nodes: Collection[str]) -> float:
    """The nodes' share of the estimated multiply-adds; 0 where nothing is counted."""
    counts = multiply_adds(base)
    total = sum(counts.values())
    return sum(counts.get(node, 0) for node in float_nodes) / total if total else 0.0
