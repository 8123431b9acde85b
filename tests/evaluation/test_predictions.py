"""Predictions come back from Parquet as they were; what is not ours or newer is refused."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxptq.errors import DataError, OutputError
from onnxptq.evaluation import load_predictions, save_predictions
from onnxptq.evaluation.predictions import OutputShape, predictions_stand


def assert_equal(one, other):
    for field in fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if field.name in ("groups", "scores", "records", "energies"):
            assert sorted(mine) == sorted(theirs)
            for name in mine:
                if isinstance(mine[name], list):
                    assert mine[name] == theirs[name]
                    continue
                np.testing.assert_array_equal(mine[name], theirs[name])
        elif isinstance(mine, np.ndarray):
            assert mine.dtype.kind == theirs.dtype.kind
            np.testing.assert_array_equal(mine, theirs)
        else:
            assert mine == theirs


@pytest.fixture
def path(tmp_path):
    return tmp_path / "p.parquet"


@pytest.fixture
def two_runs(predictions):
    outputs = np.random.default_rng(0).standard_normal((3, 4))
    first = predictions([0, 1, 0], [0, 1, 1], groups={"größe": ["s", "", "l"]}, outputs=outputs, energies=(2.0, 0.5))
    return [first, replace(first, code=first.code + 1, outputs=first.outputs + 1)]


def test_several_runs_come_back_in_order(two_runs, path):
    save_predictions(path, two_runs)
    loaded = load_predictions(path)
    assert len(loaded) == 2
    for one, other in zip(two_runs, loaded, strict=True):
        assert_equal(one, other)


def test_runs_with_and_without_outputs_and_labels_come_back_as_they_were(two_runs, predictions, path):
    without = predictions([0, 1], name="other.onnx", groups={"sex": ["f", "m"]})
    for runs in ([without], [two_runs[0], without], [without, two_runs[0]]):
        save_predictions(path, runs)
        for one, other in zip(runs, load_predictions(path), strict=True):
            assert_equal(one, other)
    assert without.outputs is None
    assert not without.labelled
    assert two_runs[0].labelled


def test_other_tools_read_the_file_by_its_columns(two_runs, path):
    save_predictions(path, two_runs)
    table = pq.read_table(path)
    assert table.column_names == [
        "run", "model", "runtime", "sample_id", "source_id", "group.größe", "group.label", "group.corruption",
        "label", "code", "certainty", "signal_energy", "error_energy", "outputs",
    ]  # fmt: skip
    assert table["run"].to_pylist() == [0, 0, 0, 1, 1, 1]
    assert table["group.größe"].to_pylist() == ["s", "", "l"] * 2
    header = json.loads(table.schema.metadata[b"onnxptq.predictions"])
    assert header["schema_version"] == 2
    assert [run["model"]["name"] for run in header["runs"]] == ["m.onnx"] * 2


def test_what_is_not_ours_is_refused(tmp_path, path):
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(DataError, match="is a Parquet file, but not predictions of onnxptq"):
        load_predictions(path)
    path.write_bytes(b"not parquet")
    with pytest.raises(DataError, match="cannot be read"):
        load_predictions(path)
    with pytest.raises(DataError, match=r"gone\.parquet cannot be read"):
        load_predictions(tmp_path / "gone.parquet")


def test_a_changed_byte_of_a_page_is_refused_and_never_read(two_runs, path):
    save_predictions(path, two_runs)
    whole, loaded = path.read_bytes(), load_predictions(path)
    pages = len(whole) - 8 - int.from_bytes(whole[-8:-4], "little")
    for position in range(0, pages, 7):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :])
        try:
            found = load_predictions(path)
        except DataError:
            continue
        for one, other in zip(loaded, found, strict=True):  # In a header, where it says nothing of the values.
            assert_equal(replace(one, identity={}), replace(other, identity={}))


def test_a_file_stands_from_its_first_byte_to_its_last(two_runs, path):
    assert not predictions_stand(path)
    save_predictions(path, two_runs)
    assert predictions_stand(path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:4], whole[:-1], whole[: len(whole) // 2], whole[1:], whole + b"x", bytes(len(whole))):
        path.write_bytes(damaged)
        assert not predictions_stand(path)


def test_a_file_of_schema_1_is_read_as_what_a_classifier_said(two_runs, path):
    save_predictions(path, two_runs)
    table = pq.read_table(path)
    old = table.rename_columns([{"code": "prediction", "certainty": "margin"}.get(n, n) for n in table.column_names])
    old = old.append_column("score", pa.array([0.5] * 6, pa.float32()))
    header = {"schema_version": 1, "runs": [dict(run.identity) for run in two_runs]}
    pq.write_table(old.replace_schema_metadata({b"onnxptq.predictions": json.dumps(header).encode()}), path)
    first, second = load_predictions(path)
    assert_equal(replace(first, scores={}, records={}), two_runs[0])
    assert first.scores["accuracy"].tolist() == [1, 1, 0]
    assert second.records["confidence"].tolist() == [0.5] * 3
    assert first.labelled


def test_records_scores_and_energies_of_any_head_come_back(two_runs, path):
    run = replace(
        two_runs[0],
        code=None,
        certainty=None,
        scores={"F1 at IoU 0.5": np.array([0.5, np.nan, 1], np.float32)},
        fidelity=np.array([0.25, 1, 0], np.float32),
        records={"boxes": [[1.0, 2.0], [], [3.0]], "text": ["a", "", "c"], "count": np.array([1, 2, 3])},
        shapes=(OutputShape("a", "float32", (2, 1)), OutputShape("b", "int64", (2,))),
        energies={"a": (np.array([1.0, 2, 3]), np.array([0.5, 0, 1]))},
    )
    save_predictions(path, [run, two_runs[1]])
    found, classes = load_predictions(path)
    assert_equal(found, run)
    assert_equal(classes, two_runs[1])
    assert not found.labelled
    a, b = found.unflattened()
    assert (a.shape, b.dtype) == ((3, 2, 1), np.int64)


def test_a_newer_schema_is_refused(two_runs, path):
    save_predictions(path, two_runs)
    table = pq.read_table(path)
    header = json.loads(table.schema.metadata[b"onnxptq.predictions"])
    header["schema_version"] = 3
    pq.write_table(table.replace_schema_metadata({b"onnxptq.predictions": json.dumps(header).encode()}), path)
    with pytest.raises(DataError, match=r"has predictions of schema 3; this version reads 1 and 2\. Update onnxptq"):
        load_predictions(path)


def test_a_file_that_cannot_be_written_is_said(two_runs, tmp_path):
    with pytest.raises(OutputError, match="there is no folder"):
        save_predictions(tmp_path / "no" / "p.parquet", two_runs)


@given(
    st.lists(
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=5), min_size=1, max_size=6
    )
)
def test_any_name_of_a_group_comes_back(tmp_path_factory, names):
    from onnxptq.evaluation import Predictions

    count = len(names)
    zeros = np.zeros(count)
    run = Predictions(
        sample_id=np.arange(count).astype(np.str_),
        source_id=np.array(names, np.str_),
        groups={"g": np.array(names, np.str_)},
        label=zeros.astype(np.int64),
        code=zeros.astype(np.int64),
        certainty=zeros.astype(np.float32),
        outputs=None,
        signal_energy=zeros,
        error_energy=zeros,
        identity={"model": {"name": "m"}, "runtime": {"provider": "cpu"}},
    )
    path = tmp_path_factory.mktemp("p") / "p.parquet"
    save_predictions(path, [run])
    assert_equal(load_predictions(path)[0], run)
