"""Decoders: from what a detector writes to candidate boxes. Strangers add theirs by the entry point `onnxptq.decoders`.

A decoder makes boxes as corners in pixels of the input, and one score a class. It knows nothing of thresholds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import ModelError
from onnxptq.heads._base import Output
from onnxptq.heads._boxes import from_centers
from onnxptq.registry import Registry
from onnxptq.signature import Signature, TensorSpec

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Candidates:
    """What a decoder makes of N samples.

    Attributes:
        boxes: float32, (N, A, 4): corners in pixels of the input.
        scores: float32, (N, A, C).
        distinct: no two of them are of one object, so that nothing is left to suppress.
    """

    boxes: Array
    scores: Array
    distinct: bool = False


@dataclass(frozen=True)
class Layout:
    """What a decoder may know of the model.

    Attributes:
        size: height and width of the input in pixels.
        classes: how many there are, None where nobody says.
        settings: the specification, for settings of the decoder's own.
        names: of the outputs, in the order of `outputs`.
    """

    size: tuple[int, int]
    classes: int | None
    settings: Mapping[str, Any]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Decoder:
    """A registered decoder.

    Attributes:
        name: as the specification says it ("yolov8").
        summary: one line: what it reads.
        decode: `(outputs, layout)`; raises ModelError where it cannot read them.
        fits: `(signature, classes)`: whether the outputs can only be of this kind; be strict.
        reads: which outputs it reads; None is the first alone.
    """

    name: str
    summary: str
    decode: Callable[[Sequence[Output], Layout], Candidates] = field(compare=False)
    fits: Callable[[Signature, int | None], bool] = field(default=lambda signature, classes: False, compare=False)
    reads: Callable[[Signature], tuple[str, ...]] | None = field(default=None, compare=False)


DECODERS: Registry[Decoder] = Registry("decoder", "onnxptq.decoders", ("onnxptq.heads._decoders",))


def one_table(outputs: Sequence[Output], layout: Layout) -> Array:
    """The one output of rank 3 as float32. Raises ModelError where it has another rank."""
    table = np.asarray(outputs[0], np.float32)
    if table.ndim != 3:
        raise ModelError(f"output {layout.names[0]!r} has shape {table.shape}; a detector's is (N, A, values) or so.")
    return table


def _yolov8(outputs: Sequence[Output], layout: Layout) -> Candidates:
    """(N, 4 + C, A), or turned: center and size in pixels, one probability a class."""
    table = one_table(outputs, layout)
    width = None if layout.classes is None else 4 + layout.classes
    if table.shape[1] == width or (width is None and table.shape[1] < table.shape[2]):
        table = table.transpose(0, 2, 1)
    if width not in (None, table.shape[2]) or table.shape[2] < 5:
        raise _misfit(layout, table, f"4 + {layout.classes} values a box")
    return Candidates(from_centers(table[..., :4]), table[..., 4:])


def _yolov5(outputs: Sequence[Output], layout: Layout) -> Candidates:
    """(N, A, 5 + C): center and size in pixels, chance of an object, chances of the classes given one."""
    table = one_table(outputs, layout)
    _check_width(table, layout)
    return Candidates(from_centers(table[..., :4]), table[..., 4:5] * table[..., 5:])


def _yolox(outputs: Sequence[Output], layout: Layout) -> Candidates:
    """(N, A, 5 + C) relative to a grid of strides 8, 16 and 32 ("strides"): the exports of YOLOX."""
    table = one_table(outputs, layout)
    _check_width(table, layout)
    strides = [int(stride) for stride in layout.settings.get("strides") or (8, 16, 32)]
    places, steps = [], []
    for stride in strides:
        down, across = np.meshgrid(*(np.arange(side // stride) for side in layout.size), indexing="ij")
        places.append(np.stack([across.ravel(), down.ravel()], axis=1))
        steps.append(np.full((len(places[-1]), 1), stride))
    grid, step = np.concatenate(places).astype(np.float32), np.concatenate(steps).astype(np.float32)
    if len(grid) != table.shape[1]:
        raise _misfit(layout, table, f"{len(grid)} boxes for an input of {layout.size} and the strides {strides}")
    center, extent = (table[..., :2] + grid) * step, np.exp(np.minimum(table[..., 2:4], 20)) * step
    boxes = from_centers(np.concatenate([center, extent], axis=-1))
    return Candidates(boxes, table[..., 4:5] * table[..., 5:])


def _end_to_end(outputs: Sequence[Output], layout: Layout) -> Candidates:
    """(N, K, 6): corners in pixels, score, class; suppressed already, as YOLOv10 and exports with NMS write it."""
    table = one_table(outputs, layout)
    if table.shape[2] != 6:
        raise _misfit(layout, table, "6 values a box")
    return Candidates(table[..., :4], _spread(table[..., 4], table[..., 5], layout.classes), distinct=True)


def _decoded(outputs: Sequence[Output], layout: Layout) -> Candidates:
    """Boxes (N, A, 4) and scores (N, A, C), or boxes, scores (N, A) and labels (N, A).

    "box_format" says what the four values are: "xyxy" (default), "yxyx" or "cxcywh"; "box_units" are "pixels" (default)
    or "normalized". "background": true where the first class is none (SSD).
    """
    by_rank = [np.asarray(output, np.float32) for output in outputs]
    boxes = next((one for one in by_rank if one.ndim == 3 and one.shape[2] == 4), None)
    if boxes is None:
        raise ModelError(f"none of the outputs {', '.join(layout.names)} is (N, A, 4), so there are no boxes.")
    rest = [one for one in by_rank if one is not boxes]
    tables = [one for one in rest if one.ndim == 3 and one.shape[1] == boxes.shape[1]]
    lists = [one for one in rest if one.ndim == 2 and one.shape[1] == boxes.shape[1]]
    if tables:
        scores = tables[0][..., 1:] if layout.settings.get("background") else tables[0]
        distinct = False
    elif len(lists) >= 2:
        labels, confidences = sorted(lists[:2], key=lambda one: bool((one == np.rint(one)).all()), reverse=True)
        scores, distinct = _spread(confidences, labels, layout.classes), True
    else:
        raise ModelError(f"the outputs {', '.join(layout.names)} have boxes and no scores of the same number.")
    return Candidates(_as_corners(boxes, layout), scores, distinct)


def _as_corners(boxes: Array, layout: Layout) -> Array:
    form = layout.settings.get("box_format") or "xyxy"
    if form == "yxyx":
        boxes = boxes[..., [1, 0, 3, 2]]
    elif form == "cxcywh":
        boxes = from_centers(boxes)
    if layout.settings.get("box_units") == "normalized":
        height, width = layout.size
        boxes = boxes * np.array([width, height, width, height], np.float32)
    return boxes


def _spread(scores: Array, labels: Array, classes: int | None) -> Array:
    """Scores of one class each as a table (N, A, C); padding has a negative label."""
    labels = np.asarray(labels, np.int64)
    count = max(classes or 0, int(labels.max(initial=-1)) + 1, 1)
    table = np.zeros((*scores.shape, count), np.float32)
    valid = labels >= 0
    sample, place = np.nonzero(valid)
    table[sample, place, labels[valid]] = scores[valid]
    return table


def _check_width(table: Array, layout: Layout) -> None:
    if table.shape[2] < 6 or (layout.classes is not None and table.shape[2] != 5 + layout.classes):
        raise _misfit(layout, table, f"5 + {layout.classes if layout.classes is not None else 'classes'} values a box")


def _misfit(layout: Layout, table: Array, expected: str) -> ModelError:
    return ModelError(
        f"output {layout.names[0]!r} has shape {table.shape}, but its decoder expects {expected}. Give another decoder "
        f'("decoder" in the specification: {", ".join(DECODERS.names())}), or the right classes.'
    )


def _tables(signature: Signature) -> list[TensorSpec]:
    return [spec for spec in signature.outputs if spec.dtype.startswith("float") and len(spec.shape) == 3]


def _fits_width(extra: int, axis: int) -> Callable[[Signature, int | None], bool]:
    def fits(signature: Signature, classes: int | None) -> bool:
        found = _tables(signature)
        return len(found) == 1 and classes is not None and found[0].shape[axis] == extra + classes

    return fits


def _fits_end_to_end(signature: Signature, classes: int | None) -> bool:
    found = _tables(signature)
    return len(found) == 1 and found[0].shape[2] == 6 and classes != 1


def _fits_decoded(signature: Signature, classes: int | None) -> bool:
    return any(spec.shape[2] == 4 for spec in _tables(signature)) and len(signature.outputs) > 1


def _all_outputs(signature: Signature) -> tuple[str, ...]:
    return tuple(spec.name for spec in signature.outputs)


DECODERS.register(Decoder("yolov8", "YOLOv8 to v11: (N, 4 + classes, A)", _yolov8, _fits_width(4, 1)))
DECODERS.register(Decoder("yolov5", "YOLOv5 to v7: (N, A, 5 + classes), decoded", _yolov5, _fits_width(5, 2)))
DECODERS.register(Decoder("yolox", "YOLOX: (N, A, 5 + classes), relative to its grid", _yolox))
DECODERS.register(
    Decoder("end-to-end", "corners, score and class of K boxes: (N, K, 6)", _end_to_end, _fits_end_to_end)
)
DECODERS.register(
    Decoder(
        "decoded",
        "boxes (N, A, 4) with scores (N, A, C), or with scores and labels (N, A)",
        _decoded,
        _fits_decoded,
        _all_outputs,
    )
)
