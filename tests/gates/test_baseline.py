"""The baseline keeps every row's outcome, and is refused where a comparison with it would mislead."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxptq.errors import DataError
from onnxptq.evaluation.measures import AGREEMENT, Measure
from onnxptq.gates.baseline import Baseline, check_comparable, load_baseline, make_baseline, save_baseline
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules import judge
from onnxptq.gates.verdict import Verdict

Make = Callable[..., Any]


@pytest.fixture
def written(make_runs: Make, tmp_path: Path) -> Path:
    save_baseline(tmp_path / "baseline.json", make_baseline(*make_runs(50, {"label=cat": 0.3}), size=7))
    return tmp_path / "baseline.json"


def test_what_was_written_is_read_again(make_runs: Make, written: Path) -> None:
    reference, model = make_runs(50, {"label=cat": 0.3})
    read, made = load_baseline(written), make_baseline(reference, model, size=7)
    assert np.array_equal(read.scores, model.code == model.label) and not read.scores.all()
    assert (read.model, read.samples, read.rows_digest) == (made.model, made.samples, made.rows_digest)
    assert (read.labelled, read.provider, read.bytes, read.latency_ratio) == (True, "cpu", 7, None)


def test_equal_runs_write_equal_bytes(make_runs: Make, written: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    save_baseline(again, make_baseline(*make_runs(50, {"label=cat": 0.3}), size=7))
    assert again.read_bytes() == written.read_bytes()


def test_without_labels_agreement_is_kept(make_runs: Make) -> None:
    reference, model = make_runs(50, {"corruption=fog@3": 0.3}, labelled=False)
    made = make_baseline(reference, model)
    assert not made.labelled
    assert np.array_equal(made.scores, reference.code == model.code)


OTHERS = {
    "another dataset": {"data": {"digest": "0" * 64, "samples": 200}},
    "another preprocessing": {"preprocessing": {"mean": [0.4]}},
    "another task": {"task": "tensor-classification"},
    "other classes": {"classes": ["a", "b", "c", "d"]},
    "other corruptions": {"corruptions": ["clean", "fog@4"]},
    "another seed": {"seed": 1},
}


@pytest.mark.parametrize("difference", OTHERS)
def test_a_baseline_of_something_else_is_refused(make_runs: Make, written: Path, difference: str) -> None:
    with pytest.raises(DataError, match=f"{difference}.*--update-baseline"):
        check_comparable(load_baseline(written), make_runs(50, **OTHERS[difference])[1], written)


def test_a_baseline_of_other_rows_is_refused(make_runs: Make, written: Path) -> None:
    run = make_runs(40, data={"digest": "d" * 64, "samples": 200})[1]
    with pytest.raises(DataError, match="other rows"):
        check_comparable(load_baseline(written), run, written)
    check_comparable(load_baseline(written), make_runs(50, provider="cuda")[1], written)


@pytest.mark.parametrize("part", [0.0, 0.2, 0.9, 0.999])
def test_a_truncated_baseline_is_refused(written: Path, part: float) -> None:
    data = written.read_bytes()
    written.write_bytes(data[: int(len(data.rstrip()) * part)])
    with pytest.raises(DataError, match=r"truncated or damaged.*--update-baseline"):
        load_baseline(written)


DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "no object": lambda values: [values],
    "no format": lambda values: {key: value for key, value in values.items() if key != "format"},
    "no rows": lambda values: {key: value for key, value in values.items() if key != "rows"},
    "a row too many": lambda values: {**values, "rows": values["rows"] + 9},
    "a flipped outcome": lambda values: {**values, "right": values["right"] - 1},
    "no base64": lambda values: {**values, "outcomes": "?" + values["outcomes"][1:]},
    "a text for a digest": lambda values: {**values, "rows_digest": 7},
    "a truth for a size": lambda values: {**values, "bytes": True},
    "a list for the model": lambda values: {**values, "model": []},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_baseline_is_refused(written: Path, damage: str) -> None:
    written.write_text(json.dumps(DAMAGES[damage](json.loads(written.read_text()))))
    with pytest.raises(DataError, match="--update-baseline"):
        load_baseline(written)


def test_a_newer_format_is_refused(written: Path) -> None:
    written.write_text(json.dumps({**json.loads(written.read_text()), "format": 3}))
    with pytest.raises(DataError, match=r"format 3; this version reads formats 1 and 2\. Update onnxptq"):
        load_baseline(written)
    with pytest.raises(DataError, match="there is no baseline"):
        load_baseline(written.with_name("gone.json"))


F1 = Measure("F1 at IoU 0.5", binary=False)


@pytest.fixture
def graded(make_runs: Make) -> Baseline:
    made = make_baseline(*make_runs(50, {"label=cat": 0.3}))
    return replace(made, measure=F1.name, scores=np.linspace(0, 1, len(made.scores), dtype=np.float32))


def test_graded_scores_are_read_as_they_were_written(graded: Baseline, tmp_path: Path) -> None:
    save_baseline(tmp_path / "b.json", graded)
    read = load_baseline(tmp_path / "b.json")
    np.testing.assert_array_equal(read.scores, graded.scores)
    assert (read.measure, read.labelled, read.scores.dtype) == (F1.name, True, np.float32)


def test_a_classifiers_baseline_is_written_as_it_always_was(written: Path) -> None:
    values = json.loads(written.read_text())
    assert values["format"] == 1 and "scores" not in values


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: {**values, "rows": values["rows"] + 1},
        lambda values: {**values, "scores": "AQAA" + values["scores"][4:]},
        lambda values: {**values, "measure": 3},
    ],
)
def test_damaged_graded_scores_are_refused(graded: Baseline, tmp_path: Path, damage: Any) -> None:
    path = tmp_path / "b.json"
    save_baseline(path, graded)
    path.write_text(json.dumps(damage(json.loads(path.read_text()))))
    with pytest.raises(DataError, match="--update-baseline"):
        load_baseline(path)
    save_baseline(path, replace(graded, scores=graded.scores * 2))
    with pytest.raises(DataError, match="not from 0 to 1"):
        load_baseline(path)


def test_a_baseline_of_another_score_is_refused(make_runs: Make, written: Path, graded: Baseline) -> None:
    run = make_runs(50, {"label=cat": 0.3})[1]
    with pytest.raises(DataError, match=r"holds the F1 at IoU 0\.5 of its rows, and the accuracy is judged here"):
        check_comparable(graded, run, written)
    with pytest.raises(DataError, match=r"holds the accuracy .* and the agreement is judged here"):
        check_comparable(load_baseline(written), run, written, AGREEMENT)


def test_a_regression_of_graded_scores_is_found_row_by_row(evidence: Make, graded: Baseline) -> None:
    found = evidence(50)
    better = replace(graded, scores=np.full(len(found.pairing), 0.9, np.float32))
    worse = replace(found.pairing, measure=F1, after=np.full(len(found.pairing), 0.8))
    judged = {result.rule: result for result in judge(Policy(), replace(found, pairing=worse, baseline=better))}
    assert judged["regression (average)"].verdict is Verdict.FAILED
    assert judged["regression (average)"].value == pytest.approx(0.1)
