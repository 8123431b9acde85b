"""How often the statistics of graded scores err. Prints the tables of "Graded scores" in docs/statistics.md.

    python benchmarks/graded_statistics.py [--quick]

A graded score is any number from 0 to 1 (the F1 of a picture, 1 - WER of a sentence), and its drop any number from -1
to 1. Each setting below is a mixture whose mean is known exactly; a draw is one group of n sources. Fixed seeds: two
runs print the same. 4,000 draws, so a rate of .025 is known within .005.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that a checkout needs no installation

from group_statistics import print_table

from onnxptq.evaluation.statistics import (
    SourceSums,
    crossfit_drop,
    drop_interval,
    exceedance_p_values,
    mean_interval,
    sign_flip_test,
    student_interval,
    sum_by_source,
)

Floats = npt.NDArray[np.float64]
Sampler = Callable[[np.random.Generator, tuple[int, ...]], Floats]
Part = tuple[float, Sampler, float]
"""Weight, what draws a value, and its mean."""

SIZES = (20, 50, 200)
TAIL = 0.025
"""Nominal miss of each end of a 95 % interval."""


def always(value: float) -> tuple[Sampler, float]:
    return lambda rng, shape: np.full(shape, value), value


def between(low: float, high: float) -> tuple[Sampler, float]:
    return lambda rng, shape: rng.uniform(low, high, shape), (low + high) / 2


def beta(a: float, b: float) -> tuple[Sampler, float]:
    return lambda rng, shape: rng.beta(a, b, shape), a / (a + b)


def two_betas(a: float, b: float) -> tuple[Sampler, float]:
    """The difference of two scores that have nothing in common but their distribution."""
    return lambda rng, shape: rng.beta(a, b, shape) - rng.beta(a, b, shape), 0.0


def mixture(*parts: tuple[float, tuple[Sampler, float]]) -> tuple[Part, ...]:
    """Parts with their weights; what is missing to 1 is 0."""
    given = tuple((weight, *what) for weight, what in parts)
    return (*given, (1.0 - sum(weight for weight, *_ in given), *always(0.0)))


DROPS = {
    "no change": mixture(),
    "noise of .02": mixture((1.0, between(-0.02, 0.02))),
    "noise of .2": mixture((1.0, between(-0.2, 0.2))),
    "all lose .02 to .08": mixture((1.0, between(0.02, 0.08))),
    "half lose 0 to .1": mixture((0.5, between(0.0, 0.1))),
    "scores without relation": mixture((1.0, two_betas(8, 2))),
    "half lose .5, half gain .5": mixture((0.5, always(0.5)), (0.5, always(-0.5))),
    "2 % lose all": mixture((0.02, always(1.0))),
    "1 % lose all": mixture((0.01, always(1.0))),
    "1 % lose all, the rest noise of .02": mixture((0.01, always(1.0)), (0.99, between(-0.02, 0.02))),
    "1 % lose all, the rest gain 0 to .02": mixture((0.01, always(1.0)), (0.99, between(-0.02, 0.0))),
    "5 % lose all, the rest gain 0 to .1": mixture((0.05, always(1.0)), (0.95, between(-0.1, 0.0))),
    "5 % lose half": mixture((0.05, always(0.5))),
    "2 % lose 0 to 1": mixture((0.02, between(0.0, 1.0))),
    "2 % lose, 2 % gain 0 to 1": mixture((0.02, between(0.0, 1.0)), (0.02, between(-1.0, 0.0))),
    "1 % gain all": mixture((0.01, always(-1.0))),
    "1 % gain all, the rest noise of .02": mixture((0.01, always(-1.0)), (0.99, between(-0.02, 0.02))),
    "1 % gain all, the rest lose 0 to .02": mixture((0.01, always(-1.0)), (0.99, between(0.0, 0.02))),
    "5 % gain all, the rest lose 0 to .1": mixture((0.05, always(-1.0)), (0.95, between(0.0, 0.1))),
    "2 % gain 0 to 1": mixture((0.02, between(-1.0, 0.0))),
    "10 % lose all, the rest gain .1": mixture((0.1, always(1.0)), (0.9, always(-0.1))),
    "1 % gain all, the rest lose .02 to .04": mixture((0.01, always(-1.0)), (0.99, between(0.02, 0.04))),
    "1 % lose all, 20 % lose, 20 % gain .5": mixture((0.01, always(1.0)), (0.2, always(0.5)), (0.2, always(-0.5))),
    "2 % lose all, half gain .1": mixture((0.02, always(1.0)), (0.5, always(-0.1))),
    "3 % gain all, 30 % lose .3": mixture((0.03, always(-1.0)), (0.3, always(0.3))),
}

SCORES = {
    "all .9": mixture((1.0, always(0.9))),
    "beta(8, 2)": mixture((1.0, beta(8, 2))),
    "beta(.5, .5)": mixture((1.0, beta(0.5, 0.5))),
    "uniform": mixture((1.0, between(0.0, 1.0))),
    "98 % at 1, 2 % at 0": mixture((0.98, always(1.0))),
    "1 % at 0, the rest .9 to 1": mixture((0.99, between(0.9, 1.0))),
    "2 % at 1, the rest 0": mixture((0.02, always(1.0))),
    "5 % 0 to 1, the rest 0": mixture((0.05, between(0.0, 1.0))),
    "2 % at 0, the rest .98 to 1": mixture((0.98, between(0.98, 1.0))),
    "1 % at 1, the rest .5": mixture((0.01, always(1.0)), (0.99, always(0.5))),
    "a third each at 0, .5, 1": mixture((1 / 3, always(0.5)), (1 / 3, always(1.0))),
}


def mean_of(parts: tuple[Part, ...]) -> float:
    return sum(weight * mean for weight, _, mean in parts)


def draw(parts: tuple[Part, ...], rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    chosen = rng.choice(len(parts), size=shape, p=[max(0.0, weight) for weight, *_ in parts])
    return np.select([chosen == number for number in range(len(parts))], [part[1](rng, shape) for part in parts])


def sums_of(parts: tuple[Part, ...], rng: np.random.Generator, n: int, draws: int, copies: int = 1) -> SourceSums:
    """One group a draw: `n` sources with `copies` rows, all of which do the same in about half of the sources."""
    value = draw(parts, rng, (draws, n, copies))
    together = rng.random((draws, n, 1)) < 0.5
    value = np.where(together, value[:, :, :1], value)
    rows = np.arange(value.size)
    return sum_by_source(value.ravel(), rows // copies, list(rows.reshape(draws, -1)), binary=False)


def misses(interval: tuple[Floats, Floats], truth: float) -> tuple[float, float]:
    """How often the low end is above the truth, and the high end below it."""
    low, high = interval
    return float(np.mean(low > truth + 1e-12)), float(np.mean(high < truth - 1e-12))


def drops(draws: int, copies: int) -> None:
    rows, worst = [], []
    for name, parts in DROPS.items():
        truth = mean_of(parts)
        for n in SIZES:
            sums = sums_of(parts, np.random.default_rng(n), n, draws, copies)
            tango = drop_interval(replace(sums, binary=True))
            outer = drop_interval(sums)
            found = [misses(interval, truth) for interval in (tango, student_interval(sums), outer)]
            half = float(np.median(outer[1] - outer[0])) / 2
            rows.append([name, n, truth, *(rate for both in found for rate in both), half])
            worst.append([rate for both in found for rate in both])
    rows.append(["the worst of all", "", "", *map(float, np.max(worst, axis=0)), ""])
    columns = ("drops", "n", "mean", "Tango low", "high", "t low", "high", "outer low", "high", "half width")
    print_table(f"Drops, {copies} row(s) a source: how often does each end miss? ({TAIL} wanted)", columns, rows)


def scores(draws: int) -> None:
    rows, worst = [], []
    for name, parts in SCORES.items():
        truth = mean_of(parts)
        for n in SIZES:
            sums = sums_of(parts, np.random.default_rng(n), n, draws)
            intervals = (mean_interval(replace(sums, binary=True)), student_interval(sums), mean_interval(sums))
            found = [rate for interval in intervals for rate in misses(interval, truth)]
            rows.append([name, n, truth, *found])
            worst.append(found)
    rows.append(["the worst of all", "", "", *map(float, np.max(worst, axis=0))])
    columns = ("scores", "n", "mean", "Wilson low", "high", "t low", "high", "outer low", "high")
    print_table(f"Mean scores: how often does each end miss? ({TAIL} wanted)", columns, rows)


def tests(draws: int) -> None:
    """False alarms of both tests at .05: the drop is exactly the limit; the two models are exchangeable."""
    rows, worst = [], []
    for name, parts in DROPS.items():
        truth = mean_of(parts)
        for n in SIZES:
            rng = np.random.default_rng(n)
            sums = sums_of(parts, rng, n, draws)
            beyond = [float("nan")] * 2
            if truth >= 0:
                found = (exceedance_p_values(replace(sums, binary=b), truth) for b in (True, False))
                beyond = [float(np.mean(p <= 0.05)) for p in found]
            few = sums_of(parts, rng, n, draws // 10)
            swapped = few.total * rng.choice([-1.0, 1.0], size=few.n_sources)[few.source]
            p_values = [sign_flip_test(net, flips=1999) for net in np.split(swapped, few.first[1:])]
            rows.append([name, n, *beyond, float(np.mean(np.array(p_values) <= 0.05))])
            worst.append(rows[-1][2:])
    rows.append(["the worst of all", "", *map(float, np.nanmax(worst, axis=0))])
    columns = ("drops", "n", "exceedance, moments alone", "exceedance", "sign flips (a tenth of the draws)")
    print_table("False alarms of tests at .05", columns, rows)


def worst_group(repeats: int) -> None:
    """The cross-fitted lower bound of 70 groups with the same drop: above the truth in 5 % of cases at most."""
    rows = []
    for name, parts in DROPS.items():
        truth = mean_of(parts)
        found = []
        for n in (50, 200):
            rng = np.random.default_rng(n)
            alarms = [
                crossfit_drop(sums_of(parts, rng, n, 70), seed=repeat).lower_bound() > truth
                for repeat in range(repeats)
            ]
            found.append(float(np.mean(alarms)))
        rows.append([name, truth, *found])
    print_table("70 equal groups: how often is the cross-fitted lower bound above the truth? (.05 at most wanted)",
                ("drops", "mean", "n = 50", "n = 200"), rows)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the draws")
    draws = 400 if parser.parse_args().quick else 4000
    drops(draws, 1)
    drops(draws // 4, 5)
    scores(draws)
    tests(draws)
    worst_group(draws // 20)


if __name__ == "__main__":
    main()
