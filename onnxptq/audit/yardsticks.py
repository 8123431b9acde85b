"""What the inputs of a set are held against beside its own samples and copies: without any, a whole set may be shifted.

An image has exact bounds that most sets reach, and so has an integer type. Of other inputs bounds say what may come at
all, and sound sets seldom reach them. The training data's mean and deviation, in the specification or in a normalizer
of the graph, tell a set that is shifted as a whole; so do samples to judge on (`--eval-data`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from onnxptq.audit.clipping import Interval, covered
from onnxptq.calibrators import CalibrationSamples
from onnxptq.data.shifts import InputFacts
from onnxptq.tasks import Task

MEAN_LIMIT = {"table": 2.0}
"""Deviations that the mean of a set, of a table that of a column, may lie away from the training data's. A set of a
single class moves columns of tables by about one."""
OTHER_MEAN_LIMIT = 1.0

DEVIATION_LIMIT = {"table": 3.0}
"""Ratio of the deviations, either way; of a table, of half of its columns, since heavy tails and rare events vary."""
OTHER_DEVIATION_LIMIT = 1.7

REACHED = 0.8
"""Share of the bounds of an input that is no image from which they are a yardstick that the set stood."""

FAR = 0.5
"""Share of such bounds below which the set is dangerous."""


@dataclass(frozen=True)
class MovedInput:
    """An input whose numbers are not distributed as the training data's were.

    Attributes:
        input: its name.
        mean: how far its mean lies away, in the training data's deviations: of a table that of the worst column.
        deviation: its deviation over the training data's: of a table the median over the columns.
        column: the worst column, or None where all numbers count together.
    """

    input: str
    mean: float
    deviation: float
    column: int | None


def exact_bounds(task: Task) -> bool:
    """Whether the bounds of inputs are such as sound sets reach: of images and recordings, of integers."""
    facts = task.input_facts().values()
    integers = bool(facts) and all(known.bounds is not None and _integral(known.bounds) for known in facts)
    return task.modality in ("image", "audio") or integers


def needing_yardsticks(task: Task) -> tuple[str, ...]:
    """The inputs of which neither exact bounds nor the training data's moments are known, of float tensor tasks."""
    if exact_bounds(task):
        return ()
    whole = (-np.inf, np.inf)
    return tuple(
        name
        for name, known in task.input_facts().items()
        if not known.standard and not _integral(known.bounds or whole)
    )


def reached(observed: Mapping[str, Interval], bounds: Mapping[str, Interval], name: str) -> bool:
    """Whether the set reaches so much of an input's bounds that it stood them."""
    return name in bounds and name in observed and covered(observed[name], bounds[name]) >= REACHED


def moved_inputs(task: Task, drawn: CalibrationSamples) -> tuple[MovedInput, ...]:
    """The inputs whose mean or deviation over the drawn samples is beyond the limits."""
    facts = {name: known for name, known in task.input_facts().items() if known.standard}
    if not facts:
        return ()
    sums = {name: _Sums() for name in facts}
    for batch in drawn.batches():
        for name, known in facts.items():
            sums[name].add(np.asarray(batch[name][0], np.float64), known)
    found = (_moved(name, known, sums[name]) for name, known in facts.items())
    return tuple(one for one in found if one is not None)


@dataclass
class _Sums:
    """Of standardized numbers, by column of a table and else over all."""

    count: int = 0
    first: npt.NDArray[np.float64] | float = 0.0
    second: npt.NDArray[np.float64] | float = 0.0

    def add(self, sample: npt.NDArray[np.float64], known: InputFacts) -> None:
        unit = (sample - known.mean) / known.deviation
        if known.kind == "table":
            unit = unit.reshape(-1)
            self.count, self.first, self.second = self.count + 1, self.first + unit, self.second + unit**2
        else:
            self.count += unit.size
            self.first, self.second = self.first + unit.sum(), self.second + (unit**2).sum()


def _moved(name: str, known: InputFacts, sums: _Sums) -> MovedInput | None:
    mean = np.atleast_1d(np.asarray(sums.first) / sums.count)
    deviation = np.sqrt(np.maximum(np.atleast_1d(np.asarray(sums.second) / sums.count) - mean**2, 0.0))
    worst = int(np.argmax(np.abs(mean)))
    ratio = float(np.median(deviation))
    limit = DEVIATION_LIMIT.get(known.kind, OTHER_DEVIATION_LIMIT)
    if abs(mean[worst]) <= MEAN_LIMIT.get(known.kind, OTHER_MEAN_LIMIT) and 1 / limit <= ratio <= limit:
        return None
    return MovedInput(name, float(mean[worst]), ratio, worst if len(mean) > 1 else None)


def _integral(bounds: Interval) -> bool:
    """Bounds of a type, which hold whatever comes."""
    return bounds in ((0.0, 1.0), (0.0, 255.0), (-128.0, 127.0))
