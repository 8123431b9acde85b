"""Which predictions a range of the model's output takes away: those whose best classes are both cut off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.audit.clipping import Interval
from onnxptq.audit.probe import ProbePart
from onnxptq.evaluation.sample_runner import SampleRunner, join
from onnxptq.graphs import Model
from onnxptq.runtimes import open_session
from onnxptq.tasks import Task

ENOUGH = 20
"""Samples of a part from which a share of them means something."""

Outputs = list[npt.NDArray[Any]]
"""The outputs of a part's samples in the order of the model's signature, each (N, ...)."""


@dataclass(frozen=True)
class Undecided:
    """Samples of one part of the probe whose prediction is lost.

    Attributes:
        part, kind: as in `Clipping`.
        share: fraction of the samples whose two best classes get the same output when it is cut to the range.
        samples: how many there are.
    """

    part: str
    kind: str
    share: float
    samples: int


def outputs_of(model: Model, parts: Sequence[ProbePart]) -> list[tuple[ProbePart, Outputs]]:
    """What the float model gives for the parts that hold `ENOUGH` samples."""
    runner = SampleRunner(open_session(model.core.path))
    found = []
    for part in parts:
        if len(part.samples) >= ENOUGH:
            runs = [runner.run(feeds) for _, feeds in part.samples.in_front()]
            found.append((part, [join(output) for output in zip(*runs, strict=True)]))
    return found


def undecided(
    model: Model, task: Task, ran: Sequence[tuple[ProbePart, Outputs]], kept: Mapping[str, Interval]
) -> dict[str, tuple[Undecided, ...]]:
    """By output, what its range takes away from each part, the worst first.

    Args:
        model: whose outputs they are.
        task: reads predictions from them.
        ran: what `outputs_of` gave.
        kept: the range of each quantized output.
    """
    found = {}
    for position, spec in enumerate(model.signature.outputs):
        if spec.name not in kept or spec.name not in task.head.judged:
            continue
        shares = []
        for part, outputs in ran:
            low, high = map(np.float32, kept[spec.name])
            cut = [*outputs[:position], np.clip(outputs[position], low, high), *outputs[position + 1 :]]
            before, after = (task.head.certainty(task.head.answers(one)) for one in (outputs, cut))
            if before is None or after is None:
                continue
            lost = float(((after <= 0) & (before > 0)).mean())
            shares.append(Undecided(part.name, part.kind, lost, len(before)))
        found[spec.name] = tuple(sorted(shares, key=lambda one: -one.share))
    return found
