"""Latency: several models, each on its runtime, timed in turns, so that all of them see the same machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from onnxptq.runtimes.isolated import WorkerError

ROUNDS = 10
"""Turns that each model gets: enough that a disturbance of a second does not hit one of them alone."""

WARMUP_RUNS = 3
"""Runs before the first that counts: allocations, thread pools, and a provider's choice of kernels."""

WINDOW_SECONDS = 0.25
LEAST_WARMUP_SECONDS = 1.0
MOST_WARMUP_SECONDS = 10.0
"""A GPU idles at a fraction of its clock and takes a second or so to leave it: it is warmed up by windows of this
length, for so long at least, until two windows in a row agree, and for so long at most."""

SETTLED = 0.02
"""How far the medians, and the clocks, of two windows may differ that agree."""

MOST_SECONDS = 30.0
"""A model that has run this long gets no further turn: slow models are timed on fewer runs, and `runs` says so."""

Burst = Callable[[int, int], list[float]]
"""`(runs, warmup)` -> seconds of each run."""

Clock = Callable[[], int | None]
"""MHz at which a GPU runs just now; None where it does not tell."""


@dataclass(frozen=True)
class Latency:
    """How long one call takes, in seconds.

    Attributes:
        runs: how many were timed.
        p50, p90, p99: percentiles of the time of one call.
        mean: mean time of one call.
        warmup: how long it was warmed up before the first turn; 0 where `WARMUP_RUNS` were enough.
        settled: whether the times, and the GPU's clock where it is known, settled; None where nobody waited for it.
    """

    runs: int
    p50: float
    p90: float
    p99: float
    mean: float
    warmup: float = 0.0
    settled: bool | None = None

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


def measure(
    bursts: Sequence[Burst], runs: int, clocks: Sequence[Clock | None] | None = None
) -> list[Latency | WorkerError]:
    """Times all models in turns; one that fails leaves its error in its place, and the others go on.

    Args:
        bursts: what times each model.
        runs: calls of each model, spread over `ROUNDS` turns.
        clocks: for each model the clock of its GPU, or None. A model with a clock is warmed up by time (`warm_up`):
            before its first turn until it settles, and before each further one, as it idled while others had theirs.
    """
    turns = min(ROUNDS, runs)
    sizes = [runs // turns + (turn < runs % turns) for turn in range(turns)]
    seconds: list[list[float]] = [[] for _ in bursts]
    failed: dict[int, WorkerError] = {}
    warmed: dict[int, tuple[float, bool]] = {}
    for turn, size in enumerate(sizes):
        for step in range(len(bursts)):
            number = (turn + step) % len(bursts)  # nobody always runs after the same neighbour
            if number in failed or sum(seconds[number]) > MOST_SECONDS:
                continue
            try:
                if clocks and (clock := clocks[number]) is not None:
                    found = warm_up(bursts[number], clock, WINDOW_SECONDS if turn else LEAST_WARMUP_SECONDS)
                    warmed.setdefault(number, found)
                # A turn begins with one run that does not count: the others have emptied the caches.
                seconds[number] += bursts[number](size, 1 if turn else WARMUP_RUNS)
            except WorkerError as error:
                failed[number] = error
    return [
        failed.get(number) or _warmed(Latency.of(times), warmed.get(number)) for number, times in enumerate(seconds)
    ]


def _warmed(latency: Latency, found: tuple[float, bool] | None) -> Latency:
    return latency if found is None else replace(latency, warmup=found[0], settled=found[1])


def warm_up(burst: Burst, clock: Clock, least: float) -> tuple[float, bool]:
    """Runs a model until its median and the clock settle: how many seconds of runs that took, and whether they did.

    Args:
        burst: what times it.
        clock: of its GPU.
        least: seconds of runs at least.
    """
    spent, before = 0.0, (0.0, 0)
    size = 1
    while spent < MOST_WARMUP_SECONDS:
        times = burst(size, 0)
        spent += sum(times)
        median = float(np.median(times))
        now = (median, clock() or 0)
        if spent >= least and all(
            abs(new - old) <= SETTLED * max(new, old) for new, old in zip(now, before, strict=True)
        ):
            return spent, True
        before = now
        size = max(1, min(10_000, int(WINDOW_SECONDS / max(median, 1e-6))))
    return spent, False
