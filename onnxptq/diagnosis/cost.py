"""What nodes in float cost in latency: predicted from the multiply-adds, and measured in turns."""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import partial
from pathlib import Path

from onnxptq.comparison.multiply_adds import multiply_adds, share_of
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
    share = share_of(multiply_adds(base), float_nodes)
    share = 0.0 if math.isnan(share) else share
    return MixedSpeed(first, second, third, second.p50 + share * (first.p50 - second.p50))
