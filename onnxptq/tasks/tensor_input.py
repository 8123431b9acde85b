"""Tensors: inputs are stored as the model takes them. Any number of them, of any type and rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data import not_finite
from onnxptq.data.shifts import SHIFTS, Batch, Facts, InputFacts
from onnxptq.errors import DataError, ModelError, UsageError, did_you_mean
from onnxptq.signature import Feeds, Signature, TensorSpec, placed, shown
from onnxptq.tasks._base import INPUTS, Input, InputKind, Row
from onnxptq.tasks._rows import input_columns, row_name
from onnxptq.tasks._tensor_facts import FLOATS, KEYS, cleaned, copies, facts_of, facts_to_json, why_not

DTYPES = (*FLOATS, "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool", "object")

NOISE_SIDE = 224
"""Size of noise along the dynamic height and width of an input of four dimensions, where nobody says."""

NOISE_LENGTH = 16
"""Size of noise along any other dynamic dimension: a short sequence."""

EVALUATION_SHIFTS = ("tensor_noise@3",)
"""The default evaluation, where an input is of floats."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorInput(Input):
    """Batches are {input: array (N, ...)} in the dtypes of the model, and are fed as they are.

    Attributes:
        inputs: the model's inputs as the data stores them: (N, and the shape of one sample), with the sizes that the
            specification fixes filled in. An input without a dimension for samples (a rate, a state) is stored once a
            sample too.
        axes: of each input the dimension that counts samples in the model, None where it has none; () is the first.
        facts: what is known of the numbers of the inputs, by name.
    """

    inputs: tuple[TensorSpec, ...]
    axes: tuple[int | None, ...] = field(default=(), compare=False)
    facts: Facts = field(default_factory=dict, hash=False)

    name = "tensor"
    modality = "tensor"

    @property
    def specification(self) -> dict[str, Any]:
        """The shape of each input as the data stores it, null where it is dynamic, and what is known of its numbers."""
        shapes = {spec.name: list(spec.shape) for spec in self.inputs}
        return {"shape": shapes, **facts_to_json(self.facts, self.inputs)}

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the inputs."""
        return tuple(spec.name for spec in self.inputs)

    def load(self, rows: Sequence[Row]) -> Batch:
        """Stacks the samples: {input: array (N, ...)} in the dtype of the model.

        A column goes to the input of its name; a single column goes to a single input.

        Raises:
            DataError: a column is missing, a shape does not fit (the message shows both), a value is not finite or
                is lost in the model's dtype; the message names the sample.
        """
        return {spec.name: np.stack([self._sample(row, spec) for row in rows]) for spec in self.inputs}

    def loadable_together(self, rows: Sequence[Row]) -> list[list[int]]:
        """Rows of equal shapes, in the order of their first ones: sequences may have any length."""
        groups: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for position, row in enumerate(rows):
            shapes = tuple(np.shape(row[name]) for name in input_columns(row))
            groups.setdefault(shapes, []).append(position)
        return list(groups.values())

    def feeds(self, batch: Batch) -> Feeds:
        """The batch itself, contiguous."""
        return {spec.name: np.ascontiguousarray(batch[spec.name]) for spec in self.inputs}

    def arrange(self, feeds: Feeds) -> Feeds:
        """Each array with the samples where the model has them."""
        axes = dict(zip((spec.name for spec in self.inputs), self.axes, strict=False))
        return {name: placed(array, axes.get(name, 0)) for name, array in feeds.items()}

    def noise(self, count: int, seed: int) -> Batch:
        """Normal numbers for float inputs, of the training data's mean and deviation where they are known, else uniform
        ones inside the bounds, else standard ones; 0 or 1, equally often, for integers and bool, which any table of
        embeddings can look up; the letter a or b for text.

        A dynamic dimension has the size that the specification gives ("shape", or `--shape`), else `NOISE_SIDE` for
        height and width of an input of four dimensions and `NOISE_LENGTH` otherwise; one name has one size.
        """
        generator = np.random.default_rng(seed)
        batch: dict[str, Array] = {}
        for spec in self.inputs:
            shape = (count, *self._noise_sizes(spec))
            if spec.dtype in FLOATS:
                batch[spec.name] = _noise(generator, shape, self.facts[spec.name]).astype(spec.dtype)
            elif spec.dtype == "object":
                batch[spec.name] = np.where(generator.random(shape) < 0.5, "a", "b").astype(object)
            else:
                batch[spec.name] = generator.integers(0, 2, shape).astype(spec.dtype)
        return batch

    def _noise_sizes(self, spec: TensorSpec) -> list[int]:
        named = {
            symbol: size
            for one in self.inputs
            for symbol, size in zip(one.symbols[1:], one.shape[1:], strict=False)
            if symbol is not None and size is not None
        }
        sizes = []
        for axis, size in enumerate(spec.shape[1:], 1):
            symbol = spec.symbols[axis] if axis < len(spec.symbols) else None
            spatial = len(spec.shape) == 4 and axis in _spatial(spec.shape)
            default = NOISE_SIDE if spatial else NOISE_LENGTH
            sizes.append(size if size is not None else named.get(symbol, default) if symbol else default)
        return sizes

    def input_bounds(self) -> Mapping[str, tuple[float, float]]:
        """Declared bounds, and those of inputs of 8 bits and of bool."""
        return {name: one.bounds for name, one in self.facts.items() if one.bounds is not None}

    def input_facts(self) -> Facts:
        """What is known of each input."""
        return self.facts

    def cleaned(self) -> str:
        """Cuts outliers of tables whose columns' mean and deviation are known."""
        return cleaned(self.facts)

    def augmentations(self) -> tuple[str, ...]:
        """Copies by what is known of the float inputs (`_tensor_facts.copies`); none without such an input."""
        return copies(self._float_facts)

    @property
    def _float_facts(self) -> Facts:
        return {spec.name: self.facts[spec.name] for spec in self.inputs if spec.dtype in FLOATS}

    def evaluation_shifts(self) -> tuple[str, ...]:
        """`EVALUATION_SHIFTS` where an input is of floats, else none."""
        return tuple(shift for shift in EVALUATION_SHIFTS if self.fits(shift) is None)

    def fits(self, shift_name: str) -> str | None:
        """None where the shift (`name` or `name@severity`) makes sense for these inputs, else the reason why not."""
        shift = SHIFTS.get(shift_name.partition("@")[0])
        if shift.modality != self.modality:
            own = (other.name for other in SHIFTS if other.modality == self.modality)
            known = ", ".join(name for name in own if self.fits(name) is None) or "none"
            what = "tables" if self.tabular else "tensors"
            return f"{shift.name} is for {shift.modality} samples, not for {what}; for these there are {known}"
        if all(spec.dtype not in FLOATS for spec in self.inputs):
            return f"{shift.name} changes floats only, and the model takes none"
        return why_not(shift.name, self._float_facts)

    def _sample(self, row: Row, spec: TensorSpec) -> Array:
        columns = input_columns(row)
        if spec.dtype != "object" and any(isinstance(row[name], str) for name in columns):
            raise DataError(
                f"{row_name(row)} is text, and nothing says how the model reads text. Put its tokenizer beside it, or "
                "into its metadata (docs/text.md)."
            )
        if spec.name in row:
            value = row[spec.name]
        elif len(columns) == 1 and len(self.inputs) == 1:
            value = row[columns[0]]
        else:
            raise DataError(
                f"{row_name(row)} has no column for the input {spec.name!r}, but {', '.join(columns) or 'none'}. "
                "Name the columns after the model's inputs."
            )
        if value is None:
            raise DataError(f"{row_name(row)} has nothing in the column of the input {spec.name!r}. Fill it.")
        if isinstance(value, (int, float, bool, np.generic)) or (isinstance(value, str) and spec.dtype == "object"):
            value = np.asarray(value)
        if not isinstance(value, np.ndarray):
            raise DataError(
                f"{row_name(row)}: the input {spec.name!r} is {type(value).__name__}; expected an array of numbers."
            )
        wanted = spec.shape[1:]
        if not wanted and value.size == 1:
            value = value.reshape(())
        elif value.ndim == 0 and wanted in ((1,), (None,)):
            value = value.reshape(1)
        if value.ndim != len(wanted) or any(w not in (None, size) for w, size in zip(wanted, value.shape, strict=True)):
            raise DataError(
                f"{row_name(row)} has shape {value.shape}, but the input {spec.name!r} takes {shown(spec.shape)}, that "
                f"is ({', '.join('?' if w is None else str(w) for w in wanted)}) for one sample."
            )
        return _cast(value, spec, row_name(row))


def _cast(value: Array, spec: TensorSpec, name: str) -> Array:
    """The value in the model's dtype. Raises DataError when it holds NaN or infinity or would lose more than digits."""
    if reason := not_finite(value):
        raise DataError(f"{name} holds {reason} in the input {spec.name!r}. Repair it or leave bad ones out.")
    dtype = np.dtype(spec.dtype)
    if spec.dtype == "object":
        return value.astype(str).astype(object)
    if value.dtype == dtype:
        return value
    if value.dtype.kind not in "biuf" or (value.dtype.kind == "f" and dtype.kind != "f"):
        raise DataError(f"{name} is {value.dtype}, but the input {spec.name!r} takes {dtype}. Store it as {dtype}.")
    with np.errstate(over="ignore"):
        cast = value.astype(dtype)
    lost = not_finite(cast) is not None if dtype.kind == "f" else not np.array_equal(cast, value)
    if lost:
        raise DataError(
            f"{name} has values from {value.min()} to {value.max()}; the input {spec.name!r} is {dtype}. Rescale them."
        )
    return cast


def build(specification: Mapping[str, Any], signature: Signature) -> TensorInput:
    """The input of one model.

    Args:
        specification: "shape" ({input: [null, 3, 16]}, fixes dynamic dimensions), and what is known of the numbers
            (`_tensor_facts`).
        signature: inputs of numbers, bool or text.

    Raises:
        UsageError: the specification names an input that does not exist.
        ModelError: an input's type is not supported, or its shape is not the one in the specification.
    """
    shapes = specification.get("shape") or {}
    if not isinstance(shapes, Mapping):
        raise UsageError(f'preprocessing: shape must be as {{"x": [null, 3, 16]}}, got {shapes!r}.')
    names = [spec.name for spec in signature.inputs]
    for name in shapes:
        if name not in names:
            raise UsageError(f"the model has no input {name!r}. {did_you_mean(str(name), names)}")
    axes = signature.batch_axes
    inputs = tuple(_fixed(_stored(spec, axes[spec.name]), shapes.get(spec.name)) for spec in signature.inputs)
    return TensorInput(inputs, tuple(axes[spec.name] for spec in signature.inputs), facts_of(specification, inputs))


def _noise(generator: np.random.Generator, shape: tuple[int, ...], facts: InputFacts) -> Array:
    if facts.bounds is not None and not facts.standard:
        return generator.uniform(*facts.bounds, shape)
    unit = generator.standard_normal(shape, np.float32)
    return unit * facts.deviation + facts.mean if facts.standard else unit


def _spatial(shape: Sequence[int | None]) -> tuple[int, int]:
    """Height and width of (N, C, H, W) or (N, H, W, C)."""
    return (1, 2) if shape[3] in (1, 3) and shape[1] not in (1, 3) else (2, 3)


def _stored(spec: TensorSpec, axis: int | None) -> TensorSpec:
    """An input as the data stores it: the samples in the first dimension."""
    if axis == 0:
        return spec
    if axis is None:
        return TensorSpec(spec.name, spec.dtype, (None, *spec.shape), (None, *spec.symbols))
    shape, symbols = list(spec.shape), list(spec.symbols)
    shape.insert(0, shape.pop(axis))
    if symbols:
        symbols.insert(0, symbols.pop(axis))
    return TensorSpec(spec.name, spec.dtype, tuple(shape), tuple(symbols))


def _fixed(spec: TensorSpec, shape: Sequence[int | None] | None) -> TensorSpec:
    if spec.dtype not in DTYPES:
        raise ModelError(
            f"input {spec.name!r} is {spec.dtype}; expected floats, integers, bool or text. Export it in float32."
        )
    if shape is None:
        return spec
    if isinstance(shape, (list, tuple)) and len(shape) == len(spec.shape):
        # The batch is no property of a sample: a size that is given for an open one says nothing.
        shape = [spec.shape[0] if spec.shape[0] is None else shape[0], *shape[1:]]
    pairs = list(zip(spec.shape, shape, strict=False))
    if len(shape) != len(spec.shape) or any(None not in (own, given) and own != given for own, given in pairs):
        raise ModelError(
            f"input {spec.name!r} has shape {shown(spec.shape)}, but the preprocessing says {shown(shape)}. "
            "Give the batch and every dimension, null where the model's own holds."
        )
    return replace(spec, shape=tuple(own if given is None else given for own, given in pairs))


INPUTS.register(
    InputKind(
        "tensor",
        "arrays as they are stored, one for each input of the model",
        build,
        formats=(".npz, an array for each input", "a table with a column for each input"),
        keys=("shape", *KEYS),
    )
)
