"""Segmentation: a class for every pixel comes out, and an answer is as good as the mean IoU of the picture's classes.

The true mask is carried to where the model sees it (resized as the picture is, nearest pixel), and is compared in the
resolution of the output. What a letterbox adds, and pixels of the ignored class, count nowhere.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError, ModelError, UsageError
from onnxptq.geometry import Geometry, geometry_of
from onnxptq.heads._base import HEADS, Head, HeadKind, Hints, Measure, Output, Scores, Specification, Total, Truths
from onnxptq.heads._shared import find_output, number_range
from onnxptq.signature import Signature, TensorSpec, described

MIOU = Measure(
    "mIoU",
    binary=False,
    source="Everingham et al., 2010, averaged over the classes of one picture",
    summary="intersection over union, mean of the classes that a picture or the answer has",
)
FIDELITY = Measure(
    "mask fidelity", binary=False, against="reference", summary="mIoU with the reference's mask as truth"
)

IGNORED = 255
"""The class of pixels that count nowhere, unless the specification gives another "ignore_index"."""

Masks = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Segmented:
    """The answers for N samples.

    Attributes:
        masks: int32, (N, H, W): the class of each pixel.
        margins: float64, (N,): how far the first class lies ahead of the second, mean over the pixels.
    """

    masks: Masks
    margins: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Segmentation(Head):
    """One output with a value a class and pixel, one a pixel (a foreground), or the classes themselves.

    Attributes:
        output: its name.
        position: where it stands among the model's outputs.
        scores: "logits" or "probabilities": where a single value says foreground (above 0, above 0.5).
        channels_last: (N, H, W, K) and not (N, K, H, W).
        class_names: or ().
        ignored: the class of pixels that count nowhere.
        geometry: how a picture became the input; None: masks are stored in the input's own pixels.
    """

    output: str
    position: int
    scores: str
    channels_last: bool
    class_names: tuple[str, ...]
    ignored: int
    geometry: Geometry | None

    name = "segmentation"
    group_columns = ("main_class", "foreground", "present")

    @property
    def specification(self) -> dict[str, Any]:
        """Output, scores, channels_last, classes and ignore_index."""
        return {
            "output": self.output,
            "scores": self.scores,
            "channels_last": self.channels_last,
            "classes": list(self.class_names),
            "ignore_index": self.ignored,
        }

    @property
    def judged(self) -> tuple[str, ...]:
        """The output."""
        return (self.output,)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, or ()."""
        return self.class_names

    def truth_columns(self) -> tuple[str, ...]:
        """A mask a sample: integers (H, W)."""
        return ("mask",)

    def answers(self, outputs: Sequence[Output]) -> Segmented:
        """The class of each pixel. Raises ModelError where the output has another rank or holds NaN."""
        values = np.asarray(outputs[self.position])
        if values.dtype == object:
            raise ModelError(f"output {self.output!r} has another size for each sample; masks of one size are needed.")
        if values.dtype.kind in "iub" and values.ndim in (3, 4):
            masks = values.reshape(len(values), *[side for side in values.shape[1:] if side != 1 or values.ndim == 3])
            return Segmented(masks.astype(np.int32), np.zeros(len(values)))
        if values.ndim == 3:
            values = values[:, None]
        elif values.ndim == 4 and self.channels_last:
            values = values.transpose(0, 3, 1, 2)
        if values.ndim != 4:
            raise ModelError(f"output {self.output!r} has shape {values.shape}; expected (N, K, H, W) or (N, H, W).")
        values = values.astype(np.float32)
        if np.isnan(values).any():
            raise ModelError(f"output {self.output!r} holds NaN. Check the model's weights.")
        if values.shape[1] == 1:
            middle = 0.5 if self.scores == "probabilities" else 0.0
            return Segmented((values[:, 0] > middle).astype(np.int32), np.abs(values - middle).mean(axis=(1, 2, 3)))
        top = np.partition(values, -2, axis=1)[:, -2:]
        return Segmented(values.argmax(axis=1).astype(np.int32), (top[:, 1] - top[:, 0]).mean(axis=(1, 2)))

    def score(self, answers: Segmented, truths: Truths) -> dict[str, Scores]:
        """mIoU of each picture, NaN where it has no mask or nothing but ignored pixels."""
        found = [
            np.nan if true is None else mean_iou(counts(mask, true, self.ignored))
            for mask, true in zip(answers.masks, self._truths(answers.masks, truths), strict=True)
        ]
        return {MIOU.name: np.asarray(found, np.float32)}

    def fidelity(self, answers: Segmented, reference: Segmented) -> Scores:
        """mIoU of each picture with the reference's mask as the truth."""
        pairs = zip(answers.masks, reference.masks, strict=True)
        return np.asarray([mean_iou(counts(mine, theirs, -1)) for mine, theirs in pairs], np.float32)

    def certainty(self, answers: Segmented) -> npt.NDArray[np.float64]:
        """The mean margin of the pixels."""
        return answers.margins

    def records(self, answers: Segmented, truths: Truths) -> dict[str, Sequence[Any]]:
        """Four numbers a class that occurs: class, pixels of both, of the answer alone, and of the truth alone."""
        rows: list[Any] = []
        for mask, true in zip(answers.masks, self._truths(answers.masks, truths), strict=True):
            table = np.empty((0, 4)) if true is None else counts(mask, true, self.ignored)
            rows.append(table.astype(np.float64).ravel())
        return {"pixels": rows}

    def group_values(self, truths: Truths) -> dict[str, list[str]]:
        """The class that covers most of a picture beside the first (the background), how much is not the first, and how
        many classes beside it there are."""
        main: list[str] = []
        foreground: list[str] = []
        present: list[str] = []
        for mask in truths["mask"]:
            if mask is None:
                for column in (main, foreground, present):
                    column.append("unknown")
                continue
            values = np.asarray(mask).ravel()
            values = values[values != self.ignored]
            others = np.bincount(values[values > 0]) if (values > 0).any() else np.zeros(1)
            main.append(self._class(int(others.argmax())) if others.any() else "none")
            present.append(number_range(int(np.count_nonzero(others))))
            share = float((values > 0).mean()) if len(values) else 0.0
            foreground.append(next(name for limit, name in _SHARES if share <= limit))
        return {"main_class": main, "foreground": foreground, "present": present}

    def _class(self, index: int) -> str:
        return self.class_names[index] if index < len(self.class_names) else str(index)

    def _truths(self, masks: Masks, truths: Truths) -> list[Masks | None]:
        return [
            None if true is None else self._placed(np.asarray(true), mask.shape)
            for mask, true in zip(masks, truths["mask"], strict=True)
        ]

    def _placed(self, mask: npt.NDArray[Any], shape: tuple[int, ...]) -> Masks:
        """A mask in its picture's pixels as the model sees it, in the resolution of the output."""
        mask = self._checked(mask)
        height, width = shape
        if self.geometry is None:
            return mask[_nearest(height, mask.shape[0])[:, None], _nearest(width, mask.shape[1])].astype(np.int32)
        place = self.geometry.place(*mask.shape)
        rows = (_nearest(height, self.geometry.size[0]) - place.top + 0.5) * mask.shape[0] / place.height
        columns = (_nearest(width, self.geometry.size[1]) - place.left + 0.5) * mask.shape[1] / place.width
        inside = ((rows >= 0) & (rows < mask.shape[0]))[:, None] & ((columns >= 0) & (columns < mask.shape[1]))
        taken = mask[
            rows.astype(np.int64).clip(0, mask.shape[0] - 1)[:, None],
            columns.astype(np.int64).clip(0, mask.shape[1] - 1),
        ]
        return np.where(inside, taken, self.ignored).astype(np.int32)

    def check_truth(self, truth: Mapping[str, Any]) -> None:
        """A mask of classes that the model has."""
        if truth.get("mask") is not None:
            self._checked(np.asarray(truth["mask"]))

    def _checked(self, mask: npt.NDArray[Any]) -> npt.NDArray[Any]:
        mask = mask.squeeze()
        if mask.ndim != 2 or mask.dtype.kind not in "iub":
            raise DataError(f"a mask is {mask.dtype} of shape {mask.shape}; expected integers, (height, width).")
        known = len(self.class_names)
        present = mask[mask != self.ignored]
        if present.size and int(present.min()) < 0:
            raise DataError(f"a mask has the class {int(present.min())}; classes are numbers from 0 on.")
        if known and present.size and int(present.max()) >= known:
            raise DataError(
                f"a mask has the class {int(present.max())}, but the model knows {known}: 0 to {known - 1}. Give the "
                'class of pixels that count nowhere ("ignore_index" in the specification), or the right masks.'
            )
        return mask


_SHARES = ((0.0, "none"), (0.05, "up to 5 %"), (0.2, "5 to 20 %"), (0.5, "20 to 50 %"), (1.0, "over 50 %"))


def counts(mask: Masks, true: Masks, ignored: int) -> npt.NDArray[np.int64]:
    """Pixels by class: int64, (C, 4): class, in both, in the mask alone, in the truth alone; classes that occur."""
    used = true != ignored
    mine, theirs = mask[used], true[used]
    size = 1 + int(max(mine.max(initial=-1), theirs.max(initial=-1)))
    both, of_mine, of_theirs = (np.bincount(one, minlength=size) for one in (mine[mine == theirs], mine, theirs))
    classes = np.flatnonzero(of_mine + of_theirs)
    table = np.column_stack([np.arange(size), both, of_mine - both, of_theirs - both])
    return table[classes].astype(np.int64).reshape(-1, 4)


def mean_iou(table: npt.NDArray[Any]) -> float:
    """Mean intersection over union of the classes of `counts`; NaN where there is none."""
    if not len(table):
        return float("nan")
    return float((table[:, 1] / table[:, 1:].sum(axis=1)).mean())


def _nearest(target: int, source: int) -> npt.NDArray[np.int64]:
    """For each of `target` pixels the one of `source` that lies under its middle."""
    return ((np.arange(target) + 0.5) * source / target).astype(np.int64)


def _summed(records: Mapping[str, Any]) -> npt.NDArray[np.float64]:
    """`counts` over a data set."""
    rows = np.concatenate([np.asarray(one, np.float64).reshape(-1, 4) for one in records["pixels"]])
    classes = np.unique(rows[:, 0])
    return np.array([[one, *rows[rows[:, 0] == one, 1:].sum(axis=0)] for one in classes]).reshape(-1, 4)


def _accuracy(records: Mapping[str, Any]) -> float:
    table = _summed(records)
    wanted = table[:, 1].sum() + table[:, 3].sum()
    return float(table[:, 1].sum() / wanted) if wanted else float("nan")


TOTALS = (
    Total("data-set mIoU", "mean IoU of the classes over all pixels", lambda records: mean_iou(_summed(records))),
    Total("pixel accuracy", "share of the pixels with the right class", _accuracy),
)


def build(specification: Specification, signature: Signature) -> Segmentation:
    """The head for one model: the output that the specification names, else the first of rank 4 or 3.

    Raises:
        UsageError: the specification names an output that there is not, or a key is wrong.
        ModelError: no output can be a mask.
    """
    scores = specification.get("scores") or "logits"
    if scores not in ("logits", "probabilities"):
        raise UsageError(f"scores must be one of logits, probabilities, got {scores!r}.")
    found = find_output(specification, signature, _is_mask)
    if found is None:
        raise ModelError(
            f"no output can be a mask: {described(signature.outputs)}. Expected (N, K, H, W) or (N, H, W)."
        )
    classes = tuple(str(name) for name in specification.get("classes") or ())
    last = specification.get("channels_last")
    if last is None:
        shape = found[0].shape
        last = len(shape) == 4 and bool(classes) and shape[3] == len(classes) != shape[1]
    return Segmentation(
        output=found[0].name,
        position=found[1],
        scores=scores,
        channels_last=bool(last),
        class_names=classes,
        ignored=IGNORED if specification.get("ignore_index") is None else int(specification["ignore_index"]),
        geometry=geometry_of(specification),
    )


def recognize(specification: Specification, signature: Signature, hints: Hints) -> str | None:
    """Class names, and one output with a value for each class and pixel."""
    classes = specification.get("classes") or ()
    found = [spec for spec in signature.outputs if len(spec.shape) == 4 and spec.shape[2:] != (1, 1)]
    if len(classes) > 1 and len(found) == 1 == len(signature.outputs) and len(classes) in found[0].shape[1:]:
        return f"output {found[0].name} has a value for each of {len(classes)} classes and each pixel"
    return None


def _is_mask(spec: TensorSpec) -> bool:
    return len(spec.shape) in (3, 4) and spec.shape[2:] != (1, 1)


HEADS.register(
    HeadKind(
        "segmentation",
        "a class for every pixel, judged by mIoU a picture",
        (MIOU,),
        FIDELITY,
        build,
        totals=TOTALS,
        recognize=recognize,
        formats=("images/ and masks/ (PNG by stem)", "a column or array mask"),
        keys=("output", "scores", "channels_last", "classes", "ignore_index"),
    )
)
