"""What an input is: how raw samples become model feeds.

A task is an input and a head (`onnxptq.heads`). Nothing outside `onnxptq.tasks` assumes images or text. An input is
chosen by name, configured by its specification (the preprocessing that the model carries), and sees raw rows and
batches; it never sees a model.
"""

from __future__ import annotations

import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts import Batch, Facts
from onnxptq.errors import UsageError
from onnxptq.registry import Registry
from onnxptq.signature import Feeds, Signature

Row = Mapping[str, Any]


class Input(ABC):
    """How samples of one kind are read and fed. Immutable; `specification` rebuilds it."""

    name: str
    modality: str
    """The kind of raw batch, which decides the shifts that apply: "image", "tensor", "text"."""
    group_columns: tuple[str, ...] = ()
    """Columns to group by that a sample's content itself tells, beside those of the data; see `group_values`."""

    tabular: bool = False
    """Its columns are cells of a table: numbers and categories, which may be missing, and may be grouped by."""

    @property
    @abstractmethod
    def specification(self) -> dict[str, Any]:
        """Everything needed to rebuild the input, as JSON: what an INT8 model carries and what content keys hold."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that it reads by name where the data has all of them; () where it takes what looks like an input."""
        return ()

    @abstractmethod
    def load(self, rows: Sequence[Row]) -> Batch:
        """Raw rows of a dataset as one raw batch, on which shifts work. Raises DataError naming a bad sample."""

    def loadable_together(self, rows: Sequence[Row]) -> list[list[int]]:
        """Positions of rows that `load` can make one batch of; one group unless the shapes of samples may differ."""
        return [list(range(len(rows)))]

    @abstractmethod
    def feeds(self, batch: Batch) -> Feeds:
        """A raw batch as model feeds, one array an input, the batch in the first dimension."""

    def feed_groups(self, batch: Batch) -> Iterator[tuple[npt.NDArray[np.int64], Feeds]]:
        """A raw batch as (positions, feeds) of samples that can run in one call; all at once unless shapes differ."""
        feeds = self.feeds(batch)
        yield np.arange(len(next(iter(feeds.values())))), feeds

    def arrange(self, feeds: Feeds) -> Feeds:
        """Feeds, the samples in the first dimension, as the model takes them: for inputs that have it elsewhere."""
        return feeds

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

    def input_facts(self) -> Facts:
        """What is known of the numbers of each tensor input: its kind, bounds, mean and deviation; for shifts."""
        return {}

    def cleaned(self) -> str:
        """The chain of shifts that the robust methods put on the drawn set itself, "" where there is none.

        It takes out what no model was trained on, such as columns a dozen deviations off.
        """
        return ""

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

    def defect(self, row: Row) -> str | None:
        """What is wrong with a row as this input reads it, beside what damaged data shows by itself, or None."""
        return None

    def group_values(self, rows: Sequence[Row]) -> dict[str, list[str]]:
        """The values of `group_columns`, one a row each. Raises DataError naming a bad sample."""
        return {}


@dataclass(frozen=True)
class InputKind:
    """A registered input: `build(specification, signature)` raises UsageError or ModelError when they do not fit.

    Its `keys` are those of the specification that it reads; where they are said, others are looked at as misspelt.
    """

    name: str
    summary: str
    build: Callable[[Mapping[str, Any], Signature], Input] = field(compare=False)
    formats: tuple[str, ...] = ()
    extra: str = ""
    keys: tuple[str, ...] | None = None


INPUTS: Registry[InputKind] = Registry(
    "input",
    "onnxptq.inputs",
    tuple(
        f"onnxptq.tasks.{module.name}"
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if module.name.endswith("_input") and not module.name.startswith("_")
    ),
)
"""Every module of this folder that ends in "_input", and those that entry points name."""
