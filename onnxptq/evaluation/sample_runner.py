"""From what a model gives for a batch to what it gave for each sample, wherever its outputs have the batch.

Outputs of real models have the batch in front, elsewhere (time first), nowhere (anchors that are constant, a mean over
the batch) or in disguise (as many rows as there are detections). What the file does not say two small runs tell; where
an output cannot be taken apart, samples run one at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from onnxptq.heads import Output
from onnxptq.signature import Feeds, Signature, placed

Array = npt.NDArray[Any]

BATCH = 64
"""Samples in one call of a model with a dynamic batch: INT8 kernels are near their best, memory stays small."""

_CONSTANT = -1
"""In the place of an axis: an output that does not depend on the samples."""


class Runner(Protocol):
    """A model that was loaded, in this process or in another one."""

    @property
    def signature(self) -> Signature:
        """Its inputs and outputs."""
        ...

    def run(self, feeds: Feeds) -> list[Array]:
        """All outputs for `feeds`, in the order of the signature."""
        ...


class SampleRunner:
    """A model that is run on any number of samples, whatever batch it has fixed and wherever its dimensions are.

    Args:
        runner: the model.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._axes: list[int | None] | None = None
        self._alone = runner.signature.alone

    @property
    def signature(self) -> Signature:
        """The model's inputs and outputs."""
        return self._runner.signature

    def run(self, feeds: Feeds) -> list[Output]:
        """All outputs of N samples, the samples in the first dimension of each.

        Args:
            feeds: one array an input, (N, ...) each: the samples in the first dimension, which is put where the model
                has it. N may be less than the batch that the model has fixed.
        """
        if self._axes is None:
            self._axes = self._find_axes(feeds)
        if not self._alone and None not in self._axes:
            found = self._together(feeds)
            if found is not None:
                return found
            self._alone = True
        count = len(next(iter(feeds.values())))
        each = [self._one({name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count)]
        return [join(parts) for parts in zip(*each, strict=True)]

    def fed(self, feeds: Feeds) -> Feeds:
        """The feeds as the model takes them: filled up to the batch that it has fixed, the batch where it has it."""
        return arranged(feeds, self.signature)

    def _find_axes(self, feeds: Feeds) -> list[int | None]:
        """Of each output the axis of the samples, `_CONSTANT`, or None where the samples must run one at a time."""
        axes = [self.signature.output_axis(spec) for spec in self.signature.outputs]
        count = len(next(iter(feeds.values())))
        if None not in axes or self._alone or self.signature.fixed_batch is not None or count < 2:
            return axes
        first, second, both = (
            self._runner.run(arranged({name: array[part] for name, array in feeds.items()}, self.signature))
            for part in (slice(0, 1), slice(1, 2), slice(0, 2))
        )
        seen = zip(axes, first, second, both, strict=True)
        return [_axis_between(*outputs) if axis is None else axis for axis, *outputs in seen]

    def _together(self, feeds: Feeds) -> list[Output] | None:
        """All samples in one run, or None where an output turns out to be otherwise than the file says."""
        count = len(next(iter(feeds.values())))
        fed = max(count, self.signature.fixed_batch or 0)
        found = []
        assert self._axes is not None
        for output, axis in zip(self._runner.run(self.fed(feeds)), self._axes, strict=True):
            assert axis is not None
            if axis == _CONSTANT:
                found.append(np.broadcast_to(output, (count, *output.shape)))
                continue
            if output.ndim <= axis or output.shape[axis] != fed:
                return None
            found.append(np.moveaxis(output, axis, 0)[:count] if axis else output[:count])
        return found

    def _one(self, feeds: Feeds) -> list[Array]:
        """The outputs of one sample, (1, ...) each."""
        fed = self.signature.fixed_batch or 1
        assert self._axes is not None
        found = []
        for number, output in enumerate(self._runner.run(self.fed(feeds))):
            axis = self._axes[number]
            if axis is None or axis == _CONSTANT or output.ndim <= axis or output.shape[axis] != fed:
                found.append(output[None])
            else:
                found.append(np.moveaxis(output, axis, 0)[:1])
        return found


def arranged(feeds: Feeds, signature: Signature) -> Feeds:
    """Feeds of N samples, the samples in the first dimension, as a model takes them.

    A batch that the model has fixed is filled up with copies of the last sample. An input without a dimension for
    samples gets that of the first sample, so N must be 1 for a model that has one (`Signature.alone`).
    """
    fixed, axes = signature.fixed_batch, signature.batch_axes
    result = {}
    for name, array in feeds.items():
        axis = axes.get(name, 0)
        if axis is not None and fixed is not None and len(array) < fixed:
            array = np.concatenate([array, np.repeat(array[-1:], fixed - len(array), axis=0)])
        result[name] = placed(array, axis)
    return result


def join(parts: Sequence[Output]) -> Output:
    """Outputs of several batches as one: an object array of arrays where samples differ in shape."""
    if len(parts) == 1:
        return parts[0]
    if all(part.dtype != object for part in parts) and len({part.shape[1:] for part in parts}) == 1:
        return np.concatenate(parts)
    each = [np.asarray(sample) for part in parts for sample in part]
    joined = np.empty(len(each), object)
    joined[:] = [np.empty(0)] * len(each)
    for position, sample in enumerate(each):
        joined[position] = sample
    return joined


def _axis_between(first: Array, second: Array, both: Array) -> int | None:
    if first.ndim == both.ndim:
        grown = [axis for axis in range(first.ndim) if (first.shape[axis], both.shape[axis]) == (1, 2)]
        others = [axis for axis in range(first.ndim) if first.shape[axis] != both.shape[axis]]
        if len(grown) == 1 and others == grown:
            return grown[0]
    alike = first.shape == second.shape == both.shape
    same = alike and np.array_equal(first, second, equal_nan=first.dtype.kind == "f")
    return _CONSTANT if same and np.array_equal(first, both, equal_nan=first.dtype.kind == "f") else None
