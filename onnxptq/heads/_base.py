"""What a head is: from a model's outputs to answers, and from answers to one score a sample.

A task is an input and a head. A head is one file in this folder, or of a stranger's package (entry point group
`onnxptq.heads`), that registers a `HeadKind`; nothing else has to know it. docs/extending.md adds one in 30 lines.

Scores and fidelity lie in [0, 1], larger is better, so that a drop is in points whatever the task.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.heads._measure import Measure as Measure
from onnxptq.registry import Registry
from onnxptq.signature import Signature

DEFINITIONS = 3
"""Raised whenever a head changes what it answers, scores or records, so that nothing made before is found again."""

Output = npt.NDArray[Any]
"""One output of N samples: (N, ...) where all samples have one shape, else an object array (N,) of arrays."""

Truths = Mapping[str, Sequence[Any]]
"""By truth column the value of each of N samples, None where it has none. "label" holds class indices, -1 for none."""

Answers = Any
"""What `Head.answers` makes of N samples; only the head itself looks into it."""

Scores = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Total:
    """A number of a whole data set that is no mean of samples: mAP, corpus WER, macro-F1.

    Attributes:
        name: as in reports and policies ("mAP").
        summary: one line.
        compute: from the records (`Head.records`) of some samples to the number.
        larger_is_better: False for error rates.
        source: where it comes from.
        needs: the records that it is computed from, "label" and "code" among them; it is left out where one is missing.
        share: False for a number in a unit of its own (an RMSE, decibels), which is never shown in percent.
        over: for totals that are dear: from the records of all samples to what gives the number over some of them, by
            row, int64 (M,). None computes it of their records.
    """

    name: str
    summary: str
    compute: Callable[[Mapping[str, Any]], float]
    larger_is_better: bool = True
    source: str = ""
    needs: tuple[str, ...] = ()
    share: bool = True
    over: Callable[[Mapping[str, Any]], Callable[[npt.NDArray[np.int64]], float]] | None = None


class Head(ABC):
    """What a model's outputs mean. Immutable; `specification` rebuilds it.

    For each batch `answers` is called once a model; everything else works on what it gave.
    """

    name: str
    group_columns: tuple[str, ...] = ()
    """Columns to group by that the truth tells; see `group_values`."""
    finite = True
    """Whether NaN or infinity in a judged output makes a sample one that cannot be judged, which is then an error."""

    @property
    @abstractmethod
    def specification(self) -> dict[str, Any]:
        """Everything needed to rebuild the head, as JSON, beside what the input needs."""

    @property
    @abstractmethod
    def judged(self) -> tuple[str, ...]:
        """Names of the outputs that it reads. Every result names them."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class names in the order of its output, or () when they are not known or there are none."""
        return ()

    def truth_columns(self) -> tuple[str, ...]:
        """Columns of the data that hold the truth, those that it lacks excepted. "label" needs no mention."""
        return ()

    def check_truth(self, truth: Mapping[str, Any]) -> None:  # noqa: B027  # Most truths need no look.
        """Looks at the truth of one sample, by column, None where it has none, as far as no answer is needed for it.

        Raises:
            DataError: no answer could be judged by it.
        """

    @abstractmethod
    def answers(self, outputs: Sequence[Output]) -> Answers:
        """What the model said of N samples.

        Args:
            outputs: all outputs of the model in its order, the samples in the first dimension.

        Raises:
            ModelError: they cannot be read; it names the output.
        """

    @abstractmethod
    def fidelity(self, answers: Answers, reference: Answers) -> Scores:
        """How near the answers are to those of the reference on the same samples: float32, (N,), in [0, 1].

        It is the default measure with the reference's answer in the place of the truth.
        """

    def score(self, answers: Answers, truths: Truths) -> dict[str, Scores]:
        """By measure, how good the answers are: float32, (N,), in [0, 1], NaN where a sample has no truth."""
        return {}

    def code(self, answers: Answers) -> npt.NDArray[np.int64] | None:
        """int64, (N,): equal where the answer is the same, so that flips can be counted; None where answers are
        continuous and never quite the same."""
        return None

    def certainty(self, answers: Answers) -> npt.NDArray[np.floating[Any]] | None:
        """float, (N,): how far the answer is from another one (a margin), larger is surer; None where that says
        nothing."""
        return None

    def records(self, answers: Answers, truths: Truths) -> Mapping[str, Sequence[Any] | npt.NDArray[Any]]:
        """What totals are computed from, by name, N values each: an array (N,), or a list of N flat lists of numbers
        or text. Kept with the predictions, so keep it small."""
        return {}

    def whole_set(
        self,
        records: Mapping[str, Any],
        label: npt.NDArray[np.int64],
        source: npt.NDArray[np.int64],
        clean: npt.NDArray[np.bool_],
    ) -> dict[str, Scores]:
        """By measure the scores that need all samples, as the neighbors of a query do; called once a model, at the end.

        Args:
            records: of all N rows.
            label: int64, (N,): class indices, -1 for none.
            source: int64, (N,): equal for rows of one original sample.
            clean: bool, (N,): rows without a corruption.
        """
        return {}

    def group_values(self, truths: Truths) -> dict[str, list[str]]:
        """The values of `group_columns` (size of the objects, length of the text), one a sample each."""
        return {}


@dataclass(frozen=True)
class Hints:
    """What is known beside specification and signature when nobody names a head.

    Attributes:
        labels: the classes that the data's labels name, or None where it has no labels (or is not known yet).
    """

    labels: tuple[str, ...] | None = None


Specification = Mapping[str, Any]


def _never(specification: Specification, signature: Signature, hints: Hints) -> str | None:
    return None


@dataclass(frozen=True)
class HeadKind:
    """A registered head.

    Attributes:
        name: as a user writes it: "detection" in "image-detection".
        summary: one line for `onnxptq tasks`.
        measures: what an answer is judged by where there is truth; the first is the default.
        agreement: what `Head.fidelity` is called: the measure where there is no truth, against the reference.
        build: `(specification, signature)`; raises UsageError or ModelError where they do not fit.
        totals: numbers of a whole data set that are no means of samples, shown beside.
        recognize: `(specification, signature, hints)` gives a reason, in a few words, where it is beyond doubt that the
            model is for this head though nobody said so; None otherwise. Be strict: a wrong head judges nonsense.
        formats: how its truth is stored, one line each, for `onnxptq tasks`.
        extra: the extra of onnxptq that it needs ("detection"), or "".
        inputs: names of the inputs that it makes sense with; () is all.
        keys: those of the specification that it reads; where they are said, others are looked at as misspelt.
    """

    name: str
    summary: str
    measures: tuple[Measure, ...]
    agreement: Measure
    build: Callable[[Specification, Signature], Head] = field(compare=False)
    totals: tuple[Total, ...] = ()
    recognize: Callable[[Specification, Signature, Hints], str | None] = field(default=_never, compare=False)
    formats: tuple[str, ...] = ()
    extra: str = ""
    inputs: tuple[str, ...] = ()
    keys: tuple[str, ...] | None = None


HEADS: Registry[HeadKind] = Registry(
    "head",
    "onnxptq.heads",
    tuple(
        f"onnxptq.heads.{module.name}"
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if not module.name.startswith("_")
    ),
)
"""Every module of this folder without an underscore, and those that entry points name."""


def rows_of(output: Output) -> list[npt.NDArray[Any]]:
    """The output of each sample alone, whether or not samples have one shape."""
    return list(output)
