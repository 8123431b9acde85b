"""The baseline keeps every row's outcome, and is refused where a comparison with it would mislead."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxptq.errors import DataError
from onnxptq.gates.baseline import check_comparable, load_baseline, make_baseline, save_baseline

Make = Callable[..., Any]


@pytest.fixture
def written(make_runs: Make, tmp_path: Path) -> Path:
    save_baseline(tmp_path / "baseline.json", make_baseline(*make_runs(50, {"label=cat": 0.3}), size=7))
    return tmp_path / "baseline.json"


def test_what_was_written_is_read_again(make_runs: Make, written: Path) -> None:
    reference, model = make_runs(50, {"label=cat": 0.3})
    read, made = load_baseline(written), make_baseline(reference, model, size=7)
    assert np.array_equal(read.outcomes, model.code == model.label) and not read.outcomes.all()
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
    assert np.array_equal(made.outcomes, reference.code == model.code)


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
    written.write_text(json.dumps({**json.loads(written.read_text()), "format": 2}))
    with pytest.raises(DataError, match=r"format 2; this version reads format 1\. Update onnxptq"):
        load_baseline(written)
    with pytest.raises(DataError, match="there is no baseline"):
        load_baseline(written.with_name("gone.json"))
