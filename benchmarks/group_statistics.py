"""How often the statistics of groups err: bias, coverage, false alarms, power. Prints the tables of docs/statistics.md.

    python benchmarks/group_statistics.py [--quick]

Every table is simulated with a fixed seed, so two runs print the same. 70 groups; a group loses and gains half the flip
rate each, 2 % of rows in all unless the table says otherwise; "one bad group" loses its drop on top.

Two designs: "plain" has one row a source and disjoint groups; "crossed" has 10 classes under 7 corruptions, n sources a
class, so that a source lies in 7 groups, and in half of the sources all 7 rows flip together or not at all.
(The file is not called statistics.py: scripts in this folder would then import it in place of Python's own module.)
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that a checkout needs no installation

from onnxptq.evaluation.statistics import (
    SourceSums,
    bootstrap_means,
    crossfit_drop,
    cvar_drop,
    drop_interval,
    equality_p_values,
    exceedance_p_values,
    holm,
    mean_interval,
    percentile_interval,
    sum_by_source,
    wilson_interval,
    worst_count,
)

Floats = npt.NDArray[np.float64]
Design = Callable[[np.random.Generator, int, Floats, float], SourceSums]

CLASSES, CORRUPTIONS = 10, 7
GROUPS = CLASSES * CORRUPTIONS
ALPHA = 0.05
FLIPS = 0.02
SHARED = 0.5
"""Share of sources whose rows all flip together, in the crossed design."""


def plain(rng: np.random.Generator, n: int, drops: Floats, flips: float = FLIPS) -> SourceSums:
    value = outcomes(rng.random((GROUPS, n)), drops[:, None], flips)
    rows = np.arange(value.size).reshape(GROUPS, n)
    return sum_by_source(value.ravel(), rows.ravel(), list(rows))


def crossed(rng: np.random.Generator, n: int, drops: Floats, flips: float = FLIPS) -> SourceSums:
    value = outcomes(
        shared_luck(rng, CLASSES * n, CORRUPTIONS).reshape(CLASSES, n, CORRUPTIONS), by_class(drops), flips
    )
    rows = np.arange(value.size).reshape(CLASSES, n, CORRUPTIONS)
    groups = [rows[label, :, corruption] for label in range(CLASSES) for corruption in range(CORRUPTIONS)]
    return sum_by_source(value.ravel(), rows.ravel() // CORRUPTIONS, groups)


def by_class(drops: Floats) -> Floats:
    return drops.reshape(CLASSES, 1, CORRUPTIONS)


def shared_luck(rng: np.random.Generator, sources: int, copies: int) -> Floats:
    """Uniform numbers, (sources, copies); the copies of about half of the sources are equal."""
    together = rng.random((sources, 1)) < SHARED
    return np.where(together, rng.random((sources, 1)), rng.random((sources, copies)))


def outcomes(luck: Floats, drops: Floats, flips: float) -> Floats:
    """1 lost, -1 gained, 0 the same."""
    return (luck < drops + flips / 2).astype(np.float64) - (luck >= 1 - flips / 2)


def one_bad(drop: float) -> Floats:
    return np.concatenate([[drop], np.zeros(GROUPS - 1)])


def print_table(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    print(f"\n## {title}\n\n| {' | '.join(columns)} |")
    print(f"|{'---|' * len(list(columns))}")
    for row in rows:
        print(f"| {' | '.join(f'{cell:.3f}' if isinstance(cell, float) else str(cell) for cell in row)} |", flush=True)


def equal_models(repeats: int) -> None:
    rows = []
    for design in (plain, crossed):
        for n in (50, 100, 200, 500):
            rng = np.random.default_rng(n)
            seen = []
            for repeat in range(repeats):
                sums = design(rng, n, np.zeros(GROUPS), FLIPS)
                fitted = crossfit_drop(sums, seed=repeat)
                tail = crossfit_drop(sums, worst=worst_count(GROUPS), seed=repeat)
                seen.append((sums.group_means.max(), cvar_drop(sums.group_means), fitted.value, tail.value))
            means, spread = np.mean(seen, axis=0), np.std(seen, axis=0)
            rows.append([design.__name__, n, *map(float, means), float(spread[2])])
    columns = ("design", "n", "largest drop", "CVaR10", "cross-fitted", "cross-fitted CVaR10", "sd of cross-fitted")
    print_table("Equal models: what is the mean of each metric? (truth: 0)", columns, rows)


def swapped_models(repeats: int) -> None:
    rows = []
    for design in (plain, crossed):
        for n, flips in ((200, 0.003), (200, FLIPS), (200, 0.10), (50, FLIPS)):
            rng = np.random.default_rng(11)
            value = design(rng, n, np.linspace(0.0, 0.05, GROUPS), flips)
            alarms = [decide(swap(value, rng), repeat, (0.0, 0.02)) for repeat in range(repeats)]
            rows.append([design.__name__, n, flips, *map(float, np.mean(alarms, axis=0))])
    columns = ("design", "n", "flips", *decisions((0.0, 0.02)))
    print_table("Outcomes swapped at random per source: false alarms (at most 0.05 wanted)", columns, rows)


def swap(sums: SourceSums, rng: np.random.Generator) -> SourceSums:
    """Exchanges the outcomes of the two models for about half of the sources: equal in truth, not identical."""
    sign = rng.choice([-1.0, 1.0], size=sums.n_sources)
    fields = {**vars(sums), "total": sums.total * sign[sums.source], "all_total": sums.all_total * sign}
    return SourceSums(**fields)


def decisions(limits: tuple[float, ...]) -> list[str]:
    return ["McNemar + Holm", *(f"{rule} > {limit}" for limit in limits for rule in ("cross-fitted", "Holm"))]


def decide(sums: SourceSums, seed: int, limits: tuple[float, ...]) -> list[bool]:
    """Does each rule raise an alarm? McNemar with Holm; then per limit the cross-fitted lower bound and Holm."""
    lower = crossfit_drop(sums, seed=seed).lower_bound(1 - ALPHA)
    verdicts = [bool(holm(equality_p_values(sums)).min() < ALPHA)]
    for limit in limits:
        verdicts += [lower > limit, bool(holm(exceedance_p_values(sums, limit)).min() < ALPHA)]
    return verdicts


def power(repeats: int) -> None:
    limits = (0.0, 0.02, 0.05)
    for design in (plain, crossed):
        rows = []
        for drop in (0.03, 0.05, 0.10, 0.15):
            for n in (50, 100, 200, 500):
                rng = np.random.default_rng(n)
                sums = (design(rng, n, one_bad(drop), FLIPS) for _ in range(repeats))
                found = [decide(each, repeat, limits) for repeat, each in enumerate(sums)]
                rows.append([drop, n, *map(float, np.mean(found, axis=0))])
        columns = ("drop", "n", *decisions(limits))
        print_table(f"One bad group of 70, {design.__name__}: how often is it found?", columns, rows)


def bounds(repeats: int) -> None:
    rows = []
    truths = {"none bad": np.zeros(GROUPS), "one bad": one_bad(0.10), "spread 0 to .10": np.linspace(0.0, 0.10, GROUPS)}
    for design in (plain, crossed):
        for name, drops in truths.items():
            rng = np.random.default_rng(5)
            missed = []
            for repeat in range(repeats):
                sums = design(rng, 200, drops, FLIPS)
                fitted = crossfit_drop(sums, seed=repeat)
                low, high = fitted.interval(1 - 2 * ALPHA)
                chosen = float(fitted.chosen @ drops)
                upper = drop_interval(sums, 1 - 2 * ALPHA)[1].max()
                missed.append((fitted.value, low > drops.max(), high < chosen, high < drops.max(), upper < drops.max()))
            rows.append([design.__name__, name, float(drops.max()), *map(float, np.mean(missed, axis=0))])
    columns = (
        "design", "groups", "truth", "cross-fitted", "lower bound above the worst", "upper bound below those chosen",
        "upper bound below the worst", "largest upper bound below the worst",
    )  # fmt: skip
    print_table("Bounds of the worst group's drop, 95 % one-sided, n = 200: how often do they miss?", columns, rows)


def cvar_bounds(repeats: int, replicates: int) -> None:
    rows = []
    count = worst_count(GROUPS)
    for design in (plain, crossed):
        for drops in (np.zeros(GROUPS), one_bad(0.15), np.linspace(0.0, 0.10, GROUPS)):
            truth = float(np.sort(drops)[-count:].mean())
            rng = np.random.default_rng(9)
            seen = []
            for repeat in range(repeats):
                sums = design(rng, 100, drops, FLIPS)
                value = cvar_drop(sums.group_means)
                resampled = np.array([cvar_drop(g) for g in bootstrap_means(sums, replicates, repeat).groups])
                low, high = percentile_interval(resampled, 1 - 2 * ALPHA)
                fitted = crossfit_drop(sums, worst=count, seed=repeat)
                misses = (low > truth, 2 * value - high > truth, fitted.lower_bound() > truth, high < truth)
                seen.append((value, fitted.value, *misses))
            rows.append([design.__name__, truth, *map(float, np.mean(seen, axis=0))])
    columns = (
        "design", "truth", "CVaR10", "cross-fitted CVaR10", "percentile lower", "basic lower", "cross-fitted lower",
        "percentile upper",
    )  # fmt: skip
    print_table("CVaR10, n = 100: values, and how often do 95 % one-sided bounds miss?", columns, rows)


def coverage(repeats: int, replicates: int) -> None:
    rows = []
    for copies in (1, 7):
        for n in (20, 50, 200):
            for drop in (0.0, 0.05):
                rng = np.random.default_rng(copies * n)
                drops = np.full((GROUPS, 1, 1), drop)
                hit = []
                for repeat in range(repeats):
                    luck = np.stack([shared_luck(rng, n, copies) for _ in range(GROUPS)])
                    value = outcomes(luck, drops, FLIPS)
                    row = np.arange(value.size)
                    sums = sum_by_source(value.ravel(), row // copies, list(row.reshape(GROUPS, -1)))
                    lost = sum_by_source(value.ravel() > 0, row // copies, list(row.reshape(GROUPS, -1)))
                    hit.append(covered(sums, lost, drop, drop + FLIPS / 2, replicates, repeat))
                rows.append([copies, n, drop, *map(float, np.mean(hit, axis=0))])
    columns = ("copies", "sources", "drop", "bootstrap", "Tango", "Wilson by rows", "Wilson by source")
    print_table("Intervals of one group: coverage (0.95 wanted)", columns, rows)


def covered(drops: SourceSums, lost: SourceSums, drop: float, rate: float, replicates: int, seed: int) -> list[float]:
    """The share of groups whose intervals hold the truth: two of the drop, two of the rate of losses."""
    intervals = [
        (drop, percentile_interval(bootstrap_means(drops, replicates, seed).groups)),
        (drop, drop_interval(drops)),
        (rate, wilson_interval(lost.by_group(lost.total), lost.group_rows)),
        (rate, mean_interval(lost)),
    ]
    return [float(np.mean((low <= truth + 1e-12) & (truth - 1e-12 <= high))) for truth, (low, high) in intervals]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repeats")
    quick = parser.parse_args().quick
    repeats = 20 if quick else 200
    print(f"{repeats} repeats; a share of 0.05 is then known within {2 * (0.05 * 0.95 / repeats) ** 0.5:.3f}.")
    equal_models(repeats)
    swapped_models(repeats)
    bounds(repeats)
    cvar_bounds(repeats // 2, 200)
    coverage(max(2, repeats // 10), 400)
    power(repeats)


if __name__ == "__main__":
    main()
