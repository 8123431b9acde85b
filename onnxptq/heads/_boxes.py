"""Boxes: overlap, and non-maximum suppression by ONNX Runtime's own operator.

Boxes are corners: left, top, right, bottom.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

Boxes = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]


def from_centers(boxes: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """(..., 4) of center and size as corners."""
    center, half = boxes[..., :2], boxes[..., 2:4] / 2
    return np.concatenate([center - half, center + half], axis=-1)


def overlaps(boxes: Boxes, others: Boxes, crowd: Sequence[bool] | npt.NDArray[np.bool_] = ()) -> Floats:
    """Intersection over union of each pair: float64, (K, M).

    Args:
        boxes: (K, 4).
        others: (M, 4).
        crowd: of the others, bool (M,): a crowd's overlap is the share of the box that lies in it, as COCO counts it.
    """
    one, other = boxes.astype(np.float64)[:, None], others.astype(np.float64)[None]
    sides = np.minimum(one[..., 2:], other[..., 2:]) - np.maximum(one[..., :2], other[..., :2])
    shared = np.prod(np.maximum(sides, 0), axis=-1)
    mine, theirs = (np.prod(np.maximum(pair[..., 2:] - pair[..., :2], 0), axis=-1) for pair in (one, other))
    union = mine + theirs - shared
    if len(crowd):
        union = np.where(np.asarray(crowd, np.bool_)[None], mine, union)
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def suppressed(boxes: Boxes, scores: npt.NDArray[np.float32], iou: float, least: float, most: int) -> Any:
    """Which candidates are left after non-maximum suppression, class by class.

    Args:
        boxes: float32, (N, A, 4).
        scores: float32, (N, C, A).
        iou: overlap above which the less certain box of a class goes.
        least: score that a box must exceed.
        most: boxes a class and sample at most.

    Returns:
        int64, (K, 3): sample, class, candidate; within a sample and class from the most certain on.

    Source: ONNX operator NonMaxSuppression, run by ONNX Runtime.
    """
    session = _session()
    feeds = {
        "boxes": boxes,
        "scores": scores,
        "most": np.array([most], np.int64),
        "iou": np.array([iou], np.float32),
        "least": np.array([least], np.float32),
    }
    return session.run(None, feeds)[0]


@lru_cache(maxsize=1)
def _session() -> Any:
    import onnxruntime
    from onnx import TensorProto, helper

    inputs = [
        helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [None, None, 4]),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, None, None]),
        helper.make_tensor_value_info("most", TensorProto.INT64, [1]),
        helper.make_tensor_value_info("iou", TensorProto.FLOAT, [1]),
        helper.make_tensor_value_info("least", TensorProto.FLOAT, [1]),
    ]
    node = helper.make_node("NonMaxSuppression", [one.name for one in inputs], ["kept"])
    output = helper.make_tensor_value_info("kept", TensorProto.INT64, [None, 3])
    graph = helper.make_graph([node], "suppression", inputs, [output])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
