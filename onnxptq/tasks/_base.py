"""What a task is: how raw samples become model feeds, and how model outputs become predictions.

Nothing outside `onnxptq.tasks` assumes images or labels. A task is chosen by name, configured by its specification
(the preprocessing that the model carries), and sees raw rows, batches and outputs; it never sees a model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts import Batch
from onnxptq.errors import UsageError
from onnxptq.registry import Registry

Row = Mapping[str, Any]
Feeds = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model: name, numpy dtype name, and shape with None where a dimension is dynamic."""

    name: str
    dtype: str
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in the order of its graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


@dataclass(frozen=True)
class Scores:
    """What a task reads from the outputs of N samples.

    Attributes:
        prediction: int64, (N,): the predicted class.
        score: float32, (N,): the confidence in it, as the task defines it (softmax probability for classifiers).
        margin: float32, (N,): the top output minus the runner-up, in units of the output.
    """

    prediction: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]


class Task(ABC):
    """How samples of one kind are read, fed and scored. Immutable; `specification` rebuilds it."""

    name: str
    modality: str
    """The kind of raw batch, which decides the shifts that apply: "image", "tensor", "text"."""

    @property
    @abstractmethod
    def specification(self) -> dict[str, Any]:
        """Everything needed to rebuild the task, as JSON: what an INT8 model carries and what content keys hold."""

    @property
    @abstractmethod
    def classes(self) -> tuple[str, ...]:
        """The model's class names in the order of its output, or () when they are not known."""

    @abstractmethod
    def load(self, rows: Sequence[Row]) -> Batch:
        """Raw rows of a dataset as one raw batch, on which shifts work. Raises DataError naming a bad sample."""

    def loadable_together(self, rows: Sequence[Row]) -> list[list[int]]:
        """Positions of rows that `load` can make one batch of; one group unless the shapes of samples may differ."""
        return [list(range(len(rows)))]

    @abstractmethod
    def feeds(self, batch: Batch) -> Feeds:
        """A raw batch as model feeds, one array an input, the batch in the first dimension."""

    @abstractmethod
    def predict(self, outputs: Sequence[npt.NDArray[Any]]) -> Scores:
        """Predictions from the model's outputs, (N, ...) each."""

    @abstractmethod
    def noise(self, count: int, seed: int) -> Batch:
        """A raw batch of `count` samples of noise, for calibration without data."""

    def synthetic(self, position: int, seed: int) -> Batch:
        """Sample number `position` of a calibration set that needs no data, as a raw batch of one.

        Unlike noise it looks like real samples to the first layers of a model: here and there smooth, with edges.

        Raises:
            UsageError: nobody knows how to make such samples of this kind.
        """
        raise UsageError(
            f"there is no generator of synthetic samples for {self.name}. Give data (--method robust), or calibrate on "
            "noise (--calib random)."
        )

    def input_bounds(self) -> Mapping[str, tuple[float, float]]:
        """The least and the greatest value that each input can hold, for the inputs of which that is known."""
        return {}

    def augmentations(self) -> tuple[str, ...]:
        """Chains of shifts that widen a calibration set without leaving what such samples can be.

        Each is written as in a calibration set, with severities: "autocontrast@3+invert@5". The robust methods
        calibrate on the set and on a copy of it under each chain.
        """
        return ()

    @abstractmethod
    def evaluation_shifts(self) -> tuple[str, ...]:
        """The corruptions of the default evaluation that make sense for this input, as `name@severity`."""

    @abstractmethod
    def fits(self, shift_name: str) -> str | None:
        """None where the shift makes sense for this input, else the reason why not."""


@dataclass(frozen=True)
class TaskKind:
    """A registered task: `build(specification, signature)` raises UsageError or ModelError when they do not fit."""

    name: str
    summary: str
    build: Callable[[Mapping[str, Any], Signature], Task]


TASKS: Registry[TaskKind] = Registry(
    "task", "onnxptq.tasks", ("onnxptq.tasks.image_classification", "onnxptq.tasks.tensor_classification")
)
