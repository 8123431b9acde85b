"""The intervals of the totals that heads have hold the truth as often as they say, by simulation."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnxptq.evaluation.totals import total_drops
from onnxptq.heads import HEADS

pytestmark = pytest.mark.oracle

PICTURES = 60
NUMBERS = 200
"""Of an RMSE with a few large errors 60 samples tell too little: 87 % of the intervals hold the truth then."""


def total(head: str, name: str) -> Any:
    return next(one for one in HEADS.get(head).totals if one.name == name)


def covered(made: Any, draw: Any, repeats: int) -> float:
    """The share of draws in whose 95 % interval the mean drop over all draws lies."""
    rng = np.random.default_rng(7)
    drops = []
    for _ in range(repeats):
        before, after = draw(rng)
        drops += total_drops([made], before, after, np.arange(len(next(iter(before.values())))))
    truth = float(np.mean([one.drop for one in drops]))
    assert truth > 0.005  # There is a loss to be found.
    low, high = np.transpose([one.bounds(0.975) for one in drops])
    return float(np.mean((low <= truth) & (truth <= high)))


def utterances(rng: Any) -> Any:
    """Character and word errors of sentences of very different lengths, of which INT8 makes more in a few."""
    words = rng.integers(1, 40, PICTURES)
    errors = rng.binomial(words, 0.1)
    more = np.where(rng.random(PICTURES) < 0.15, rng.binomial(words, 0.4), 0)
    return tuple(
        {"errors": [[5 * e, 5 * w, e, w] for e, w in zip(one.tolist(), words.tolist(), strict=True)]}
        for one in (errors, np.minimum(errors + more, words))
    )


def numbers(rng: Any) -> Any:
    """Numbers in the thousands, with a few large errors of INT8."""
    wanted = rng.normal(5000, 1000, (NUMBERS, 1))
    said = wanted + rng.normal(0, 100, wanted.shape)
    worse = said + np.where(rng.random(wanted.shape) < 0.3, rng.normal(0, 150, wanted.shape), 0)
    return tuple({"answer": list(one), "wanted": list(wanted)} for one in (said, worse))


def boxes(rng: Any) -> Any:
    """Pictures of one to four objects of two classes; INT8 misses a tenth of what FP32 finds, and shifts the rest."""
    true: list[Any] = []
    found: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(PICTURES):
        count = int(rng.integers(1, 5))
        corner = np.arange(count)[:, None] * 40 + rng.uniform(0, 10, (count, 2))
        sides = rng.uniform(20, 30, (count, 2))
        classes = rng.integers(0, 2, (count, 1))
        real = np.concatenate([corner, corner + sides], axis=1)
        true.append(
            np.concatenate([real, classes, np.zeros((count, 1)), sides.prod(axis=1, keepdims=True)], axis=1).ravel()
        )
        score, seen = rng.uniform(0.2, 1, (count, 1)), rng.random(count) < 0.9
        for number, (kept, blur) in enumerate(((seen, 1.0), (seen & (rng.random(count) < 0.9), 2.0))):
            moved = real + rng.normal(0, blur, real.shape)
            found[number].append(np.concatenate([moved, score, classes], axis=1)[kept].ravel())
    return tuple({"found": one, "true": true} for one in found)


@pytest.mark.parametrize(
    ("head", "name", "draw", "repeats"),
    [
        ("sequence", "corpus WER", utterances, 300),
        ("sequence", "corpus CER", utterances, 300),
        ("regression", "RMSE", numbers, 300),
        ("regression", "MAE", numbers, 300),
        ("detection", "mAP@.5", boxes, 100),
        ("detection", "mAP@.5:.95", boxes, 100),
    ],
)
def test_the_interval_of_a_heads_total_holds_the_truth(head: str, name: str, draw: Any, repeats: int) -> None:
    if head == "detection":
        pytest.importorskip("faster_coco_eval", reason="the extra `detection` is not installed")
    # 95 % are promised; with so many draws 90 % are within chance, and more than that is the price of the least width.
    assert covered(total(head, name), draw, repeats) >= 0.9
