"""Classification of tensors: inputs are stored as the model takes them, one value a class comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data import not_finite
from onnxptq.data.shifts import SHIFTS, Batch
from onnxptq.errors import DataError, ModelError, UsageError, did_you_mean
from onnxptq.tasks._base import TASKS, Feeds, Row, Scores, Signature, Task, TaskKind, TensorSpec
from onnxptq.tasks._scores import check_classes, choose_output, classify, input_columns, row_name, shown

DTYPES = ("float32", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")

EVALUATION_SHIFTS = ("tensor_noise@3",)
"""The default evaluation, where an input is of floats."""

AUGMENTATIONS = ("tensor_noise@3", "scale@1")
"""What the robust methods calibrate on beside the set."""

BOUNDED = {"bool": (0.0, 1.0), "uint8": (0.0, 255.0), "int8": (-128.0, 127.0)}

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class TensorClassification(Task):
    """Batches are {input: array (N, ...)} in the dtypes of the model, and are fed as they are.

    Attributes:
        inputs: the model's inputs, with the shapes that the specification fixes filled in.
        output: name of the output to score.
        output_position: where it stands among the model's outputs.
        scores: what it holds, "logits" or "probabilities".
        class_names: class names in the order of the output, or ().
    """

    inputs: tuple[TensorSpec, ...]
    output: str
    output_position: int
    scores: str
    class_names: tuple[str, ...]

    name = "tensor-classification"
    modality = "tensor"

    @property
    def specification(self) -> dict[str, Any]:
        """The shape of each input (null where it is dynamic), output, scores and classes."""
        return {
            "shape": {spec.name: list(spec.shape) for spec in self.inputs},
            "output": self.output,
            "scores": self.scores,
            "classes": list(self.class_names),
        }

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's class names, or ()."""
        return self.class_names

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

    def predict(self, outputs: Sequence[Array]) -> Scores:
        """Class, score and margin from the output that the specification names, else the first of shape (N, K).

        Raises:
            ModelError: the output has another shape or holds NaN.
        """
        return classify(outputs[self.output_position], self.scores, self.output)

    def noise(self, count: int, seed: int) -> Batch:
        """Standard normal numbers for float inputs; 0 or 1, equally often, for integers and bool, which any table of
        embeddings can look up.

        Raises:
            ModelError: an input has a dynamic dimension that the specification does not fix.
        """
        generator = np.random.default_rng(seed)
        batch: dict[str, Array] = {}
        for spec in self.inputs:
            sizes = [size for size in spec.shape[1:] if size is not None]
            if len(sizes) < len(spec.shape) - 1:
                raise ModelError(
                    f"input {spec.name!r} has shape {shown(spec.shape)}: noise needs a fixed one. "
                    f'Fix it in the preprocessing, for example {{"shape": {{"{spec.name}": [null, 3, 16]}}}}.'
                )
            shape = (count, *sizes)
            if spec.dtype == "float32":
                batch[spec.name] = generator.standard_normal(shape, np.float32)
            else:
                batch[spec.name] = generator.integers(0, 2, shape).astype(spec.dtype)
        return batch

    def input_bounds(self) -> Mapping[str, tuple[float, float]]:
        """Of inputs of 8 bits and of bool what the type can hold; wider integers seldom use all of it."""
        return {spec.name: BOUNDED[spec.dtype] for spec in self.inputs if spec.dtype in BOUNDED}

    def augmentations(self) -> tuple[str, ...]:
        """`AUGMENTATIONS` where an input is of floats, else none."""
        return tuple(shift for shift in AUGMENTATIONS if self.fits(shift) is None)

    def evaluation_shifts(self) -> tuple[str, ...]:
        """`EVALUATION_SHIFTS` where an input is of floats, else none."""
        return tuple(shift for shift in EVALUATION_SHIFTS if self.fits(shift) is None)

    def fits(self, shift_name: str) -> str | None:
        """None where the shift (`name` or `name@severity`) makes sense for these inputs, else the reason why not."""
        shift = SHIFTS.get(shift_name.partition("@")[0])
        if shift.modality != self.modality:
            return f"{shift.name} is for {shift.modality} samples, not for tensors"
        if all(spec.dtype != "float32" for spec in self.inputs):
            return f"{shift.name} changes floats only, and the model takes none"
        return None

    def _sample(self, row: Row, spec: TensorSpec) -> Array:
        columns = input_columns(row)
        if spec.name in row:
            value = row[spec.name]
        elif len(columns) == 1 and len(self.inputs) == 1:
            value = row[columns[0]]
        else:
            raise DataError(
                f"{row_name(row)} has no column for the input {spec.name!r}, but {', '.join(columns) or 'none'}. "
                "Name the columns after the model's inputs."
            )
        if not isinstance(value, np.ndarray):
            raise DataError(
                f"{row_name(row)}: the input {spec.name!r} is {type(value).__name__}; expected an array of numbers."
            )
        wanted = spec.shape[1:]
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


def build(specification: Mapping[str, Any], signature: Signature) -> TensorClassification:
    """The task for one model.

    Args:
        specification: "shape" ({input: [null, 3, 16]}, fixes dynamic dimensions), "output", "scores", "classes".
        signature: inputs of float32, integers or bool, the batch in the first dimension.

    Raises:
        UsageError: the specification names an input or an output that does not exist, or another number of classes.
        ModelError: an input's type is not supported, or its shape is not the one in the specification.
    """
    shapes = specification.get("shape") or {}
    names = [spec.name for spec in signature.inputs]
    for name in shapes:
        if name not in names:
            raise UsageError(f"the model has no input {name!r}. {did_you_mean(str(name), names)}")
    position, scores = choose_output(specification, signature.outputs)
    output = signature.outputs[position]
    return TensorClassification(
        inputs=tuple(_fixed(spec, shapes.get(spec.name)) for spec in signature.inputs),
        output=output.name,
        output_position=position,
        scores=scores,
        class_names=check_classes(specification, output),
    )


def _fixed(spec: TensorSpec, shape: Sequence[int | None] | None) -> TensorSpec:
    if spec.dtype not in DTYPES:
        raise ModelError(
            f"input {spec.name!r} is {spec.dtype}; expected float32, integers or bool. Export it in float32."
        )
    if not spec.shape:
        raise ModelError(f"input {spec.name!r} is a single number; expected the batch in the first dimension.")
    if shape is None:
        return spec
    pairs = list(zip(spec.shape, shape, strict=False))
    if len(shape) != len(spec.shape) or any(None not in (own, given) and own != given for own, given in pairs):
        raise ModelError(
            f"input {spec.name!r} has shape {shown(spec.shape)}, but the preprocessing says {shown(shape)}. "
            "Give the batch and every dimension, null where the model's own holds."
        )
    return TensorSpec(spec.name, spec.dtype, tuple(own if given is None else given for own, given in pairs))


TASKS.register(TaskKind("tensor-classification", "arrays in as they are stored, one value a class out", build))
