"""Multi-label classification: any number of classes at once, judged by the overlap with the true ones (Jaccard)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.heads._base import HEADS, Head, HeadKind, Measure, Output, Scores, Specification, Total, Truths
from onnxptq.heads._shared import codes_of, find_output, find_truth, number_range
from onnxptq.signature import Signature, described

JACCARD = Measure("Jaccard", binary=False, source="Jaccard, 1912", summary="classes in both over classes in either")
FIDELITY = Measure(
    "Jaccard to FP32", binary=False, against="reference", summary="the same with FP32's classes as truth"
)

Sets = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class MultiLabel(Head):
    """One output (N, K) of which each value says yes or no.

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
        threshold: above which a class is said: 0 for logits, 0.5 for probabilities unless the specification says.
        class_names: in the order of the output, or ().
    """

    output: str
    position: int
    threshold: float
    class_names: tuple[str, ...]

    name = "multilabel"
    group_columns = ("present",)

    @property
    def specification(self) -> dict[str, Any]:
        """Output, threshold and classes."""
        return {"output": self.output, "threshold": self.threshold, "classes": list(self.class_names)}

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, or ()."""
        return self.class_names

    def truth_columns(self) -> tuple[str, ...]:
        """The true classes: a list of names or numbers, or K zeros and ones, under one of these names."""
        return ("labels", "tags", "classes")

    def answers(self, outputs: Sequence[Output]) -> tuple[Sets, npt.NDArray[np.float64]]:
        """bool (N, K), and how near to the threshold a value comes. Raises ModelError for another rank, or NaN."""
        values = np.asarray(outputs[self.position])
        if values.dtype == object or values.ndim < 2 or any(side != 1 for side in values.shape[2:]):
            raise ModelError(f"output {self.output!r} has shape {values.shape}; expected (N, K), a value a class.")
        values = values.reshape(values.shape[:2]).astype(np.float64)
        if np.isnan(values).any():
            raise ModelError(f"output {self.output!r} holds NaN. Check the model's weights.")
        return values > self.threshold, np.abs(values - self.threshold).min(axis=1)

    def score(self, answers: Any, truths: Truths) -> dict[str, Scores]:
        """Jaccard of the sets; 1 where both are empty, NaN without truth."""
        wanted = self._wanted(truths, answers[0])
        found = [
            np.nan if true is None else _jaccard(mine, true) for mine, true in zip(answers[0], wanted, strict=True)
        ]
        return {JACCARD.name: np.asarray(found, np.float32)}

    def fidelity(self, answers: Any, reference: Any) -> Scores:
        """Jaccard with the reference's set as the truth."""
        pairs = zip(answers[0], reference[0], strict=True)
        return np.asarray([_jaccard(mine, theirs) for mine, theirs in pairs], np.float32)

    def code(self, answers: Any) -> npt.NDArray[np.int64]:
        """A number for each set."""
        return codes_of(np.packbits(one).tobytes() for one in answers[0])

    def certainty(self, answers: Any) -> npt.NDArray[np.float64]:
        """The distance to the threshold of the class that is nearest to it."""
        return np.asarray(answers[1], np.float64)

    def records(self, answers: Any, truths: Truths) -> dict[str, Sequence[Any]]:
        """The classes that were said, and the true ones, as numbers."""
        wanted = self._wanted(truths, answers[0])
        return {
            "said": [np.flatnonzero(one) for one in answers[0]],
            "true": [np.empty(0, np.int64) if one is None else np.flatnonzero(one) for one in wanted],
        }

    def group_values(self, truths: Truths) -> dict[str, list[str]]:
        """How many classes a sample has."""
        found = find_truth(truths, self.truth_columns())
        count = len(next(iter(truths.values())))
        values = [None] * count if found is None else found[1]
        return {"present": ["unknown" if one is None else number_range(self._count(one)) for one in values]}

    def _count(self, value: Sequence[Any]) -> int:
        """Of a list of classes its length, of zeros and ones (more than two of them) the ones."""
        named = bool(self.class_names) and len(value) == len(self.class_names)
        flags = all(not isinstance(one, str) and one in (0, 1) for one in value) and (named or len(value) > 2)
        return int(sum(map(int, value))) if flags else len(value)

    def check_truth(self, truth: Mapping[str, Any]) -> None:
        """Classes that the model has, where their names are known."""
        column, value = next(((name, one) for name, one in truth.items() if one is not None), ("", None))
        if value is not None and self.class_names:
            self._set(value, len(self.class_names), column)

    def _wanted(self, truths: Truths, sets: Sets) -> list[Sets | None]:
        if (found := find_truth(truths, self.truth_columns())) is None:
            return [None] * len(sets)
        column, values = found
        return [None if value is None else self._set(value, sets.shape[1], column) for value in values]

    def _set(self, value: Any, size: int, column: str) -> Sets:
        known = {name: index for index, name in enumerate(self.class_names)}
        values = [one.item() if isinstance(one, np.generic) else one for one in value]
        if len(values) == size and all(one in (0, 1) for one in values) and not isinstance(values[0], str):
            return np.asarray(values, np.bool_)
        found = np.zeros(size, np.bool_)
        for one in values:
            index = known.get(one) if isinstance(one, str) else one
            if not isinstance(index, int) or not 0 <= index < size:
                raise DataError(f"column {column!r} has the class {one!r}, which the model lacks ({size} classes).")
            found[index] = True
        return found


def _jaccard(mine: Sets, theirs: Sets) -> float:
    either = int((mine | theirs).sum())
    return 1.0 if not either else float((mine & theirs).sum() / either)


def _macro_f1(records: Mapping[str, Any]) -> float:
    """F1 of each class that occurs, averaged."""
    said, true = (list(map(np.asarray, records[name])) for name in ("said", "true"))
    size = 1 + max((int(one.max()) for one in (*said, *true) if len(one)), default=-1)
    both, of_said, of_true = (np.zeros(size) for _ in range(3))
    for mine, theirs in zip(said, true, strict=True):
        both[np.intersect1d(mine, theirs).astype(np.int64)] += 1
        of_said[mine.astype(np.int64)] += 1
        of_true[theirs.astype(np.int64)] += 1
    known = of_said + of_true > 0
    return float((2 * both[known] / (of_said + of_true)[known]).mean()) if known.any() else float("nan")


def build(specification: Specification, signature: Signature) -> MultiLabel:
    """The head for one model: the output that the specification names, else the first of rank 2.

    Raises:
        UsageError: a key is wrong, or it names an output that there is not.
        ModelError: no output has a value for each class.
    """
    found = find_output(specification, signature, lambda spec: len(spec.shape) == 2)
    if found is None:
        raise ModelError(f"no output has a value for each class: {described(signature.outputs)}. Expected (N, K).")
    spec, position = found
    default = 0.5 if specification.get("scores") == "probabilities" or spec.maker == "Sigmoid" else 0.0
    threshold = default if specification.get("threshold") is None else specification["threshold"]
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise UsageError(f"threshold must be a number in units of the output, got {threshold!r}.")
    classes = tuple(str(name) for name in specification.get("classes") or ())
    return MultiLabel(spec.name, position, float(threshold), classes)


HEADS.register(
    HeadKind(
        "multilabel",
        "any number of classes at once, judged by Jaccard and macro-F1",
        (JACCARD,),
        FIDELITY,
        build,
        totals=(Total("macro-F1", "F1 of each class, averaged over the classes", _macro_f1),),
        formats=("a column or array labels: names, numbers, or zeros and ones",),
        keys=("output", "scores", "threshold", "classes"),
    )
)
