"""Latency: several lanes (a model on a runtime) timed in turns, so that all of them see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from onnxptq.runtimes.isolated import WorkerError

ROUNDS = 10
"""Turns that each lane gets: enough that a disturbance of a second does not hit one lane alone."""

WARMUP_RUNS = 3
"""Runs before the first that counts: allocations, thread pools, and a provider's choice of kernels."""

LANE_SECONDS = 30.0
"""A lane that has run this long gets no further turn: slow models are timed on fewer runs, and `runs` says so."""

Burst = Callable[[int, int], list[float]]
"""`(runs, warmup)` -> seconds of each run."""


@dataclass(frozen=True)
class Latency:
    """How long one call takes, in seconds.

    Attributes:
        runs: how many were timed.
        p50, p90, p99: percentiles of the time of one call.
        mean: mean time of one call.
    """

    runs: int
    p50: float
    p90: float
    p99: float
    mean: float

    @staticmethod
    def of(seconds: Sequence[float]) -> Latency:
        """From the times of single calls, at least one."""
        p50, p90, p99 = np.percentile(seconds, (50, 90, 99)).tolist()
        return Latency(len(seconds), p50, p90, p99, float(np.mean(seconds)))


def timed(call: Callable[[], object]) -> Burst:
    """What times `call` in this process."""

    def run(runs: int, warmup: int) -> list[float]:
        seconds = []
        for number in range(warmup + runs):
            start = time.perf_counter()
            call()
            if number >= warmup:
                seconds.append(time.perf_counter() - start)
        return seconds

    return run


def measure(lanes: Sequence[Burst], runs: int) -> list[Latency | WorkerError]:
    """Times all lanes in turns; one that fails leaves its error in its place, and the others go on.

    Args:
        lanes: what to time.
        runs: calls of each lane, spread over `ROUNDS` turns.
    """
    turns = min(ROUNDS, runs)
    sizes = [runs // turns + (turn < runs % turns) for turn in range(turns)]
    seconds: list[list[float]] = [[] for _ in lanes]
    failed: dict[int, WorkerError] = {}
    for turn, size in enumerate(sizes):
        for step in range(len(lanes)):
            lane = (turn + step) % len(lanes)  # nobody always runs after the same neighbour
            if lane in failed or sum(seconds[lane]) > LANE_SECONDS:
                continue
            try:
                # A turn begins with one run that does not count: the others have emptied the caches.
                seconds[lane] += lanes[lane](size, 1 if turn else WARMUP_RUNS)
            except WorkerError as error:
                failed[lane] = error
    return [failed.get(lane) or Latency.of(times) for lane, times in enumerate(seconds)]
