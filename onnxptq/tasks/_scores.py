"""From a classifier's output to predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError, UsageError, did_you_mean
from onnxptq.foreign_text import one_line
from onnxptq.tasks._base import Row, Scores, TensorSpec

OUTPUT_KINDS = ("logits", "probabilities")


def classify(output: npt.NDArray[Any], kind: str, name: str) -> Scores:
    """Predictions from one output.

    Args:
        output: (N, K) or (N, K, 1, 1), K at least 2.
        kind: "logits" (the score is their softmax) or "probabilities" (the score is the value itself).
        name: the output's name, for messages.

    Returns:
        The class of the largest value (of equal ones the lowest index), its score and its margin.

    Raises:
        ModelError: another shape, or NaN in the output.
    """
    if output.ndim < 2 or output.shape[1] < 2 or any(size != 1 for size in output.shape[2:]):
        raise ModelError(f"output {name!r} has shape {output.shape}; expected (N, K), one value for each of K classes.")
    values = output.reshape(output.shape[:2]).astype(np.float64)
    if np.isnan(values).any():
        count = int(np.isnan(values).any(axis=1).sum())
        raise ModelError(f"output {name!r} holds NaN for {count} of {len(values)} samples. Check the model's weights.")
    prediction = values.argmax(axis=1)
    second, top = np.partition(values, -2, axis=1)[:, -2:].T
    score = top if kind == "probabilities" else 1 / np.exp(values - top[:, None]).sum(axis=1)
    return Scores(prediction.astype(np.int64), score.astype(np.float32), (top - second).astype(np.float32))


def choose_output(specification: Mapping[str, Any], outputs: Sequence[TensorSpec]) -> tuple[int, str]:
    """Position and kind of the output to score: the one named, else the first (N, K), else (N, K, 1, 1).

    Raises:
        UsageError: the specification names an output or a kind that does not exist.
        ModelError: no output can be scored.
    """
    kind = specification.get("scores", "logits")
    if kind not in OUTPUT_KINDS:
        raise UsageError(f"scores must be one of {', '.join(OUTPUT_KINDS)}, got {kind!r}.")
    names = [spec.name for spec in outputs]
    named = specification.get("output")
    if named is not None and named not in names:
        raise UsageError(f"the model has no output {named!r}. {did_you_mean(str(named), names)}")
    for fits in (_is_table, _is_pooled, _is_unknown):
        for position, spec in enumerate(outputs):
            if (named is None or spec.name == named) and fits(spec.shape):
                return position, kind
    shapes = ", ".join(f"{spec.name} {shown(spec.shape)}" for spec in outputs)
    raise ModelError(f"no output can be read as classes: {shapes}. Expected (N, K), one value for each of K classes.")


def check_classes(specification: Mapping[str, Any], output: TensorSpec) -> tuple[str, ...]:
    """The class names of a specification, () without. Raises UsageError when their number is not the output's."""
    classes = tuple(one_line(str(name)) for name in specification.get("classes") or ())
    size = output.shape[1] if output.shape else None
    if classes and size is not None and size != len(classes):
        raise UsageError(
            f"there are {len(classes)} class names, but output {output.name!r} has shape {shown(output.shape)}. "
            "Give one name for each value, in the order of the output."
        )
    return classes


def shown(shape: Sequence[int | None]) -> str:
    """A shape as people write it, with N for the batch and ? for what is dynamic."""
    sizes = ["?" if size is None else str(size) for size in shape]
    if sizes and sizes[0] == "?":
        sizes[0] = "N"
    return f"({', '.join(sizes)})"


def row_name(row: Row) -> str:
    """What messages call a sample."""
    return str(row.get("_name", "a sample"))


def input_columns(row: Row) -> list[str]:
    """The columns of a row that hold inputs."""
    return [name for name in row if not name.startswith("_")]


def _is_table(shape: Sequence[int | None]) -> bool:
    """(N, K)."""
    return len(shape) == 2 and shape[1] != 1


def _is_pooled(shape: Sequence[int | None]) -> bool:
    """(N, K, 1, 1)."""
    return len(shape) == 4 and shape[1] != 1 and all(size in (1, None) for size in shape[2:])


def _is_unknown(shape: Sequence[int | None]) -> bool:
    """The model's file does not say; predictions will show."""
    return len(shape) == 0
