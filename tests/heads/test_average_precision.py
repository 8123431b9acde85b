"""mAP over any pictures from boxes that were matched once is what matching those pictures alone gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("faster_coco_eval", reason="the extra `detection` is not installed")

from onnxptq.heads._average_precision import TOTALS, Matches


def pictures(count: int = 30) -> tuple[list[Any], list[Any]]:
    """Found and true boxes: pictures without objects, without answers, with crowds and with a rare class among them."""
    rng = np.random.default_rng(4)
    found, true = [], []
    for number in range(count):
        objects = int(rng.integers(0, 4))
        corner = rng.uniform(0, 300, (objects, 2))
        sides = rng.uniform(10, 120, (objects, 2))
        classes = np.where(rng.random((objects, 1)) < 0.1, 2, rng.integers(0, 2, (objects, 1)))
        crowd, area = rng.random((objects, 1)) < 0.15, sides.prod(axis=1, keepdims=True)
        real = np.concatenate([corner, corner + sides], axis=1)
        true.append(np.concatenate([real, classes, crowd, area], axis=1, dtype=np.float32).ravel())
        wrong = rng.uniform(0, 300, (int(rng.integers(0, 3)) * (number % 5 > 0), 2))
        said = np.concatenate([real + rng.normal(0, 3, real.shape), np.concatenate([wrong, wrong + 40], axis=1)])
        labels = np.concatenate([classes, rng.integers(0, 2, (len(wrong), 1))])
        seen = rng.random(len(said)) < (0.8 if number % 7 else 0)
        found.append(np.concatenate([said, rng.random((len(said), 1)), labels], axis=1, dtype=np.float32)[seen].ravel())
    return found, true


def test_counting_over_some_pictures_is_matching_those_alone() -> None:
    found, true = pictures()
    whole = Matches(found, true)
    rng = np.random.default_rng(0)
    for size in (30, 20, 7, 3, 1):
        rows = np.sort(rng.permutation(30)[:size])
        alone = Matches([found[i] for i in rows], [true[i] for i in rows]).stats(np.arange(size))
        np.testing.assert_array_equal(whole.stats(rows), alone)
    assert 0.1 < whole.stats(np.arange(30))[1] < 1


def test_nothing_to_find_is_not_a_number_and_nothing_found_is_0() -> None:
    found, true = pictures()
    nothing = [np.empty(0, np.float32)] * 30
    assert np.isnan(Matches(found, nothing).stats(np.arange(30))).all()
    assert Matches(nothing, true).stats(np.arange(30)) == (0.0,) * 12
    empty = np.array([i for i in range(30) if not len(true[i])])
    assert np.isnan(Matches(found, true).stats(empty)).all()


def test_totals_are_those_of_all_samples() -> None:
    found, true = pictures()
    stats = Matches(found, true).stats(np.arange(30))
    said = [total.compute({"found": found, "true": true}) for total in TOTALS]
    np.testing.assert_array_equal(said, [stats[i] for i in (0, 1, 3, 4, 5)])
