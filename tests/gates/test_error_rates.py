"""How often the default policy errs, on thousands of simulated data sets (docs/check.md has the whole table)."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.rules import judge
from onnxptq.gates.verdict import overall

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def gate() -> ModuleType:
    if not BENCHMARKS.is_dir():
        pytest.skip("an installation has no benchmarks")
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("gate")
    finally:
        sys.path.remove(str(BENCHMARKS))


def test_the_simulation_judges_as_the_check_does(gate: ModuleType) -> None:
    rng = np.random.default_rng(0)
    for groups, n, flips, drop in ((2, 50, 0.02, 0.0), (3, 100, 0.1, 0.25), (10, 60, 0.02, 0.1), (10, 200, 0.02, 0.0)):
        draws = gate.draw(rng, 4, n, gate.bad(groups, drop), flips)
        codes = gate.verdicts(draws, rng)[1]
        found = [overall(judge(gate.POLICY, Evidence(pairing=gate.as_rows(draws, number)))) for number in range(4)]
        assert sum(gate.CODES[one] == code for one, code in zip(found, codes.tolist(), strict=True)) >= 3


@pytest.mark.parametrize(("groups", "n", "flips"), [(2, 50, 0.4), (3, 100, 0.4), (10, 100, 0.02)])
def test_a_policy_fails_models_that_keep_its_limits_at_most_once_in_twenty(
    gate: ModuleType, groups: int, n: int, flips: float
) -> None:
    rng = np.random.default_rng(1)
    limit = gate.POLICY.average_drop.limit
    for drops in (np.zeros(groups), np.full(groups, limit)):
        before, after = gate.verdicts(gate.draw(rng, 2000, n, drops, flips), rng)
        assert gate.share(after, gate.FAILED) <= 0.05
        assert gate.share(after, gate.FAILED) <= gate.share(before, gate.FAILED)


@pytest.mark.parametrize(("groups", "n"), [(2, 50), (10, 50), (70, 100)])
def test_a_group_that_loses_ten_points_passes_at_most_once_in_twenty(gate: ModuleType, groups: int, n: int) -> None:
    rng = np.random.default_rng(2)
    before, after = gate.verdicts(gate.draw(rng, 1000, n, gate.bad(groups, 0.10), 0.02), rng)
    assert gate.share(after, gate.PASSED) <= 0.07  # .05, and what a thousand repeats leave open
    assert gate.share(before, gate.PASSED) > 0.3


def test_a_healthy_model_mostly_passes_with_a_hundred_samples_a_group(gate: ModuleType) -> None:
    rng = np.random.default_rng(3)
    for groups in (3, 10, 70):
        after = gate.verdicts(gate.draw(rng, 500, 100, np.zeros(groups), 0.02), rng)[1]
        assert gate.share(after, gate.PASSED) > 0.85
