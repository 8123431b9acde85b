"""How often the default policy of `onnxptq check` errs: false alarms and power. Prints the tables of docs/check.md.

    python benchmarks/gate.py [--quick]

False alarms: FP32 and INT8 outcomes are swapped at random per source, so that the two are equal in truth but not
identical; real flips are kept. Of real models (the built-in one; with ONNXPTQ_SHARED set, CIFAR-10 too) and simulated
ones. Power: one of 70 groups loses so many points. What is asked is the verdict of the whole policy, FAILED or not.

Fixed seeds: two runs print the same. Designs as in benchmarks/group_statistics.py.
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

from group_statistics import CLASSES, CORRUPTIONS, FLIPS, GROUPS, by_class, one_bad, outcomes, print_table, shared_luck

from onnxptq.evaluation.measures import ACCURACY
from onnxptq.evaluation.paired import GroupLayout, Paired, paired
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import default_policy
from onnxptq.gates.rules import judge
from onnxptq.gates.verdict import Verdict, overall

POLICY = default_policy(labelled=True)
RULES = ("verdict", "average_drop", "worst_group_drop")


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


def failed(rows: Paired) -> list[bool]:
    """Whether the verdict, and each rule, is FAILED."""
    results = judge(POLICY, Evidence(pairing=rows))
    verdicts = {result.rule: result.verdict for result in results} | {"verdict": overall(results)}
    return [verdicts[rule] is Verdict.FAILED for rule in RULES]


def false_alarms(repeats: int) -> None:
    rows = []
    for name, real in real_models():
        rng = np.random.default_rng(7)
        alarms = [failed(swapped(real, rng)) for _ in range(repeats)]
        rows.append([name, f"{len(real)}", float(real.changed.mean()), *map(float, np.mean(alarms, axis=0))])
    for design in (plain, crossed):
        for n, flips in ((200, 0.003), (200, FLIPS), (200, 0.10), (50, FLIPS), (500, 0.10)):
            rng = np.random.default_rng(11)
            real = design(rng, n, np.linspace(0.0, 0.05, GROUPS), flips)
            alarms = [failed(swapped(real, rng)) for _ in range(repeats)]
            name = f"simulated, {design.__name__}, n={n}"
            rows.append([name, f"{len(real)}", float(real.changed.mean()), *map(float, np.mean(alarms, axis=0))])
    print_table("False alarms: outcomes swapped per source", ("models", "rows", "flips", *RULES), rows)


def power(repeats: int) -> None:
    rows = []
    for drop in (0.03, 0.05, 0.10, 0.15):
        for n in (50, 100, 200, 500):
            found = []
            for design in (plain, crossed):
                rng = np.random.default_rng(n)
                hits = [failed(design(rng, n, one_bad(drop), FLIPS))[0] for _ in range(repeats)]
                found.append(float(np.mean(hits)))
            rows.append([drop, n, *found])
    print_table("Power: one bad group of 70, how often is it found?", ("drop", "n", "plain", "crossed"), rows)


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
    repeats = 20 if parser.parse_args().quick else 200
    print(f"{repeats} repeats; a share of 0.05 is then known within {2 * (0.05 * 0.95 / repeats) ** 0.5:.3f}.")
    false_alarms(repeats)
    power(repeats)


if __name__ == "__main__":
    main()
