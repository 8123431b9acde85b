"""What a sampler is: how a calibration set chooses its samples from those there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from onnxptq.data.dataset import Dataset, Indices
from onnxptq.errors import DataError, UsageError, did_you_mean
from onnxptq.recipe import Value
from onnxptq.registry import Registry

DEFAULT_SIZE = 128
"""Samples of a calibration set when none is asked for: beyond a few hundred, ranges hardly change (ORT's own examples
use about 100), and every sample costs a pass of inference."""


@dataclass(frozen=True)
class Asked:
    """What the FP32 model says of n samples.

    Attributes:
        certainty: float64, (n,): how far each answer is from another one (`Head.certainty`), or None where the task's
            head does not tell.
        vectors: n times float32, (K,): the judged outputs in a row; K may differ where their shapes do.
    """

    certainty: npt.NDArray[np.float64] | None
    vectors: Sequence[npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Pool:
    """What a sampler may look at.

    Attributes:
        dataset: the calibration side of the data.
        ask: asks the FP32 model about the samples at some positions; None where no model is at hand.
    """

    dataset: Dataset
    ask: Callable[[Indices], Asked] | None = None

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """int64, (N,). Raises DataError where the data has no labels."""
        if self.dataset.labels is None:
            raise DataError(
                f"this calibration set chooses by label, and {self.dataset.source} has none. "
                "Give --label-column, or use a set that needs no labels (onnxptq calibs)."
            )
        return self.dataset.labels

    def column(self, name: str) -> npt.NDArray[np.str_]:
        """A group column, str, (N,). Raises UsageError where there is none of that name."""
        if name not in self.dataset.attributes:
            raise UsageError(
                f"{self.dataset.source} has no group column {name!r}. {did_you_mean(name, self.dataset.attributes)}"
            )
        return self.dataset.attributes[name]

    def label_code(self, name: str) -> int:
        """The code of the class called `name`. Raises UsageError when there is none."""
        names = self.dataset.label_names
        if name not in names:
            raise UsageError(f"{self.dataset.source} has no class {name!r}. {did_you_mean(name, names)}")
        return names.index(name)


Choose = Callable[..., Indices]


@dataclass(frozen=True)
class Sampler:
    """A way to choose calibration samples.

    Attributes:
        name: as the user writes it.
        summary: one line for `onnxptq calibs`.
        source: where it comes from.
        choose: `(pool, size, generator, **parameters) -> positions`, at most `size` of them, without repetition;
            fewer where the set holds fewer.
        parameters: names and defaults. A parameter that is "" is not handed on as chosen by the user.
        positional: the parameter that a bare text after the colon fills, as in `single-class:cat`.
        required: the parameter that the user has to give.
        size: the size of the set when the user names none.
        needs_labels: whether it reads `pool.labels`, which can then be missed before anything is computed.
    """

    name: str
    summary: str
    source: str
    choose: Choose
    parameters: dict[str, Value] = field(default_factory=dict, hash=False)
    positional: str | None = None
    required: str | None = None
    size: int = DEFAULT_SIZE
    needs_labels: bool = False


SAMPLERS: Registry[Sampler] = Registry(
    "calibration set",
    "onnxptq.calibrators",
    (
        "onnxptq.calibrators.sampling_random",
        "onnxptq.calibrators.sampling_labels",
        "onnxptq.calibrators.sampling_model",
    ),
)


def at_random(positions: Indices, size: int, generator: np.random.Generator) -> Indices:
    """`size` of `positions` drawn without repetition, or all of them in random order where there are fewer."""
    return generator.permutation(positions)[:size]
