"""Measures: what the score of a sample is called, and whether it is only right or wrong."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Against = Literal["truth", "reference"]


@dataclass(frozen=True)
class Measure:
    """How good a model's answer for one sample is: a score from 0 to 1, larger is better.

    Attributes:
        name: as reports write it, for example "accuracy" or "F1 at IoU 0.5".
        binary: every score is 0 or 1. Statistics of such scores are those of proportions (Wilson, Tango, McNemar);
            other scores take intervals and tests that hold for any distribution on [0, 1] (docs/statistics.md).
        source: publication or standard that defines the measure; "" where its name says it all.
        against: answers are compared with the truth, or with the answers of the reference model (fidelity).
        summary: one line for `onnxptq tasks`.
    """

    name: str
    binary: bool
    source: str = ""
    against: Against = "truth"
    summary: str = ""
