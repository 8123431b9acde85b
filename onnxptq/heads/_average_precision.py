"""Mean average precision as COCO has it, by faster-coco-eval: boxes are matched once, and counted over any pictures."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError
from onnxptq.heads._base import Total

Rows = npt.NDArray[np.int64]

_STATS = 12
_NOTHING = (float("nan"),) * _STATS


class Matches:
    """Found boxes of many pictures matched with the true ones, at every IoU and size that COCO counts.

    Matching takes nearly all of the time, and is each picture's own; what a total is without some of the pictures needs
    counting only.

    Args:
        found: by picture six numbers a box: corners, score, class.
        true: by picture seven numbers a box: corners, class, crowd, area.

    Raises:
        UsageError: the extra `detection` is not installed.
    """

    def __init__(self, found: Sequence[npt.NDArray[np.float32]], true: Sequence[npt.NDArray[np.float32]]) -> None:
        try:
            from faster_coco_eval import COCO, COCOeval_faster
        except ImportError as error:
            raise UsageError("mAP needs the extra `detection`: pip install 'onnxptq[detection]'.") from error
        annotations, results = _annotations(true), _results(found)
        classes = {0, *(one["category_id"] for one in (*annotations, *results))}
        self._count = len(true)
        self._with_objects = np.array([len(one) > 0 for one in true])
        self._with_results = np.array([len(one) > 0 for one in found])
        self._last: tuple[bytes, tuple[float, ...]] = (b"", _NOTHING)
        if not annotations or not results:
            return
        images = [{"id": image, "width": 1, "height": 1} for image in range(self._count)]
        categories = [{"id": label, "name": str(label)} for label in sorted(classes)]
        with contextlib.redirect_stdout(io.StringIO()):
            truth = COCO({"images": images, "annotations": annotations, "categories": categories})
            said = {"print_function": lambda *words: None, "separate_eval": True}
            self._evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", **said)
            self._evaluation.evaluate()
        # One after the other: a class, a range of sizes, a picture.
        self._each = list(self._evaluation._evalImgs_cpp)

    def stats(self, rows: Rows) -> tuple[float, ...]:
        """COCO's twelve numbers over some pictures; NaN where there is nothing to find."""
        if not self._with_objects[rows].any():
            return _NOTHING
        if not self._with_results[rows].any():
            return (0.0,) * _STATS
        key = rows.tobytes()
        if self._last[0] != key:
            self._last = key, self._counted(rows)
        return self._last[1]

    def _counted(self, rows: Rows) -> tuple[float, ...]:
        import faster_coco_eval.faster_eval_api_cpp as counting

        parameters = copy.copy(self._evaluation._paramsEval)
        parameters.imgIds = rows.tolist()
        starts = range(0, len(self._each), self._count)
        some = [self._each[start + row] for start in starts for row in parameters.imgIds]
        with contextlib.redirect_stdout(io.StringIO()):
            self._evaluation.eval = counting.COCOevalAccumulate(parameters, some)
            self._evaluation.summarize()
        return tuple(float(value) if value >= 0 else float("nan") for value in self._evaluation.stats[:_STATS])


def _annotations(true: Sequence[npt.NDArray[np.float32]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for image, content in enumerate(true):
        for left, top, right, bottom, label, crowd, area in content.reshape(-1, 7).tolist():
            box = [left, top, right - left, bottom - top]
            one = {"id": len(found) + 1, "image_id": image, "category_id": int(label), "bbox": box}
            found.append({**one, "area": area, "iscrowd": int(crowd), "ignore": 0})
    return found


def _results(found: Sequence[npt.NDArray[np.float32]]) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for image, content in enumerate(found):
        for left, top, right, bottom, score, label in content.reshape(-1, 6).tolist():
            box = [left, top, right - left, bottom - top]
            results.append({"image_id": image, "category_id": int(label), "bbox": box, "score": score})
    return results


@lru_cache(maxsize=2)
def _matches(found: tuple[bytes, ...], true: tuple[bytes, ...]) -> Matches:
    """Of the two models whose totals are computed side by side, each once for all five numbers."""
    return Matches(*([np.frombuffer(one, np.float32) for one in side] for side in (found, true)))


def _over(number: int) -> Callable[[Mapping[str, Any]], Callable[[Rows], float]]:
    def over(records: Mapping[str, Any]) -> Callable[[Rows], float]:
        found, true = (
            tuple(np.asarray(one, np.float32).tobytes() for one in records[name]) for name in ("found", "true")
        )
        matches = _matches(found, true)
        return lambda rows: matches.stats(rows)[number]

    return over


def _total(name: str, summary: str, number: int) -> Total:
    over = _over(number)
    return Total(
        name,
        summary,
        lambda records: over(records)(np.arange(len(records["true"]))),
        source="Lin et al., 2014, arXiv 1405.0312, by faster-coco-eval",
        over=over,
    )


TOTALS = (
    _total("mAP@.5:.95", "mean average precision over IoU .5 to .95", 0),
    _total("mAP@.5", "mean average precision at IoU .5", 1),
    _total("mAP small", "of objects below 32 x 32 pixels", 3),
    _total("mAP medium", "of objects below 96 x 96 pixels", 4),
    _total("mAP large", "of larger objects", 5),
)
