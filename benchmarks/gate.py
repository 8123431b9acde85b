"""How often the default policy of `onnxptq check` errs: false alarms, power, wrong passes. The tables of docs/check.md.

    python benchmarks/gate.py [--quick] [--real]

Simulated designs (benchmarks/gate_batch.py) before and after: "before", each rule was a test at 95 % and what did not
fail passed. How often the verdict is the same on fresh data, and whether the number of samples that an undecided check
asks for decides. With --real, false alarms on real models: FP32 and INT8 outcomes are swapped at random per source, so
that the two are equal in truth but not identical (the built-in model; with ONNXPTQ_SHARED set, CIFAR-10 too).

Fixed seeds: two runs print the same.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # so that a checkout needs no installation

from gate_batch import FAILED, PASSED, POLICY, UNDECIDED, Draws, draw, verdicts
from group_statistics import CLASSES, CORRUPTIONS, FLIPS, GROUPS, by_class, one_bad, outcomes, print_table, shared_luck

from onnxptq.evaluation.measures import ACCURACY
from onnxptq.evaluation.paired import GroupLayout, Paired, paired
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.rules import judge
from onnxptq.gates.verdict import Verdict, overall

DESIGNS = (
    (2, 50, 0.02), (2, 50, 0.1), (2, 50, 0.4), (2, 100, 0.02), (2, 100, 0.4),
    (3, 100, 0.02), (3, 100, 0.1), (3, 100, 0.4), (3, 200, 0.02), (3, 200, 0.4),
    (10, 50, 0.02), (10, 100, 0.02), (10, 100, 0.1), (10, 100, 0.4), (10, 200, 0.02),
    (70, 50, 0.02), (70, 100, 0.02), (70, 100, 0.1), (70, 200, 0.02), (70, 500, 0.02),
)  # fmt: skip
"""Groups, sources of each, share of predictions that flip in a healthy model."""

DROPS = (0.03, 0.05, 0.10, 0.15)
CODES = {Verdict.FAILED: FAILED, Verdict.UNDECIDED: UNDECIDED, Verdict.PASSED: PASSED}


def bad(groups: int, drop: float) -> np.ndarray:
    """The first of so many groups loses so much."""
    return np.concatenate([[drop], np.zeros(groups - 1)])


def simulated(repeats: int) -> None:
    """The tables of 20 designs."""
    alarms, power, passes, again = [], [], [], []
    for groups, n, flips in DESIGNS:
        name = [groups, n, flips]
        rng = np.random.default_rng((groups, n, round(1000 * flips)))
        healthy = verdicts(draw(rng, repeats, n, np.zeros(groups), flips), rng)
        at_limit = verdicts(draw(rng, repeats, n, np.full(groups, POLICY.average_drop.limit), flips), rng)
        harmed = {drop: verdicts(draw(rng, repeats, n, bad(groups, drop), flips), rng) for drop in DROPS}
        alarms.append([*name, *(share(one, FAILED) for both in (healthy, at_limit) for one in both)])
        power.append([*name, *(share(one, FAILED) for drop in (0.03, 0.10, 0.15) for one in harmed[drop])])
        wrong = [share(one, PASSED) for drop in (0.10, 0.15) for one in harmed[drop]]
        passes.append([*name, share(healthy[1], UNDECIDED), *wrong, share(harmed[0.10][1], UNDECIDED)])
        again.append([*name, *(same(both[1]) for both in (healthy, *(harmed[drop] for drop in (0.05, 0.10, 0.15))))])
    head = ("groups", "n", "flips")
    columns = ("equal: before", "after", "all lose 1 point: before", "after")
    print_table("False alarms: verdict FAILED on models that keep the limits", (*head, *columns), alarms)
    columns = [f"{100 * drop:.0f} points: {when}" for drop in (0.03, 0.10, 0.15) for when in ("before", "after")]
    print_table("Power: one group loses so much, verdict FAILED", (*head, *columns), power)
    columns = ["healthy: UNDECIDED"]
    columns += [f"{drop} points: PASSED {when}" for drop in (10, 15) for when in ("before", "after")]
    print_table("Passes", (*head, *columns, "10 points: UNDECIDED"), passes)
    columns = ("healthy", "5 points", "10 points", "15 points")
    print_table("The same verdict on fresh data", (*head, *columns), again)


def share(codes: np.ndarray, code: int) -> float:
    return float((codes == code).mean())


def same(codes: np.ndarray) -> float:
    """How often two data sets of one design get one verdict."""
    half = len(codes) // 2
    return float((codes[:half] == codes[half : 2 * half]).mean())


def enough(repeats: int) -> None:
    """Whether the number of samples that an undecided check asks for decides."""
    rows = []
    for groups, n, flips in DESIGNS:
        rng = np.random.default_rng(n)
        draws, asked = draw(rng, 60, n, np.zeros(groups), flips), []
        for number in range(60):
            results = judge(POLICY, Evidence(pairing=as_rows(draws, number)))
            if overall(results) is not Verdict.UNDECIDED:
                continue
            # The average is asked for in all, the worst group in each.
            needs = [(one.rule, one.samples_to_decide) for one in results if one.verdict is Verdict.UNDECIDED]
            each = [
                samples if rule == "worst_group_drop" else -(-samples // groups) for rule, samples in needs if samples
            ]
            asked += [max(each)] if len(each) == len(needs) else []
            if len(asked) == 10:
                break
        if asked:
            chosen = int(np.median(asked))
            codes = verdicts(draw(rng, repeats, chosen, np.zeros(groups), flips), rng)[1]
            rows.append([groups, n, flips, chosen, 1 - share(codes, UNDECIDED)])
    columns = ("groups", "n", "flips", "asked for, of each group (median of up to 10)", "decided there")
    print_table("Healthy models that are undecided: is what is asked for enough?", columns, rows)


def agreement() -> None:
    """Counts in how many draws the batch and the check give one verdict."""
    equal = total = 0
    for groups, n, flips in DESIGNS:
        rng = np.random.default_rng(n)
        for drop in (0.0, 0.10):
            draws = draw(rng, 3, n, bad(groups, drop), flips)
            codes = verdicts(draws, rng)[1]
            for number, code in enumerate(codes.tolist()):
                results = judge(POLICY, Evidence(pairing=as_rows(draws, number)))
                equal += CODES[overall(results)] == code
                total += 1
    print(f"\nThe batch and onnxptq.gates.rules.judge give the same verdict in {equal} of {total} draws.")


def as_rows(draws: Draws, number: int) -> Paired:
    """One data set as the check sees it."""
    lost = np.zeros((draws.losses.shape[1], draws.n))
    position = np.arange(draws.n)
    losses, gains = draws.losses[number][:, None], draws.gains[number][:, None]
    lost[position < losses] = 1.0
    lost[(position >= losses) & (position < losses + gains)] = -1.0
    rows = np.arange(lost.size)
    return pairing(lost.ravel(), rows, list(rows.reshape(lost.shape)))


def plain(rng: np.random.Generator, n: int, drops: np.ndarray, flips: float) -> Paired:
    """Disjoint groups, each source once."""
    value = outcomes(rng.random((GROUPS, n)), drops[:, None], flips)
    rows = np.arange(value.size).reshape(GROUPS, n)
    return pairing(value.ravel(), rows.ravel(), list(rows))


def crossed(rng: np.random.Generator, n: int, drops: np.ndarray, flips: float) -> Paired:
    """10 classes under 7 corruptions: each source in 7 groups, in half of the sources all rows alike."""
    luck = shared_luck(rng, CLASSES * n, CORRUPTIONS).reshape(CLASSES, n, CORRUPTIONS)
    value = outcomes(luck, by_class(drops), flips)
    rows = np.arange(value.size).reshape(CLASSES, n, CORRUPTIONS)
    groups = [rows[label, :, corruption] for label in range(CLASSES) for corruption in range(CORRUPTIONS)]
    return pairing(value.ravel(), rows.ravel() // CORRUPTIONS, groups)


def pairing(lost: np.ndarray, sources: np.ndarray, members: list[np.ndarray]) -> Paired:
    names = tuple(f"group={number:02d}" for number in range(len(members)))
    after = (lost <= 0) * 1.0
    return Paired(after + lost, after, np.abs(lost), ACCURACY, GroupLayout(names, tuple(members), sources, {}))


def swapped(real: Paired, rng: np.random.Generator) -> Paired:
    """The two models exchange their outcomes on about half of the sources."""
    swap = rng.random(real.sources.max() + 1) < 0.5
    swapping = swap[real.sources]
    before, after = real.before, real.after
    return replace(real, before=np.where(swapping, after, before), after=np.where(swapping, before, after))


def verdict(rows: Paired) -> list[bool]:
    """Whether the verdict of the check itself is FAILED, UNDECIDED, PASSED."""
    found = overall(judge(POLICY, Evidence(pairing=rows)))
    return [found is one for one in (Verdict.FAILED, Verdict.UNDECIDED, Verdict.PASSED)]


def whole_check(repeats: int, *, real: bool) -> None:
    """The check itself, where sources lie in several groups or come from real models."""
    rows = []
    for name, found in real_models() if real else ():
        rng = np.random.default_rng(7)
        seen = [verdict(swapped(found, rng)) for _ in range(repeats)]
        rows.append([name, f"{len(found)}", float(found.changed.mean()), *map(float, np.mean(seen, axis=0))])
    for design in (plain, crossed):
        for n, flips in ((50, FLIPS), (100, FLIPS), (200, 0.003), (200, FLIPS), (200, 0.10)):
            rng = np.random.default_rng(11)
            found = design(rng, n, np.linspace(0.0, 0.05, GROUPS), flips)
            seen = [verdict(swapped(found, rng)) for _ in range(repeats)]
            name = f"simulated, {design.__name__}, n={n}"
            rows.append([name, f"{len(found)}", float(found.changed.mean()), *map(float, np.mean(seen, axis=0))])
    columns = ("models", "rows", "flips", "FAILED", "UNDECIDED", "PASSED")
    print_table("Equal models: outcomes swapped per source", columns, rows)
    rows = []
    for drop in (0.05, 0.10, 0.15):
        for n in (100, 200):
            rng = np.random.default_rng(n)
            seen = [verdict(crossed(rng, n, one_bad(drop), FLIPS)) for _ in range(repeats)]
            rows.append([drop, n, *map(float, np.mean(seen, axis=0))])
    print_table("Crossed design: one bad group of 70", ("drop", "n", "FAILED", "UNDECIDED", "PASSED"), rows)


def real_models() -> list[tuple[str, Paired]]:
    """FP32 against INT8, calibrated on clean and on dark, on every sample under every default corruption."""
    import onnxptq

    found = []
    with tempfile.TemporaryDirectory() as folder:
        for calib in ("clean", "dark@3"):
            output = Path(folder) / f"{calib}.onnx"
            runs = onnxptq.quantize(calib=calib, output=output).predictions
            found.append((f"digits, INT8 from {calib}", paired(runs[0], runs[1])))
        for name in ("cifar10_resnet20", "cifar10_mobilenet") if os.environ.get("ONNXPTQ_SHARED") else ():
            shared = Path(os.environ["ONNXPTQ_SHARED"])
            for calib in ("clean", "dark@3"):
                runs = onnxptq.quantize(
                    shared / "models" / f"{name}.onnx",
                    data=str(shared / "data" / "cifar10"),
                    calib=calib,
                    output=Path(folder) / f"{name}.{calib}.onnx",
                ).predictions
                found.append((f"{name}, INT8 from {calib}", paired(runs[0], runs[1])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the repeats")
    parser.add_argument("--real", action="store_true", help="real models too")
    arguments = parser.parse_args()
    repeats, few = (400, 20) if arguments.quick else (4000, 100)
    print(f"{repeats} repeats of each simulated design; a share of .05 is then known within "
          f"{2 * (0.05 * 0.95 / repeats) ** 0.5:.3f}.")  # fmt: skip
    simulated(repeats)
    enough(repeats)
    agreement()
    whole_check(few, real=arguments.real)


if __name__ == "__main__":
    main()
