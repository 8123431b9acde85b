"""Classification: one value for each of K classes comes out, and the largest one is the answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError, UsageError, did_you_mean
from onnxptq.foreign_text import one_line
from onnxptq.heads._base import (
    HEADS,
    Head,
    HeadKind,
    Hints,
    Output,
    Scores,
    Specification,
    Total,
    Truths,
)
from onnxptq.heads._measure import Measure
from onnxptq.signature import Signature, TensorSpec, described, shown

OUTPUT_KINDS = ("logits", "probabilities")

ACCURACY = Measure("accuracy", binary=True, summary="the predicted class is the label")
AGREEMENT = Measure("agreement", binary=True, against="reference", summary="the predicted class is the reference's")

_BEST = 5
"""Classes that top-5 accuracy looks at."""

_DISTRIBUTIONS = ("Softmax", "LogSoftmax", "TreeEnsembleClassifier", "LinearClassifier", "SVMClassifier")
"""Operators that only a classifier ends in."""


@dataclass(frozen=True)
class Classes:
    """The answers of a classifier for N samples.

    Attributes:
        prediction: int64, (N,): the class of the largest value.
        confidence: float32, (N,): its softmax, or the value itself where the output holds probabilities.
        margin: float64, (N,): the largest value minus the runner-up, in units of the output.
        best: int64, (N, 5): the classes of the five largest values, in no order; None with five classes or fewer.
        second: float32, (N,): of two classes the second's value minus the first's; None with more.
    """

    prediction: npt.NDArray[np.int64]
    confidence: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float64]
    best: npt.NDArray[np.int64] | None = None
    second: npt.NDArray[np.float32] | None = None


@dataclass(frozen=True)
class Classification(Head):
    """One output of shape (N, K), or (N, K, 1, 1).

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
        scores: what it holds, "logits" or "probabilities".
        class_names: in the order of the output, or ().
    """

    output: str
    position: int
    scores: str
    class_names: tuple[str, ...]

    name = "classification"

    @property
    def specification(self) -> dict[str, Any]:
        """Output, scores and classes."""
        return {"output": self.output, "scores": self.scores, "classes": list(self.class_names)}

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, or ()."""
        return self.class_names

    def answers(self, outputs: Sequence[Output]) -> Classes:
        """Class, confidence and margin. Raises ModelError where the output has another shape or holds NaN."""
        return classify(outputs[self.position], self.scores, self.output)

    def score(self, answers: Classes, truths: Truths) -> dict[str, Scores]:
        """1 where the class is the label, 0 where it is another one."""
        label = np.asarray(truths["label"], np.int64)
        right = (answers.prediction == label).astype(np.float32)
        right[label < 0] = np.nan
        return {ACCURACY.name: right}

    def fidelity(self, answers: Classes, reference: Classes) -> Scores:
        """1 where the class is the reference's, else 0."""
        return np.asarray(answers.prediction == reference.prediction, np.float32)

    def code(self, answers: Classes) -> npt.NDArray[np.int64]:
        """The class."""
        return answers.prediction

    def certainty(self, answers: Classes) -> npt.NDArray[np.float64]:
        """The margin."""
        return answers.margin

    def records(self, answers: Classes, truths: Truths) -> dict[str, npt.NDArray[Any]]:
        """The confidence; whether the label is among the five best; of two classes, how far it is the second."""
        found: dict[str, npt.NDArray[Any]] = {"confidence": answers.confidence}
        if answers.second is not None:
            found["second"] = answers.second
        if answers.best is not None and "label" in truths:
            label = np.asarray(truths["label"], np.int64)
            found["top5"] = (answers.best == label[:, None]).any(axis=1).astype(np.float32)
        return found


def classify(output: npt.NDArray[Any], kind: str, name: str) -> Classes:
    """Answers from one output.

    Args:
        output: (N, K) or (N, K, 1, 1), K at least 2.
        kind: "logits" (the confidence is their softmax) or "probabilities" (the confidence is the value itself).
        name: the output's name, for messages.

    Returns:
        The class of the largest value (of equal ones the lowest index), its confidence and its margin.

    Raises:
        ModelError: another shape, or NaN in the output.
    """
    if output.ndim < 2 or output.shape[1] < 2 or any(size != 1 for size in output.shape[2:]):
        raise ModelError(f"output {name!r} has shape {output.shape}; expected (N, K), one value for each of K classes.")
    values: npt.NDArray[np.float64] = output.reshape(output.shape[:2]).astype(np.float64)
    if np.isnan(values).any():
        count = int(np.isnan(values).any(axis=1).sum())
        raise ModelError(f"output {name!r} holds NaN for {count} of {len(values)} samples. Check the model's weights.")
    prediction = values.argmax(axis=1)
    second, top = np.partition(values, -2, axis=1)[:, -2:].T
    score = top if kind == "probabilities" else 1 / np.exp(values - top[:, None]).sum(axis=1)
    best = np.argpartition(values, -_BEST, axis=1)[:, -_BEST:] if values.shape[1] > _BEST else None
    towards = (values[:, 1] - values[:, 0]).astype(np.float32) if values.shape[1] == 2 else None
    return Classes(prediction.astype(np.int64), score.astype(np.float32), top - second, best, towards)


def build(specification: Specification, signature: Signature) -> Classification:
    """The head for one model: the output that the specification names, else the first of floats that is (N, K).

    Raises:
        UsageError: the specification names an output or a kind that does not exist, or another number of classes.
        ModelError: no output can be read as classes.
    """
    kind = specification.get("scores")
    outputs = signature.outputs
    if kind not in (None, *OUTPUT_KINDS):
        raise UsageError(f"scores must be one of {', '.join(OUTPUT_KINDS)}, got {kind!r}.")
    names = [spec.name for spec in outputs]
    named = specification.get("output")
    if named is not None and named not in names:
        raise UsageError(f"the model has no output {named!r}. {did_you_mean(str(named), names)}")
    for fits in (_is_table, _is_pooled, _is_unknown):
        for position, spec in enumerate(outputs):
            if (named == spec.name or (named is None and _is_float(spec))) and fits(spec):
                default = "probabilities" if _is_map(spec) else "logits"
                return Classification(spec.name, position, kind or default, _classes(specification, spec))
    raise ModelError(
        f"no output can be read as classes: {described(outputs)}. Expected (N, K), one value for each of K classes. "
        "For other outputs give --head (onnxptq tasks lists the heads)."
    )


def recognize(specification: Specification, signature: Signature, hints: Hints) -> str | None:
    """One output of floats that is (N, K), and class names, labels that fit or a Softmax that says what it is."""
    if said := [key for key in ("output", "scores") if specification.get(key)]:
        return f"the specification says {' and '.join(said)}"
    found = [spec for spec in signature.outputs if _is_float(spec) and (_is_table(spec) or _is_pooled(spec))]
    found = [spec for spec in found if signature.output_axis(spec) == 0 or _is_map(spec)]
    if len(found) != 1:
        return None
    (spec,) = found
    if specification.get("classes"):
        return f"output {spec.name} is {shown(spec.shape)} and there are class names"
    if _is_map(spec):
        return f"output {spec.name} maps classes to probabilities"
    if spec.maker in _DISTRIBUTIONS:
        return f"output {spec.name} is {shown(spec.shape)} and comes from a {spec.maker}"
    if hints.labels is not None and _labels_fit(hints.labels, spec.shape[1]):
        return f"output {spec.name} is {shown(spec.shape)} and the data has labels"
    return None


def _labels_fit(labels: tuple[str, ...], size: int | None) -> bool:
    """Whether labels can be classes of an output: whole numbers below its size, or as many names as it has values."""
    if size is None:
        return True
    if all(name.isdecimal() for name in labels):
        return max(map(int, labels), default=0) < size
    return len(labels) == size


def _classes(specification: Specification, output: TensorSpec) -> tuple[str, ...]:
    """The class names of a specification, () without. Raises UsageError when their number is not the output's."""
    classes = tuple(one_line(str(name)) for name in specification.get("classes") or ())
    size = output.shape[1] if len(output.shape) > 1 else None
    if classes and size is not None and size != len(classes):
        raise UsageError(
            f"there are {len(classes)} class names, but output {output.name!r} has shape {shown(output.shape)}. "
            "Give one name for each value, in the order of the output."
        )
    return classes


def _is_float(spec: TensorSpec) -> bool:
    return spec.dtype.startswith(("float", "bfloat")) or spec.dtype == "unknown" or _is_map(spec)


def _is_map(spec: TensorSpec) -> bool:
    """A map from classes to probabilities for each sample, as scikit-learn's converters write (ZipMap)."""
    return spec.dtype.startswith("seq(map")


def _is_table(spec: TensorSpec) -> bool:
    """(N, K)."""
    return _is_map(spec) or (len(spec.shape) == 2 and spec.shape[1] != 1)


def _is_pooled(spec: TensorSpec) -> bool:
    """(N, K, 1, 1)."""
    return len(spec.shape) == 4 and spec.shape[1] != 1 and all(size in (1, None) for size in spec.shape[2:])


def _is_unknown(spec: TensorSpec) -> bool:
    """The model's file does not say; answers will show."""
    return len(spec.shape) == 0


def _macro_f1(records: Mapping[str, Any]) -> float:
    """F1 of each class that is a label or was predicted, averaged over the classes."""
    label, code = np.asarray(records["label"]), np.asarray(records["code"])
    classes, both = np.unique(np.concatenate([label, code]), return_inverse=True)
    label, code = both[: len(label)], both[len(label) :]
    right = np.bincount(label[label == code], minlength=len(classes))
    either = np.bincount(label, minlength=len(classes)) + np.bincount(code, minlength=len(classes))
    return float((2 * right / either).mean())


def _auroc(records: Mapping[str, Any]) -> float:
    """The share of pairs, one sample of each class, in which the second class's has the larger value; ties are half."""
    label, value = np.asarray(records["label"]), np.asarray(records["second"])
    positive = int((label == 1).sum())
    negative = len(label) - positive
    if not positive or not negative:
        return float("nan")
    _, codes, counts = np.unique(value, return_inverse=True, return_counts=True)
    rank = (np.cumsum(counts) - (counts - 1) / 2)[codes]  # Equal values share the mean of their ranks.
    return float((rank[label == 1].sum() - positive * (positive + 1) / 2) / (positive * negative))


TOTALS = (
    Total("macro-F1", "F1 of each class, averaged over the classes", _macro_f1, needs=("label", "code")),
    Total(
        "AUROC",
        "of two classes: the area under the receiver operating characteristic",
        _auroc,
        source="Hanley and McNeil, 1982, Radiology 143:29",
        needs=("label", "second"),
    ),
    Total(
        "top-5",
        "with more than five classes: the label is among the five largest values",
        lambda records: float(np.mean(records["top5"])),
        needs=("label", "top5"),
    ),
)


HEADS.register(
    HeadKind(
        "classification",
        "one value a class out; the largest is the answer",
        (ACCURACY,),
        AGREEMENT,
        build,
        totals=TOTALS,
        recognize=recognize,
        formats=("a folder for each class", "a column of class names or numbers (--label-column)"),
        keys=("output", "scores", "classes"),
    )
)
