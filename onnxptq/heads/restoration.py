"""Image to image (denoising, super-resolution, matting, depth maps): how near every value is to the wanted one.

The score is a peak signal-to-noise ratio on a stated scale, min(1, PSNR / 50 dB), or 1 - mean absolute error. Peak and
scale are in the specification, never taken from the judged data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.heads._base import HEADS, Head, HeadKind, Measure, Output, Scores, Specification, Total, Truths
from onnxptq.heads._shared import find_output
from onnxptq.signature import Signature

PSNR = Measure("PSNR / 50 dB", binary=False, summary="peak signal-to-noise ratio on a scale that ends at 50 dB")
CLOSENESS = Measure("1 - MAE", binary=False, summary="1 - mean absolute error over the peak, for mattes")
FIDELITY = Measure(
    "1 - MAE to FP32", binary=False, against="reference", summary="1 - mean absolute error over the peak, against FP32"
)

FULL_DB = 50.0
"""Where the scale ends: at 8 bits an error below one level in every pixel."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Restoration(Head):
    """One output of values.

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
        peak: the largest value that the output means, 1 or 255.
    """

    output: str
    position: int
    peak: float

    name = "restoration"

    @property
    def specification(self) -> dict[str, Any]:
        """Output and peak."""
        return {"output": self.output, "peak": self.peak}

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    def truth_columns(self) -> tuple[str, ...]:
        """The wanted output: numbers in the shape of the output, without its batch."""
        return ("wanted",)

    def answers(self, outputs: Sequence[Output]) -> list[Values]:
        """The values of each sample. Raises ModelError where they are no numbers."""
        output = outputs[self.position]
        try:
            return [np.asarray(one, np.float64) for one in output]
        except (TypeError, ValueError) as error:
            raise ModelError(f"output {self.output!r} holds something else than numbers.") from error

    def score(self, answers: list[Values], truths: Truths) -> dict[str, Scores]:
        """PSNR on its scale, and 1 - MAE; NaN where a sample has no truth."""
        errors = [
            None if wanted is None else self._differences(one, wanted)
            for one, wanted in zip(answers, truths["wanted"], strict=True)
        ]
        return {
            PSNR.name: np.asarray([np.nan if one is None else on_scale(one) for one in errors], np.float32),
            CLOSENESS.name: np.asarray(
                [np.nan if one is None else 1 - min(1.0, float(np.abs(one).mean())) for one in errors], np.float32
            ),
        }

    def fidelity(self, answers: list[Values], reference: list[Values]) -> Scores:
        """1 - mean absolute error against the reference; PSNR would fall by points for noise that nobody sees."""
        values = []
        for mine, theirs in zip(answers, reference, strict=True):
            error = np.abs(mine - theirs) / self.peak if mine.shape == theirs.shape else np.ones(1)
            values.append(1 - min(1.0, float(error.mean())) if np.isfinite(error).all() else 0.0)
        return np.asarray(values, np.float32)

    def records(self, answers: list[Values], truths: Truths) -> dict[str, Any]:
        """The sum of squared errors over the peak, and how many values there are."""
        rows = []
        for one, wanted in zip(answers, truths["wanted"], strict=True):
            error = None if wanted is None else self._differences(one, wanted)
            rows.append([0.0, 0.0] if error is None else [float((error**2).sum()), float(error.size)])
        return {"squares": rows}

    def _differences(self, answer: Values, wanted: Any) -> Values:
        """Errors in shares of the peak. Raises DataError where the truth has another shape."""
        true = np.asarray(wanted, np.float64)
        if true.squeeze().shape != answer.squeeze().shape:
            raise DataError(
                f"the wanted output has shape {true.shape}, but the model gives {answer.shape} (output {self.output}). "
                "Store it as the model gives it, without the batch."
            )
        return (answer.squeeze() - true.squeeze()) / self.peak


def on_scale(error: Values) -> float:
    """Errors in shares of the peak as PSNR over 50 dB, between 0 and 1."""
    power = float((error**2).mean()) if error.size else 0.0
    if not np.isfinite(power):
        return 0.0
    return 1.0 if power == 0 else float(np.clip(-10 * np.log10(power) / FULL_DB, 0, 1))


def _whole_psnr(records: Mapping[str, Any]) -> float:
    sums = np.asarray(records["squares"], np.float64).reshape(-1, 2).sum(axis=0)
    return float(-10 * np.log10(sums[0] / sums[1])) if sums[1] and sums[0] else float("nan")


def build(specification: Specification, signature: Signature) -> Restoration:
    """The head for one model.

    Raises:
        UsageError: the specification names an output that there is not, or the peak is wrong.
        ModelError: the model has no output.
    """
    found = find_output(specification, signature, lambda spec: True)
    if found is None:
        raise ModelError("the model has no output, so there is nothing to judge.")
    peak = 1.0 if specification.get("peak") is None else specification["peak"]
    if isinstance(peak, bool) or not isinstance(peak, (int, float)) or not peak > 0:
        raise UsageError(f"peak must be the largest value that the output means, above 0, got {peak!r}.")
    return Restoration(found[0].name, found[1], float(peak))


HEADS.register(
    HeadKind(
        "restoration",
        "image to image, matting and depth maps, judged by PSNR or 1 - MAE",
        (PSNR, CLOSENESS),
        FIDELITY,
        build,
        totals=(Total("PSNR", "peak signal-to-noise ratio over all values, in dB", _whole_psnr, share=False),),
        formats=("a column or array wanted",),
        keys=("output", "peak"),
    )
)
