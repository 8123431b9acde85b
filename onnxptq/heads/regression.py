"""Regression: numbers come out, and an answer is as good as 1 - error / scale.

Scale (and tolerance) are in the units of the output and stand in the specification: taken from the judged data they
would move with it. Several numbers a sample (keypoints, boxes, forecasts) are averaged.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.heads._base import HEADS, Head, HeadKind, Measure, Output, Scores, Specification, Total, Truths
from onnxptq.heads._shared import find_output, find_truth
from onnxptq.signature import Signature, described

CLOSENESS = Measure("1 - error / scale", binary=False, summary="1 - min(1, mean absolute error / scale)")
WITHIN = Measure("within tolerance", binary=True, summary="every number is within the tolerance of the truth")
FIDELITY = Measure("closeness to FP32", binary=False, against="reference", summary="1 - error / scale, against FP32")

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Regression(Head):
    """One output of numbers.

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
        scale: the mean absolute error at which nothing is left, in units of the output.
        tolerance: the error that still counts as right, or None.
    """

    output: str
    position: int
    scale: float
    tolerance: float | None

    name = "regression"

    @property
    def specification(self) -> dict[str, Any]:
        """Output, scale and tolerance."""
        return {"output": self.output, "error_scale": self.scale, "tolerance": self.tolerance}

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    def truth_columns(self) -> tuple[str, ...]:
        """The wanted numbers, under one of these names."""
        return ("target", "value", "y")

    def answers(self, outputs: Sequence[Output]) -> Values:
        """float64, (N, K). Raises ModelError where samples have different numbers of them, or none."""
        values = np.asarray(outputs[self.position])
        if values.dtype == object or values.dtype.kind not in "iuf":
            raise ModelError(f"output {self.output!r} is no table of numbers, one row a sample.")
        return values.reshape(len(values), -1).astype(np.float64)

    def score(self, answers: Values, truths: Truths) -> dict[str, Scores]:
        """1 - error / scale, and where there is a tolerance whether it is kept; NaN without truth."""
        wanted = self._wanted(truths, answers)
        error = np.abs(answers - wanted)
        scores = {CLOSENESS.name: self._closeness(error)}
        if self.tolerance is not None:
            within = (error <= self.tolerance).all(axis=1)
            scores[WITHIN.name] = np.where(np.isnan(wanted).any(axis=1), np.nan, within).astype(np.float32)
        return scores

    def fidelity(self, answers: Values, reference: Values) -> Scores:
        """1 - error / scale against the reference."""
        return self._closeness(np.abs(answers - reference))

    def records(self, answers: Values, truths: Truths) -> dict[str, Sequence[Any]]:
        """Answers and truths."""
        return {"answer": list(answers), "wanted": list(self._wanted(truths, answers))}

    def check_truth(self, truth: Mapping[str, Any]) -> None:
        """Numbers, whatever their count."""
        for column, value in truth.items():
            if value is not None:
                _numbers(value, column)

    def _closeness(self, error: Values) -> Scores:
        return np.asarray(1 - np.minimum(1.0, error.mean(axis=1) / self.scale), np.float32)

    def _wanted(self, truths: Truths, answers: Values) -> Values:
        """The truth of each sample, NaN where it has none."""
        column, values = find_truth(truths, self.truth_columns()) or ("", ())
        wanted = np.full_like(answers, np.nan)
        for row, value in enumerate(values):
            if value is None:
                continue
            numbers = _numbers(value, column)
            if numbers.shape != answers[row].shape:
                raise DataError(
                    f"column {column!r} has {numbers.size} numbers a sample, output {self.output!r} has "
                    f"{answers.shape[1]}. Store as many as the model gives."
                )
            wanted[row] = numbers
        return wanted


def _numbers(value: Any, column: str) -> Values:
    try:
        return np.asarray(value, np.float64).ravel()
    except (TypeError, ValueError) as error:
        raise DataError(f"column {column!r} holds {value!r}, which is no number.") from error


def _over_known(compute: Callable[[Values, Values], float]) -> Callable[[Mapping[str, Any]], float]:
    def total(records: Mapping[str, Any]) -> float:
        answer, wanted = (
            np.stack([np.asarray(one, np.float64) for one in records[name]]) for name in ("answer", "wanted")
        )
        known = ~np.isnan(wanted).any(axis=1)
        return compute(answer[known], wanted[known]) if known.any() else float("nan")

    return total


def _r2(answer: Values, wanted: Values) -> float:
    """1 - residual / total sum of squares, mean over the numbers of a sample."""
    spread = ((wanted - wanted.mean(axis=0)) ** 2).sum(axis=0)
    if not (spread > 0).all():
        return float("nan")
    return float((1 - ((wanted - answer) ** 2).sum(axis=0) / spread).mean())


TOTALS = (
    Total(
        "RMSE",
        "root mean squared error",
        _over_known(lambda a, w: float(np.sqrt(((a - w) ** 2).mean()))),
        larger_is_better=False,
        share=False,
    ),
    Total(
        "MAE",
        "mean absolute error",
        _over_known(lambda a, w: float(np.abs(a - w).mean())),
        larger_is_better=False,
        share=False,
    ),
    Total("R2", "share of the variance that is explained", _over_known(_r2)),
)


def build(specification: Specification, signature: Signature) -> Regression:
    """The head for one model.

    Raises:
        UsageError: there is no scale, or it or the tolerance is wrong, or an output is named that there is not.
        ModelError: no output holds numbers.
    """
    found = find_output(specification, signature, lambda spec: spec.dtype.startswith("float"))
    if found is None:
        raise ModelError(f"no output holds numbers: {described(signature.outputs)}.")
    scale = specification.get("error_scale")
    if scale is None:
        raise UsageError(
            'regression needs the mean absolute error at which an answer is worth nothing: "error_scale" in the '
            "specification, in units of the output. It is never taken from the data that is judged."
        )
    return Regression(
        found[0].name, found[1], _positive(scale, "error_scale"), _tolerance(specification.get("tolerance"))
    )


def _tolerance(value: Any) -> float | None:
    return None if value is None else _positive(value, "tolerance")


def _positive(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"{key} must be a number above 0 in units of the output, got {value!r}.")
    return float(value)


HEADS.register(
    HeadKind(
        "regression",
        "numbers, judged by 1 - error / scale, RMSE, MAE and R2",
        (CLOSENESS, WITHIN),
        FIDELITY,
        build,
        totals=TOTALS,
        formats=("a column or array target, value or y",),
        keys=("output", "error_scale", "tolerance"),
    )
)
