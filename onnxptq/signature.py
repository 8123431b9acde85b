"""The inputs and outputs of a model, and which of their dimensions counts samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Feeds = dict[str, npt.NDArray[Any]]
"""What a model is run on: one array an input, by name."""

_BATCH_NAMES = ("n", "b", "bs")
"""Names, beside those that begin with "batch", under which exporters write the dimension of the batch."""


@dataclass(frozen=True)
class Normalizer:
    """What the first nodes of a graph subtract from an input and divide it by: how its training data was distributed.

    Attributes:
        mean, deviation: in the order of the columns or channels; one number where it is the same for all.
        axis: which axis of a sample, counted from its end, they lie along; of one number it means nothing.
    """

    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    axis: int = -1


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a model.

    Attributes:
        name: of the tensor.
        dtype: numpy's name of its type; "object" for strings; for what is not a tensor "seq(...)" or "map(...)".
        shape: with None where a dimension is dynamic; () also where the file does not say.
        symbols: the names of dynamic dimensions, None for the others; () where they are not known.
        maker: operator that computes it ("Softmax"), for outputs, where it is known.
        normalizer: of an input that the graph standardizes first.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    symbols: tuple[str | None, ...] = field(default=(), compare=False)
    maker: str | None = field(default=None, compare=False)
    normalizer: Normalizer | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Signature:
    """The inputs and outputs of a model, in the order of its graph."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def fixed_batch(self) -> int | None:
        """The batch that the model has fixed, or None where it takes any."""
        for spec in self.inputs:
            axis = self.batch_axes[spec.name]
            if axis is not None and spec.shape[axis] is not None:
                return spec.shape[axis]
        return None

    @property
    def alone(self) -> bool:
        """Whether an input has no dimension that counts samples, so that samples must run one at a time."""
        return None in self.batch_axes.values()

    @cached_property
    def batch_axes(self) -> dict[str, int | None]:
        """Of each input the dimension that counts samples, None where it has none.

        The name of a dimension tells ("batch", "N", or one that inputs and outputs share); where dimensions have no
        names it is the first, unless sizes contradict: a state of (2, N, 128) beside an input of (N, 512).
        """
        symbol = self.batch_symbol
        sized = [spec for spec in self.inputs if spec.shape]
        dynamic = any(spec.shape[0] is None for spec in sized)
        size = next((spec.shape[0] for spec in sized), None)
        if symbol is None and not dynamic and size is not None and size > 1 and not self._outputs_begin_with(size):
            return dict.fromkeys((spec.name for spec in self.inputs), None)
        return {spec.name: _batch_axis(spec, symbol, None if dynamic else size) for spec in self.inputs}

    @cached_property
    def batch_symbol(self) -> str | None:
        """The name of the dimension that counts samples, or None where no name tells."""
        named = [name for spec in self.inputs for name in spec.symbols if name and _means_batch(name)]
        if len(set(named)) == 1:
            return named[0]
        first = [spec.symbols[0] for spec in self.inputs if spec.symbols and spec.symbols[0]]
        elsewhere = {name for spec in self.inputs for name in spec.symbols[1:] if name}
        counted = [spec.symbols[0] for spec in self.outputs if spec.symbols and spec.symbols[0]]
        for name in counted:
            if name in first or name in elsewhere:
                return name
        return first[0] if first else None

    def output_axis(self, spec: TensorSpec) -> int | None:
        """The dimension of an output that counts samples as far as the file says, else None."""
        symbol, size = self.batch_symbol, self.fixed_batch
        if symbol is not None and symbol in spec.symbols:
            return spec.symbols.index(symbol)
        if not spec.shape:
            return None
        if size is not None:
            if spec.shape[0] in (size, None):
                return 0
            return spec.shape.index(size) if size > 1 and spec.shape.count(size) == 1 else None
        return 0 if spec.shape[0] is None and (symbol is None or not any(spec.symbols)) else None

    def _outputs_begin_with(self, size: int) -> bool:
        return any(not spec.shape or spec.shape[0] in (size, None) for spec in self.outputs)


def _means_batch(name: str) -> bool:
    return name.casefold() in _BATCH_NAMES or name.casefold().startswith("batch")


def _batch_axis(spec: TensorSpec, symbol: str | None, size: int | None) -> int | None:
    """The dimension of one input; `size` is the batch where every input has fixed it."""
    if not spec.shape:
        return None
    if symbol is not None and symbol in spec.symbols:
        return spec.symbols.index(symbol)
    first = spec.shape[0]
    if first is None or first in (1, size):
        return 0
    if size is not None and size > 1 and spec.shape.count(size) == 1:
        return spec.shape.index(size)
    open_ones = [axis for axis, length in enumerate(spec.shape) if length is None]
    return open_ones[0] if len(open_ones) == 1 and symbol is None else None


def placed(array: npt.NDArray[Any], axis: int | None) -> npt.NDArray[Any]:
    """An array whose first dimension counts samples, with that dimension at `axis`; None: the first sample alone."""
    if axis is None:
        return np.asarray(array[0])
    return np.ascontiguousarray(np.moveaxis(array, 0, axis)) if axis else array


def shown(shape: Sequence[int | None]) -> str:
    """A shape as people write it, with N for the batch and ? for what is dynamic."""
    sizes = ["?" if size is None else str(size) for size in shape]
    if sizes and sizes[0] == "?":
        sizes[0] = "N"
    return f"({', '.join(sizes)})"


def described(outputs: Sequence[TensorSpec]) -> str:
    """Outputs with their types and shapes, for messages."""
    return ", ".join(f"{spec.name} {spec.dtype} {shown(spec.shape)}" for spec in outputs) or "none"
