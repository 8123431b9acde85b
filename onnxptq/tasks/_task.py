"""A task: an input and a head."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.dataset import TRUTH
from onnxptq.data.shifts import Batch, Facts
from onnxptq.errors import UsageError, did_you_mean
from onnxptq.heads import HEADS, Head, Hints, choose_head
from onnxptq.signature import Feeds, Signature
from onnxptq.tasks._base import INPUTS, Input, Row
from onnxptq.tasks._constants import KEY as CONSTANTS
from onnxptq.tasks._constants import Constant, arranged, constants_of, with_constants, without
from onnxptq.tasks._keys import check_no_misspelt


@dataclass(frozen=True)
class Task:
    """How samples are read, fed and judged. `name` and `specification` rebuild it.

    Attributes:
        input: reads and feeds samples.
        head: what the outputs mean.
        why: why it is this head, in a few words.
        settled: the head was named, or is beyond doubt; else it is "raw" until somebody says more, and `name` leaves it
            out.
        expected_score: FP32's average score on clean samples, from 0 to 1, where its specification promises one.
        constants: inputs of the model that are the same for every sample.
    """

    input: Input
    head: Head
    why: str = field(default="", compare=False)
    settled: bool = field(default=True, compare=False)
    expected_score: float | None = field(default=None, compare=False)
    constants: tuple[Constant, ...] = field(default=(), compare=False)

    @property
    def name(self) -> str:
        """ "image-classification"; the input alone where nobody knows the head."""
        return f"{self.input.name}-{self.head.name}" if self.settled else self.input.name

    @property
    def specification(self) -> dict[str, Any]:
        """That of the input and that of the head, constants, and the score that is promised."""
        promised = {} if self.expected_score is None else {"expected_score": self.expected_score}
        constant = {CONSTANTS: {one.name: one.value for one in self.constants}} if self.constants else {}
        return {**self.input.specification, **self.head.specification, **constant, **promised}

    @property
    def modality(self) -> str:
        """The kind of raw batch."""
        return self.input.modality

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Columns to group by that a sample's content or its truth tells."""
        return (*self.input.group_columns, *self.head.group_columns)

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class names, or ()."""
        return self.head.classes

    def load(self, rows: Sequence[Row]) -> Batch:
        """Raw rows as one raw batch; see `Input.load`."""
        return self.input.load(rows)

    def loadable_together(self, rows: Sequence[Row]) -> list[list[int]]:
        """Positions of rows that `load` can make one batch of."""
        return self.input.loadable_together(rows)

    def feeds(self, batch: Batch) -> Feeds:
        """A raw batch as model feeds, the samples in the first dimension of each."""
        return with_constants(self.input.feeds(batch), self.constants)

    def feed_groups(self, batch: Batch) -> Iterator[tuple[npt.NDArray[np.int64], Feeds]]:
        """A raw batch as (positions, feeds) of samples that can run in one call."""
        for positions, feeds in self.input.feed_groups(batch):
            yield positions, with_constants(feeds, self.constants)

    def arrange(self, feeds: Feeds) -> Feeds:
        """Feeds, the samples in the first dimension, as the model takes them."""
        constant = arranged(feeds, self.constants)
        own = {name: array for name, array in feeds.items() if name not in constant}
        return {**self.input.arrange(own), **constant}

    def noise(self, count: int, seed: int) -> Batch:
        """A raw batch of noise."""
        return self.input.noise(count, seed)

    def synthetic(self, position: int, seed: int) -> Batch:
        """A sample of a calibration set that needs no data; see `Input.synthetic`."""
        return self.input.synthetic(position, seed)

    def input_bounds(self) -> Mapping[str, tuple[float, float]]:
        """The least and the greatest value that each input can hold."""
        return self.input.input_bounds()

    def input_facts(self) -> Facts:
        """What is known of the numbers of each tensor input."""
        return self.input.input_facts()

    def cleaned(self) -> str:
        """The chain of shifts that the robust methods put on the drawn set itself."""
        return self.input.cleaned()

    def augmentations(self) -> tuple[str, ...]:
        """Chains of shifts that widen a calibration set."""
        return self.input.augmentations()

    def evaluation_shifts(self) -> tuple[str, ...]:
        """The corruptions of the default evaluation."""
        return self.input.evaluation_shifts()

    def fits(self, shift_name: str) -> str | None:
        """None where the shift makes sense for this input, else the reason why not."""
        return self.input.fits(shift_name)

    def group_values(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """The values of `group_columns`, one a row each. Raises DataError naming a bad sample."""
        values = dict(self.input.group_values(rows))
        if self.head.group_columns:
            columns = self.head.truth_columns()
            values |= self.head.group_values({name: [row.get(TRUTH, {}).get(name) for row in rows] for name in columns})
        return values


def split_name(name: str) -> tuple[str, str | None]:
    """Input and head of a task's name, ("image", "classification"); the head is None where the name is an input's.

    Raises:
        UsageError: there is no such input or head.
    """
    inputs = [*INPUTS.names(), ENCODED]
    for known in sorted(inputs, key=len, reverse=True):
        if name == known:
            return known, None
        if name.startswith(f"{known}-"):
            head = name.removeprefix(f"{known}-")
            if head in HEADS:
                return known, head
    raise UsageError(
        f"unknown task {name!r}; a task is an input ({', '.join(inputs)}) and a head ({', '.join(HEADS.names())}), as "
        f"in image-classification. {did_you_mean(name, [f'{one}-{head}' for one in inputs for head in HEADS.names()])}"
    )


ENCODED = "encoded-image"
"""The input of models that decode their images themselves; it is made of the graph, not of a specification."""


def make_task(name: str, specification: Mapping[str, Any], signature: Signature, hints: Hints | None = None) -> Task:
    """The task of one model.

    Args:
        name: of the task, or of its input alone; the head is then found (`choose_head`).
        specification: for the input and the head; its "head" names a head too.
        signature: the model's.
        hints: what the data tells of the head.

    Raises:
        UsageError: an unknown name, or a specification that is wrong.
        ModelError: the model does not fit.
    """
    input_name, head_name = split_name(name)
    check_no_misspelt(specification, input_name, specification.get("head") or head_name)
    constants = constants_of(specification, signature)
    fed = without(signature, [one.name for one in constants])
    task = with_head(INPUTS.get(input_name).build(specification, fed), name, specification, signature, hints)
    return replace(task, constants=constants)


def with_head(
    input_: Input, name: str, specification: Mapping[str, Any], signature: Signature, hints: Hints | None = None
) -> Task:
    """The task of an input that was built; arguments and errors as of `make_task`."""
    named = specification.get("head") or split_name(name)[1]
    choice = choose_head(named, specification, signature, hints or Hints(), input_.name)
    settled = choice.named or choice.head.name != "raw"
    return Task(input_, choice.head, choice.why, settled, specification.get("expected_score"))
