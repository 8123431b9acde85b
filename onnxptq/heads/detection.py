"""Detection: boxes with classes come out, and an answer is as good as its F1 against the boxes of the picture.

A box is right where it overlaps a true box of its class, that no surer one has taken, by half (IoU 0.5). Crowds are
ignored as COCO ignores them: what lies in one is neither right nor wrong.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError, UsageError, did_you_mean
from onnxptq.geometry import Geometry, geometry_of
from onnxptq.heads._average_precision import TOTALS
from onnxptq.heads._base import HEADS, Head, HeadKind, Hints, Measure, Output, Scores, Specification, Truths
from onnxptq.heads._boxes import Boxes, overlaps, suppressed
from onnxptq.heads._decoders import DECODERS, Layout
from onnxptq.heads._shared import number_range
from onnxptq.signature import Signature, described

F1 = Measure(
    "F1 at IoU 0.5",
    binary=False,
    source="van Rijsbergen, 1979; boxes matched as in Pascal VOC (Everingham et al., 2010)",
    summary="F1 of a picture's boxes; 1 where there is nothing to find and nothing was found",
)
FIDELITY = Measure(
    "box fidelity", binary=False, against="reference", summary="F1 at IoU 0.5 with the reference's boxes as the truth"
)

IOU = 0.5
SCORE_THRESHOLD = 0.25
NMS_IOU = 0.5
"""Defaults of "score_threshold" and "nms_iou" in the specification."""

RECORDED_SCORE = 0.01
"""Score down to which boxes are kept for mAP, which ranks them all."""

RECORDED = 100
"""Boxes of a picture that are kept, the surest, as COCO's mAP counts at most."""

_SMALL, _MEDIUM = 32.0**2, 96.0**2
"""Areas in pixels up to which COCO calls an object small, and medium."""


@dataclass(frozen=True)
class Found:
    """The boxes of one sample, the surest first.

    Attributes:
        boxes: float32, (K, 4): corners in pixels of the input.
        scores: float32, (K,).
        classes: int64, (K,).
    """

    boxes: Boxes
    scores: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]

    def above(self, threshold: float) -> Found:
        """Those with a score of at least `threshold`."""
        kept = self.scores >= threshold
        return Found(self.boxes[kept], self.scores[kept], self.classes[kept])


@dataclass(frozen=True)
class Detection(Head):
    """Boxes of classes.

    Attributes:
        outputs: names of the outputs that the decoder reads.
        positions: where they stand among the model's outputs.
        decoder: name of the decoder.
        class_names: in the order of the scores, or ().
        score_threshold: score from which a box counts as an answer.
        nms_iou: overlap above which the less certain box of a class goes.
        geometry: how a picture became the input; None: truths are in pixels of the input.
        size: height and width of the input.
        settings: of the decoder.
    """

    outputs: tuple[str, ...]
    positions: tuple[int, ...]
    decoder: str
    class_names: tuple[str, ...]
    score_threshold: float
    nms_iou: float
    geometry: Geometry | None
    size: tuple[int, int]
    settings: Mapping[str, Any]

    name = "detection"
    group_columns = ("objects", "object_size", "main_class")

    @property
    def specification(self) -> dict[str, Any]:
        """Decoder, thresholds, classes, outputs and settings."""
        return {
            "decoder": self.decoder,
            "score_threshold": self.score_threshold,
            "nms_iou": self.nms_iou,
            "classes": list(self.class_names),
            "outputs": list(self.outputs),
            **self.settings,
        }

    @property
    def judged(self) -> tuple[str, ...]:
        """The outputs that the decoder reads."""
        return self.outputs

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, or ()."""
        return self.class_names

    def truth_columns(self) -> tuple[str, ...]:
        """What a source of pictures with boxes gives of each."""
        return ("boxes", "box_classes", "crowd", "area", "width", "height")

    def answers(self, outputs: Sequence[Output]) -> list[Found]:
        """The boxes of each sample, down to the least score that mAP ranks.

        Raises:
            ModelError: the decoder cannot read the outputs, or they hold NaN.
        """
        layout = Layout(self.size, len(self.class_names) or None, self.settings, self.outputs)
        chosen = DECODERS.get(self.decoder).decode([outputs[position] for position in self.positions], layout)
        boxes = np.ascontiguousarray(chosen.boxes, np.float32)
        scores = np.ascontiguousarray(np.asarray(chosen.scores, np.float32).transpose(0, 2, 1))
        if np.isnan(boxes).any() or np.isnan(scores).any():
            raise ModelError(f"the outputs {', '.join(self.outputs)} hold NaN. Check the model's weights.")
        iou = 1.0 if chosen.distinct else self.nms_iou
        kept = suppressed(boxes, scores, iou, RECORDED_SCORE, RECORDED)
        return [_surest(boxes[n], scores[n], kept[kept[:, 0] == n]) for n in range(len(boxes))]

    def score(self, answers: list[Found], truths: Truths) -> dict[str, Scores]:
        """F1 of each picture, NaN where a row has no truth."""
        values = [
            np.nan if (true := self._truth(truths, n)) is None else self._f1(found, true)
            for n, found in enumerate(answers)
        ]
        return {F1.name: np.asarray(values, np.float32)}

    def fidelity(self, answers: list[Found], reference: list[Found]) -> Scores:
        """F1 of each picture with the reference's boxes as the truth."""
        values = []
        for mine, theirs in zip(answers, reference, strict=True):
            true = theirs.above(self.score_threshold)
            crowd = np.zeros(len(true.boxes), np.bool_)
            values.append(f1(mine.above(self.score_threshold), true.boxes, true.classes, crowd))
        return np.asarray(values, np.float32)

    def certainty(self, answers: list[Found]) -> npt.NDArray[np.float64]:
        """How far the score that is nearest to the threshold is from it: what must change for a box to come or go."""
        return np.array([np.abs(one.scores - self.score_threshold).min(initial=1.0) for one in answers])

    def records(self, answers: list[Found], truths: Truths) -> dict[str, Sequence[Any]]:
        """For mAP: six numbers a found box (corners in pixels of the picture, score, class), seven a true one (corners,
        class, crowd, area)."""
        found, true = [], []
        for n, one in enumerate(answers):
            truth = self._truth(truths, n)
            boxes = one.boxes
            if truth is not None:
                if self.geometry is not None:
                    boxes = self.geometry.place(*truth.size).to_original(boxes)
                columns = (truth.boxes, truth.classes[:, None], truth.crowd[:, None], truth.areas[:, None])
                true.append(np.concatenate(columns, axis=1, dtype=np.float32).ravel())
            else:
                true.append(np.empty(0, np.float32))
            found.append(
                np.concatenate([boxes, one.scores[:, None], one.classes[:, None]], axis=1, dtype=np.float32).ravel()
            )
        return {"found": found, "true": true}

    def group_values(self, truths: Truths) -> dict[str, list[str]]:
        """How many objects a picture has, how large they are, and of which class most of them are."""
        found = [self._truth(truths, n) for n in range(len(truths["boxes"]))]
        return {
            "objects": ["unknown" if one is None else number_range(len(one.boxes)) for one in found],
            "object_size": ["unknown" if one is None else _size_of(one.areas) for one in found],
            "main_class": ["unknown" if one is None else self._main(one.classes) for one in found],
        }

    def _main(self, classes: npt.NDArray[np.int64]) -> str:
        if not len(classes):
            return "none"
        index = int(np.bincount(classes).argmax())
        return self.class_names[index] if self.class_names else str(index)

    def _f1(self, found: Found, true: _True) -> float:
        boxes = true.boxes if self.geometry is None else self.geometry.place(*true.size).to_input(true.boxes)
        return f1(found.above(self.score_threshold), boxes, true.classes, true.crowd)

    def _truth(self, truths: Truths, row: int) -> _True | None:
        boxes = truths["boxes"][row]
        if boxes is None:
            return None
        classes = self._indices(truths["box_classes"][row])
        crowd = truths["crowd"][row]
        areas = truths["area"][row]
        boxes = np.asarray(boxes, np.float32).reshape(-1, 4)
        if areas is None:
            areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
        crowd = np.zeros(len(boxes), np.bool_) if crowd is None else np.asarray(crowd, np.bool_)
        size = (int(truths["height"][row] or self.size[0]), int(truths["width"][row] or self.size[1]))
        return _True(boxes, classes, crowd, np.asarray(areas, np.float32), size)

    def check_truth(self, truth: Mapping[str, Any]) -> None:
        """Objects of classes that the model has."""
        self._indices(truth.get("box_classes") or ())

    def _indices(self, names: Sequence[Any]) -> npt.NDArray[np.int64]:
        known = {name: index for index, name in enumerate(self.class_names)}
        indices = []
        for name in map(str, names):
            if name in known:
                indices.append(known[name])
            elif name.isdecimal() and (not known or int(name) < len(known)):
                indices.append(int(name))
            elif known:
                raise DataError(
                    f"the data has objects of the class {name!r}, which the model lacks. {did_you_mean(name, known)} "
                    'Give the classes of the model in its order ("classes" in the specification).'
                )
            else:
                raise DataError(
                    f"the data has objects of the class {name!r}, and nothing says in which order the model has its "
                    'classes. Give them as "classes" in the specification.'
                )
        return np.asarray(indices, np.int64)


@dataclass(frozen=True)
class _True:
    """The objects of one picture, in its own pixels."""

    boxes: Boxes
    classes: npt.NDArray[np.int64]
    crowd: npt.NDArray[np.bool_]
    areas: npt.NDArray[np.float32]
    size: tuple[int, int]


def f1(found: Found, boxes: Boxes, classes: npt.NDArray[np.int64], crowd: npt.NDArray[np.bool_]) -> float:
    """F1 of found boxes against true ones; 1 where there are neither.

    Args:
        found: from the surest on.
        boxes: (M, 4): the true ones, in the same coordinates.
        classes: (M,).
        crowd: (M,): true ones that are many objects, which nothing is held against.
    """
    same = found.classes[:, None] == classes[None]
    shared = np.where(same, overlaps(found.boxes, boxes, crowd), 0.0)
    free = ~crowd
    right = ignored = 0
    for row in shared:
        open_ = np.where(free, row, 0.0)
        best = int(open_.argmax()) if len(open_) else -1
        if best >= 0 and open_[best] >= IOU:
            free[best] = False
            right += 1
        elif (row[crowd] >= IOU).any():
            ignored += 1
    answered, wanted = len(shared) - ignored, int((~crowd).sum())
    return 1.0 if answered + wanted == 0 else 2.0 * right / (answered + wanted)


def _surest(boxes: Boxes, scores: npt.NDArray[np.float32], kept: npt.NDArray[np.int64]) -> Found:
    classes, places = kept[:, 1], kept[:, 2]
    values = scores[classes, places]
    order = np.argsort(-values, kind="stable")[:RECORDED]
    return Found(boxes[places[order]], values[order], classes[order])


def _size_of(areas: npt.NDArray[np.float32]) -> str:
    if not len(areas):
        return "none"
    middle = float(np.median(areas))
    return "small" if middle < _SMALL else "medium" if middle < _MEDIUM else "large"


_SETTINGS = ("strides", "box_format", "box_units", "background")


def build(specification: Specification, signature: Signature) -> Detection:
    """The head for one model.

    Raises:
        UsageError: a threshold or a decoder is wrong.
        ModelError: no decoder is named and none fits the outputs beyond doubt.
    """
    classes = tuple(str(name) for name in specification.get("classes") or ())
    name = specification.get("decoder") or _fitting(signature, len(classes) or None)
    if name is None:
        raise ModelError(
            f"nothing says how to read boxes from {described(signature.outputs)}. Give a decoder in the specification "
            f'("decoder": one of {", ".join(DECODERS.names())}) and the classes of the model.'
        )
    decoder = DECODERS.get(str(name))
    names = [spec.name for spec in signature.outputs]
    wanted = specification.get("outputs") or (decoder.reads(signature) if decoder.reads else names[:1])
    for output in wanted:
        if output not in names:
            raise UsageError(f"the model has no output {output!r}. {did_you_mean(str(output), names)}")
    return Detection(
        outputs=tuple(wanted),
        positions=tuple(names.index(output) for output in wanted),
        decoder=decoder.name,
        class_names=classes,
        score_threshold=_share(specification, "score_threshold", SCORE_THRESHOLD),
        nms_iou=_share(specification, "nms_iou", NMS_IOU),
        geometry=geometry_of(specification),
        size=_input_size(specification, signature),
        settings={key: specification[key] for key in _SETTINGS if specification.get(key) is not None},
    )


def recognize(specification: Specification, signature: Signature, hints: Hints) -> str | None:
    """A specification that names a decoder."""
    return "the specification names a decoder" if specification.get("decoder") else None


def _fitting(signature: Signature, classes: int | None) -> str | None:
    found = [decoder.name for decoder in DECODERS if decoder.fits(signature, classes)]
    return found[0] if len(found) == 1 else None


def _input_size(specification: Specification, signature: Signature) -> tuple[int, int]:
    if (geometry := geometry_of(specification)) is not None:
        return geometry.size
    shape = next((spec.shape for spec in signature.inputs if len(spec.shape) == 4), ())
    sides = [size for size in shape[1:] if size is not None and size > 4]
    return (sides[0], sides[-1]) if len(sides) >= 2 else (1, 1)


def _share(specification: Specification, key: str, default: float) -> float:
    value = default if specification.get(key) is None else specification[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 1:
        raise UsageError(f"{key} must be above 0 and at most 1, got {value!r}.")
    return float(value)


HEADS.register(
    HeadKind(
        "detection",
        "boxes with classes, judged by F1 a picture and mAP",
        (F1,),
        FIDELITY,
        build,
        totals=TOTALS,
        recognize=recognize,
        formats=("COCO JSON", "YOLO text (images/ and labels/)", "Pascal VOC XML"),
        extra="detection",
        keys=("decoder", "score_threshold", "nms_iou", "classes", "outputs", *_SETTINGS),
    )
)
