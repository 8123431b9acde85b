"""What a study stands on: how many combinations came out how, and how many cells have no say, and why."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from onnxptq.reports.study.phrases import NOT_JUDGED, counted, standing
from onnxptq.reports.study.summary import BROKEN, FAILED, PASSED, UNDECIDED, Summary, number
from onnxptq.sweeps.study import FAILED as CELL_FAILED
from onnxptq.sweeps.study import Study

_AXES = ("models", "calibrations", "strategies", "methods", "targets", "runtimes")
"""Of a plan, without the seeds: their product is the number of combinations."""


@dataclass(frozen=True)
class Tally:
    """Counts of a study. Each combination of the plan is in exactly one of the first six.

    Attributes:
        passed, failed, undecided, unjudged, broken: combinations; undecided ones have an estimate, unjudged ones none.
        waiting: combinations of the plan of which no cell has a result yet.
        cells: of the plan.
        failed_cells, unjudged_cells, missing_cells: of these, failed; done but without a group that is large enough;
            without a result yet.
    """

    passed: int
    failed: int
    undecided: int
    unjudged: int
    broken: int
    waiting: int
    cells: int
    failed_cells: int
    unjudged_cells: int
    missing_cells: int

    @property
    def combinations(self) -> int:
        """All of the plan."""
        return self.judged + self.unjudged + self.broken + self.waiting

    @property
    def judged(self) -> int:
        """Combinations with an estimate."""
        return self.passed + self.failed + self.undecided

    @property
    def open(self) -> int:
        """Combinations that are neither passed nor failed, for whatever reason."""
        return self.combinations - self.passed - self.failed

    @property
    def finished(self) -> bool:
        """Every cell of the plan has a result, be it that it failed."""
        return not self.missing_cells


def tally(summary: Summary) -> Tally:
    """Counts a study. A study whose plan is not complete is taken for a finished one."""
    cells = summary.study.cells
    found = Counter(NOT_JUDGED if standing(one) == NOT_JUDGED else one.verdict for one in summary.combinations)
    combinations = max(planned_combinations(summary.study) or 0, len(summary.combinations))
    waiting = combinations - len(summary.combinations)
    failed = sum(cell.status == CELL_FAILED for cell in cells)
    seeds = summary.study.plan.get("seeds")
    missing = sum(one.missing for one in summary.combinations) + waiting * len(seeds if isinstance(seeds, list) else ())
    return Tally(
        passed=found[PASSED],
        failed=found[FAILED],
        undecided=found[UNDECIDED],
        unjudged=found[NOT_JUDGED],
        broken=found[BROKEN],
        waiting=waiting,
        cells=len(cells) + missing,
        failed_cells=failed,
        unjudged_cells=sum(number(cell, "crossfit_drop") is None for cell in cells) - failed,
        missing_cells=missing,
    )


def planned_combinations(study: Study) -> int | None:
    """Combinations of the whole grid; None where the plan does not say."""
    if not all(isinstance(study.plan.get(name), list) for name in _AXES):
        return None
    return math.prod(len(study.plan[name]) for name in _AXES)


def headline(found: Tally) -> str:
    """ "Of 24 combinations: 13 passed, 6 failed, 5 undecided." """
    parts = [f"{found.passed or 'none'} passed", f"{found.failed or 'none'} failed"]
    rest = {"undecided": found.undecided, NOT_JUDGED: found.unjudged, "broken": found.broken}
    parts += [f"{count} {word}" for word, count in {**rest, "without a result yet": found.waiting}.items() if count]
    return f"Of {counted(found.combinations, 'combination')}: {', '.join(parts)}."


def why_nothing_judged(summary: Summary, found: Tally) -> str:
    """Why no combination has an estimate; each reason with the number of its cells.

    | failed | too small | missing | the sentence |
    |---|---|---|---|
    | all | | | every cell failed |
    | | all | | no group has enough samples |
    | some | some | some | each by its count |
    """
    if found.failed_cells == found.cells:
        return "Nothing was judged: every cell failed."
    small = f"no group has enough original samples ({_sizes(summary)})"
    if found.unjudged_cells == found.cells:
        return f"Nothing was judged: {small}, so nothing can pass."
    reasons = []
    if found.failed_cells:
        reasons.append(f"{found.failed_cells} of {found.cells} cells failed")
    if found.unjudged_cells:
        reasons.append(f"in {found.unjudged_cells} of {found.cells} cells {small}")
    if found.missing_cells:
        reasons.append(f"{found.missing_cells} of {found.cells} cells have no result yet")
    return f"Nothing was judged: {'; '.join(reasons)}."


def _sizes(summary: Summary) -> str:
    """ "the largest has 90, and it takes 100000" """
    report = next((cell.figures for cell in summary.study.cells if cell.report), None)
    largest = max((group.sources for group in report.groups), default=0) if report else 0
    least = report.minimum_samples if report else 0
    return f"the largest has {largest}" + (f", and it takes {least}" if least else "")
