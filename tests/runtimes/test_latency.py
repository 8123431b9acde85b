from __future__ import annotations

import pytest

from onnxptq.runtimes import latency
from onnxptq.runtimes.isolated import WorkerError
from onnxptq.runtimes.latency import Latency, measure


class Timed:
    """Says when it was asked, and for what."""

    def __init__(self, name: str, log: list[str], seconds: float = 0.001, fails_at: int | None = None) -> None:
        self.name, self.log, self.seconds, self.fails_at = name, log, seconds, fails_at
        self.calls: list[tuple[int, int]] = []

    def __call__(self, runs: int, warmup: int) -> list[float]:
        self.log.append(self.name)
        self.calls.append((runs, warmup))
        if len(self.calls) == self.fails_at:
            raise WorkerError("crashed", "gone")
        return [self.seconds] * runs


def test_every_model_gets_its_runs_spread_over_turns() -> None:
    timed = Timed("a", [])
    (found,) = measure([timed], 25)
    assert isinstance(found, Latency)
    assert found.runs == 25
    assert [runs for runs, _ in timed.calls] == [3] * 5 + [2] * 5


def test_models_take_turns_and_none_is_always_first() -> None:
    log: list[str] = []
    measure([Timed("a", log), Timed("b", log)], 10)
    assert log[:4] == ["a", "b", "b", "a"]
    assert log.count("a") == log.count("b") == 10


def test_every_turn_is_warmed_up_the_first_one_longer() -> None:
    timed = Timed("a", [])
    measure([timed], 10)
    assert [warmup for _, warmup in timed.calls] == [latency.WARMUP_RUNS] + [1] * 9


class Warming:
    """A model whose calls take longer at first, as on a GPU that idled; and its clock."""

    def __init__(self, calls_until_warm: int) -> None:
        self.left = calls_until_warm
        self.bursts: list[tuple[int, int]] = []

    def __call__(self, runs: int, warmup: int) -> list[float]:
        self.bursts.append((runs, warmup))
        self.left -= runs + warmup
        return [0.01 if self.left <= 0 else 0.06] * runs

    def clock(self) -> int:
        return 1980 if self.left <= 0 else 345


def test_a_gpu_is_warmed_up_until_the_median_and_the_clock_settle_and_the_result_says_so() -> None:
    timed = Warming(20)
    (found,) = measure([timed], 10, [timed.clock])
    assert isinstance(found, Latency)
    assert found.settled
    assert found.warmup >= latency.LEAST_WARMUP_SECONDS
    assert (found.p50, found.runs) == (0.01, 10)


def test_a_clock_that_goes_on_climbing_is_not_settled_though_the_median_is() -> None:
    timed, clock = Timed("a", [], seconds=0.01), iter(range(300, 100_000, 50))
    (found,) = measure([timed], 10, [lambda: next(clock)])
    assert isinstance(found, Latency)
    assert (found.settled, found.warmup >= latency.MOST_WARMUP_SECONDS) == (False, True)


def test_a_gpu_whose_clock_is_unknown_settles_by_its_median() -> None:
    (found,) = measure([Timed("a", [], seconds=0.01)], 10, [lambda: None])
    assert isinstance(found, Latency)
    assert found.settled


def test_a_model_that_fails_leaves_its_error_and_the_others_go_on() -> None:
    log: list[str] = []
    first, second = measure([Timed("a", log, fails_at=2), Timed("b", log)], 10)
    assert isinstance(first, WorkerError)
    assert isinstance(second, Latency)
    assert (log.count("a"), log.count("b")) == (2, 10)


def test_a_slow_model_gets_fewer_runs_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(latency, "MOST_SECONDS", 2.5)
    (found,) = measure([Timed("a", [], seconds=1.0)], 10)
    assert isinstance(found, Latency)
    assert found.runs == 3


def test_percentiles_are_those_of_single_calls() -> None:
    found = Latency.of([float(number) for number in range(101)])
    assert (found.p50, found.p90, found.p99, found.mean) == (50.0, 90.0, 99.0, 50.0)
