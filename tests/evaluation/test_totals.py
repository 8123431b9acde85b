"""Totals of two models: against a mean whose error is known, and where totals are no means."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from onnxptq.errors import DataError
from onnxptq.evaluation.measures import kind_of
from onnxptq.evaluation.totals import Records, TotalDrop, total_drops, totals_of


@dataclass(frozen=True)
class Named:
    compute: Callable[[Any], float]
    name: str = "total"
    larger_is_better: bool = True
    share: bool = True
    needs: tuple[str, ...] = ()
    over: Any = None


MEAN = Named(lambda records: float(np.mean(records["value"])))


def total_drop(total: Named, *arguments: Any, **options: Any) -> TotalDrop:
    (found,) = total_drops([total], *arguments, **options)
    return found


def macro_f1(records: Records) -> float:
    label, code = np.asarray(records["label"]), np.asarray(records["code"])
    hits = [((label == c) & (code == c)).sum() / ((label == c).sum() + (code == c).sum()) for c in range(3)]
    return float(2 * np.mean(hits))


def word_errors(records: Records) -> float:
    return sum(records["errors"]) / sum(records["words"])


def records(value: np.ndarray) -> Records:
    return {"value": value}


def test_with_a_block_for_each_source_the_error_of_a_mean_is_the_usual_one():
    rng = np.random.default_rng(0)
    before, after = rng.random(30), rng.random(30)
    found = total_drop(MEAN, records(before), records(after), np.arange(30), blocks=30)
    lost = before - after
    assert found.drop == pytest.approx(lost.mean())
    assert found.standard_error == pytest.approx(lost.std(ddof=1) / math.sqrt(30))
    assert (found.blocks, found.n, found.sources) == (30, 30, 30)


def test_twenty_blocks_estimate_the_same_error():
    rng = np.random.default_rng(1)
    before, after = rng.random(4000), rng.random(4000)
    errors = [
        total_drop(MEAN, records(before), records(after), np.arange(4000), seed=seed).standard_error
        for seed in range(20)
    ]
    assert np.mean(errors) == pytest.approx((before - after).std() / math.sqrt(4000), rel=0.15)


def test_copies_of_a_source_are_left_out_together():
    rng = np.random.default_rng(2)
    value = rng.random(40)
    once = total_drop(MEAN, records(value), records(value**2), np.arange(40))
    fivefold = total_drop(
        MEAN, records(np.repeat(value, 5)), records(np.repeat(value**2, 5)), np.repeat(np.arange(40), 5)
    )
    assert fivefold.standard_error == pytest.approx(once.standard_error)
    assert fivefold.bounds(0.95) == pytest.approx(once.bounds(0.95))


def test_of_an_error_rate_more_is_a_drop_and_records_may_be_lists():
    wer = Named(word_errors, "WER", larger_is_better=False)
    before = {"errors": [0, 1, 0, 2] * 10, "words": [5, 9, 4, 8] * 10}
    after = {"errors": [0, 2, 1, 2] * 10, "words": [5, 9, 4, 8] * 10}
    found = total_drop(wer, before, after, np.arange(40))
    assert (found.before, found.after) == (pytest.approx(3 / 26), pytest.approx(5 / 26))
    assert found.drop == pytest.approx(2 / 26)
    assert found.bounds(0.95)[0] < 2 / 26 < found.bounds(0.95)[1]


def test_the_interval_of_a_total_that_is_no_mean_holds_the_truth():
    """Macro-F1 with a rare class, of which INT8 loses 30 %: its mean over many draws is the truth."""
    rng = np.random.default_rng(3)
    f1 = Named(macro_f1, "macro-F1")
    found = []
    for _ in range(150):
        label = rng.choice(3, 300, p=[0.5, 0.4, 0.1])
        code = np.where(rng.random(300) < 0.9, label, 0)
        int8 = np.where((label == 2) & (rng.random(300) < 0.3), 1, code)
        before, after = ({"label": label, "code": one} for one in (code, int8))
        found.append(total_drop(f1, before, after, np.arange(300)))
    truth = float(np.mean([one.drop for one in found]))
    low, high = np.transpose([one.bounds(0.975) for one in found])
    assert 0.9 <= np.mean((low <= truth) & (truth <= high)) <= 0.99


def test_no_change_at_all_is_no_certainty():
    value = np.ones(100)
    low, high = total_drop(MEAN, records(value), records(value), np.arange(100)).bounds(0.975)
    assert (low, high) == (pytest.approx(-0.037, abs=5e-4), pytest.approx(0.037, abs=5e-4))


def test_one_source_tells_nothing_of_others():
    found = total_drop(MEAN, records(np.ones(4)), records(np.zeros(4)), np.zeros(4, dtype=int))
    assert found.drop == 1.0 and math.isnan(found.standard_error)
    assert found.bounds(0.95) == (0.0, 2.0)


def test_a_total_that_is_not_defined_is_not_a_number_and_no_rows_are_refused():
    found = total_drop(MEAN, records(np.array([np.nan, 1.0])), records(np.ones(2)), [0, 1])
    assert math.isnan(found.drop) and math.isnan(found.bounds(0.95)[1])
    assert (found.to_dict()["drop"], found.to_dict()["drop_low"], found.to_dict()["n"]) == (None, None, 2)
    with pytest.raises(DataError, match="no rows"):
        total_drop(MEAN, records(np.ones(0)), records(np.ones(0)), [])


def test_a_total_that_is_not_defined_without_a_block_has_no_error():
    """Of one object, no mAP is left without its picture: the drop is known, and how sure it is, is not."""
    only_one = Named(lambda kept: float(np.max(kept["value"])) if np.max(kept["value"]) > 0 else math.nan)
    value = np.zeros(40)
    value[7] = 1.0
    found = total_drop(only_one, records(value), records(value / 2), np.arange(40))
    assert found.drop == 0.5 and found.bounds(0.95) == (-0.5, 1.5)


def test_totals_that_share_a_computation_get_the_same_rows_in_turn():
    seen: list[tuple[str, int]] = []

    def counting(name: str) -> Named:
        return Named(lambda kept: seen.append((name, len(kept["value"]))) or 0.0, name)

    total_drops([counting("a"), counting("b")], records(np.ones(40)), records(np.ones(40)), np.arange(40))
    assert len(seen) == 2 * 2 * 21
    assert all(seen[i][1] == seen[i + 1][1] for i in range(0, len(seen), 2))


def test_the_totals_of_a_task_come_from_its_head(predictions, monkeypatch):
    label = [0, 0, 1, 1, 2, 2] * 10
    runs = [predictions(code, label) for code in (label, [0, 0, 1, 0, 2, 2] * 10)]
    assert [one.name for one in totals_of(*runs)] == ["macro-F1"]  # AUROC and top-5 need what these runs lack.
    kind = replace(kind_of(runs[0]), totals=(Named(macro_f1, "macro-F1"),))
    monkeypatch.setattr("onnxptq.evaluation.totals.kind_of", lambda run: kind)
    (found,) = totals_of(*runs)
    assert (found.name, found.before, found.sources) == ("macro-F1", 1.0, 60)
    assert found.after == pytest.approx((0.8 + 2 / 3 + 1) / 3)


def test_the_bounds_are_students_with_a_degree_less_than_blocks():
    stats = pytest.importorskip("scipy.stats")
    found = TotalDrop("mAP", 0.5, 0.4, 0.1, 0.05, 20, 900, 900)
    reach = stats.t.ppf(0.95, 19) * 0.05
    assert found.bounds(0.95) == pytest.approx((0.1 - reach, 0.1 + reach))


def test_two_sources_are_two_blocks_and_a_total_has_its_name():
    found = total_drop(MEAN, records(np.array([1.0, 1.0])), records(np.array([0.0, 1.0])), [3, 5])
    assert (found.name, found.blocks) == ("total", 2)
    assert found.standard_error == pytest.approx(0.5)
