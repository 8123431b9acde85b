"""Parquet, Arrow, CSV, TSV, JSON lines and saved `datasets` folders, through the real library."""

from __future__ import annotations

import io
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxptq.data import Columns, fingerprint, open_source
from onnxptq.errors import DataError, OutputError, UsageError

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")


def encoded(value: int) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def image_table(count: int = 4) -> Any:
    return pa.table(
        {
            "img": [{"bytes": encoded(i), "path": f"{i}.png"} for i in range(count)],
            "label": [i % 2 for i in range(count)],
            "camera": [f"c{i % 3}" for i in range(count)],
            "night": [i == 0 for i in range(count)],
            "quality": [0.5] * count,
        }
    )


def test_parquet_with_images_gives_bytes_labels_and_groups(tmp_path: Path) -> None:
    pq.write_table(image_table(), tmp_path / "a.parquet")
    dataset = open_source(str(tmp_path / "a.parquet"), cache=tmp_path / "cache").splits[""]
    rows = dataset.read(np.array([2, 0]))
    assert [row["img"] for row in rows] == [encoded(2), encoded(0)]
    assert rows[0]["_name"] == "row 2 (2.png)"
    assert dataset.label_names == ("0", "1")
    assert dataset.attributes["camera"].tolist() == ["c0", "c1", "c2", "c0"]
    assert dataset.attributes["night"].tolist() == ["True", "False", "False", "False"]
    assert "quality" not in dataset.attributes
    assert dataset.fingerprints[2] == fingerprint({"image": encoded(2)})


def test_class_names_of_a_datasets_file_are_kept(tmp_path: Path) -> None:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "fine_label": datasets.ClassLabel(names=["x", "y", "z"])})
    made = datasets.Dataset.from_dict(
        {"image": [{"bytes": encoded(1), "path": None}] * 2, "fine_label": [2, 0]}, features
    )
    made.to_parquet(tmp_path / "a.parquet")
    dataset = open_source(str(tmp_path / "a.parquet"), cache=tmp_path / "cache").splits[""]
    assert dataset.label_names == ("x", "y", "z")
    assert dataset.attributes["label"].tolist() == ["z", "x"]
    assert dataset.read(np.array([0]))[0]["image"] == encoded(1)


def test_a_changed_file_is_never_answered_from_the_cache(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"x": [1.0, 2.0], "y": 0}\n')
    time = file.stat()
    before = open_source(str(file), cache=tmp_path / "cache").splits[""]
    file.write_text('{"x": [1.0, 3.0], "y": 0}\n')
    os.utime(file, ns=(time.st_atime_ns, time.st_mtime_ns))  # The same size and time of change.
    after = open_source(str(file), cache=tmp_path / "cache").splits[""]
    assert before.read(np.array([0]))[0]["x"].tolist() == [1, 2]
    assert after.read(np.array([0]))[0]["x"].tolist() == [1, 3]
    assert before.digest != after.digest


def test_csv_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "d" / "pics").mkdir(parents=True)
    (tmp_path / "d" / "pics" / "a.png").write_bytes(encoded(9))
    (tmp_path / "d" / "list.csv").write_text("file_name,class,site\npics/a.png,cat,north\n")
    dataset = open_source(str(tmp_path / "d" / "list.csv"), cache=tmp_path / "cache").splits[""]
    row = dataset.read(np.array([0]))[0]
    assert row["file_name"] == encoded(9)
    assert row["_name"] == "row 0 (pics/a.png)"
    assert {name: values.tolist() for name, values in dataset.attributes.items()} == {
        "label": ["cat"],
        "site": ["north"],
    }


def test_a_missing_image_of_a_csv_is_named_and_can_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encoded(9))
    (tmp_path / "list.tsv").write_text("image\tlabel\na.png\tcat\nlost.png\tdog\n")
    with pytest.raises(DataError, match=r"lost\.png cannot be read: No such file"):
        open_source(str(tmp_path / "list.tsv"), cache=tmp_path / "cache")
    source = open_source(str(tmp_path / "list.tsv"), cache=tmp_path / "cache", skip_bad=True)
    assert len(source.skipped) == 1
    assert source.splits[""].attributes["label"].tolist() == ["cat"]


def test_metadata_beside_images_brings_groups(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.png").write_bytes(encoded(1))
    (tmp_path / "d" / "metadata.csv").write_text("file_name,label,site\na.png,cat,north\n")
    dataset = open_source(str(tmp_path / "d"), cache=tmp_path / "cache").splits[""]
    assert dataset.attributes["site"].tolist() == ["north"]


def test_a_table_without_a_header_is_refused_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "dev.tsv").write_text("a long string of cliches\tbad\t0\nanother one\tgood\t1\n")
    with pytest.raises(
        DataError, match=r"no column of .* looks like an input: 'a long string of cliches', 'bad', '0'.*header"
    ):
        open_source(str(tmp_path / "dev.tsv"), cache=tmp_path / "cache")


@pytest.mark.parametrize("header", ["", "sentence\tlabel\n"], ids=["without a header", "with a header"])
def test_sentences_and_numbers_are_text_and_labels(tmp_path: Path, header: str) -> None:
    (tmp_path / "dev.tsv").write_text(f"{header}a long string of cliches\t0\nanother one\t1\n")
    dataset = open_source(str(tmp_path / "dev.tsv"), cache=tmp_path / "cache").splits[""]
    (row,) = dataset.read(np.array([0]))
    assert "a long string of cliches" in row.values()
    assert dataset.attributes["label"].tolist() == ["0", "1"]


def test_a_text_without_a_word_is_bad_and_named(tmp_path: Path) -> None:
    (tmp_path / "dev.csv").write_text('text,label\ngood,1\n"  ",0\n')
    with pytest.raises(DataError, match=r"row 1: column 'text' has no word.*--skip-bad"):
        open_source(str(tmp_path / "dev.csv"), cache=tmp_path / "cache")
    source = open_source(str(tmp_path / "dev.csv"), cache=tmp_path / "cache", skip_bad=True)
    assert (len(source.splits[""]), len(source.skipped)) == (1, 1)


def test_nested_lists_become_arrays_of_their_own_type(tmp_path: Path) -> None:
    values = np.arange(12, dtype=np.float64).reshape(2, 2, 3)
    table = pa.table(
        {
            "x": pa.array(values.tolist(), pa.list_(pa.list_(pa.float64(), 3))),
            "mask": pa.array([[1, 0], [1, 1]], pa.list_(pa.int8())),
            "y": ["b", "a"],
        }
    )
    pq.write_table(table, tmp_path / "t.parquet")
    dataset = open_source(str(tmp_path / "t.parquet"), cache=tmp_path / "cache").splits[""]
    row = dataset.read(np.array([1]))[0]
    assert row["x"].dtype == np.float64
    np.testing.assert_array_equal(row["x"], values[1])
    assert row["mask"].dtype == np.int8
    assert row["mask"].tolist() == [1, 1]
    assert dataset.label_names == ("a", "b")


def test_array_features_of_datasets_are_read(tmp_path: Path) -> None:
    import datasets

    values = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    features = datasets.Features({"x": datasets.Array2D((2, 2), "float32")})
    datasets.Dataset.from_dict({"x": values}, features=features).save_to_disk(str(tmp_path / "saved"))
    dataset = open_source(str(tmp_path / "saved"), cache=tmp_path / "cache").splits[""]
    np.testing.assert_array_equal(dataset.read(np.array([1]))[0]["x"], values[1])
    assert dataset.labels is None


@pytest.mark.parametrize(
    ("cell", "message"),
    [([[1.0], [1.0, 2.0]], "differ in length"), ([[1.0, None]], "nulls"), (None, "nothing in column")],
)
def test_ragged_lists_and_nulls_are_refused_by_row(tmp_path: Path, cell: Any, message: str) -> None:
    table = pa.table({"x": pa.array([[[1.0, 2.0]], cell], pa.list_(pa.list_(pa.float32())))})
    pq.write_table(table, tmp_path / "t.parquet")
    with pytest.raises(DataError, match=rf"row 1.*{message}"):
        open_source(str(tmp_path / "t.parquet"), cache=tmp_path / "cache")


@pytest.mark.parametrize("stream", [True, False])
def test_both_kinds_of_arrow_files_are_read(tmp_path: Path, stream: bool) -> None:
    table = image_table()
    new = pa.ipc.new_stream if stream else pa.ipc.new_file
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table)
    assert len(open_source(str(tmp_path / "a.arrow"), cache=tmp_path / "cache").splits[""]) == 4


def test_splits_are_told_by_file_names_and_saved_dictionaries(tmp_path: Path) -> None:
    import datasets

    (tmp_path / "many").mkdir()
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        pq.write_table(image_table(2), tmp_path / "many" / f"{name}.parquet")
    many = open_source(str(tmp_path / "many"), cache=tmp_path / "cache")
    assert {name: len(split) for name, split in many.splits.items()} == {"train": 4, "test": 2}
    assert many.splits["train"].split == "train"
    half = datasets.Dataset.from_dict({"x": [[1.0], [2.0]], "label": [0, 1]})
    datasets.DatasetDict({"train": half, "test": half}).save_to_disk(str(tmp_path / "saved"))
    assert set(open_source(str(tmp_path / "saved"), cache=tmp_path / "cache").splits) == {"train", "test"}


def test_a_folder_with_a_file_of_no_split_beside_splits_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name in ("train", "extra"):
        (tmp_path / "d" / f"{name}.jsonl").write_text('{"x": [1.0]}\n')
    with pytest.raises(DataError, match=r"extra\.jsonl belongs to no split"):
        open_source(str(tmp_path / "d"), cache=tmp_path / "cache")


def test_names_with_wildcards_are_names(tmp_path: Path) -> None:
    (tmp_path / "a[1]*.jsonl").write_text('{"x": [1.0]}\n')
    assert len(open_source(str(tmp_path / "a[1]*.jsonl"), cache=tmp_path / "cache").splits[""]) == 1


def test_named_columns_win_and_unknown_ones_are_answered(tmp_path: Path) -> None:
    pq.write_table(image_table(), tmp_path / "a.parquet")
    options = {"cache": tmp_path / "cache"}
    dataset = open_source(str(tmp_path / "a.parquet"), columns=Columns(label="camera"), **options).splits[""]
    assert dataset.label_names == ("c0", "c1", "c2")
    assert "camera" not in dataset.attributes
    with pytest.raises(UsageError, match=r"no column 'camrea'\. Did you mean 'camera'"):
        open_source(str(tmp_path / "a.parquet"), columns=Columns(label="camrea"), **options)
    with pytest.raises(UsageError, match=r"'night' .* cannot be an input"):
        open_source(str(tmp_path / "a.parquet"), columns=Columns(inputs=("night",)), **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label,text\na,1,b\n", "names the column 'text' twice"),
        ("text,label\na,1\nb,0,9\n", "line 3 has 3 fields, and its header 2"),
    ],
)
def test_a_header_with_a_name_twice_and_a_line_that_is_too_long_are_named(
    text: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / "a.csv"), cache=tmp_path / "cache")


def test_a_text_column_is_an_input_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("review,label\ngood,1\nbad,0\n")
    columns = Columns(inputs=("review",))
    dataset = open_source(str(tmp_path / "a.csv"), columns=columns, cache=tmp_path / "cache").splits[""]
    assert dataset.read(np.array([1]))[0]["review"] == "bad"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"", "empty"),
        ("a.parquet", b"not parquet at all", "cannot be read as parquet"),
        ("a.jsonl", b"{bad", "cannot be read as json"),
        ("a.jsonl", b"\n", "cannot be read as json"),
        ("a.csv", b"image,label\n", "has a header line and no row"),
        ("a.csv", "text,label\na,0\n".encode("utf-16"), "is UTF-16. Save it as UTF-8"),
        ("a.csv", b"\xff\x00\x01", "cannot be read as csv"),
        ("a.arrow", b"ARROW", "cannot be read as arrow"),
    ],
)
def test_unreadable_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        open_source(str(tmp_path / name), cache=tmp_path / "cache")
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_semicolons_and_decimal_commas_of_spreadsheets_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("size;text;label\n1,5;good, very;1\n2,25;bad;0\n")
    columns = Columns(inputs=("text",))
    dataset = open_source(str(tmp_path / "a.csv"), columns=columns, cache=tmp_path / "cache").splits[""]
    assert dataset.read(np.array([0]))[0]["text"] == "good, very"
    columns = Columns(model_inputs=("size",), tabular=True)
    dataset = open_source(str(tmp_path / "a.csv"), columns=columns, cache=tmp_path / "cache").splits[""]
    assert [row["size"] for row in dataset.read(np.array([0, 1]))] == [1.5, 2.25]


def test_lines_that_are_too_long_and_rows_without_a_label_can_be_skipped_and_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,0\nb,1,7\nc,\nd,1\n")
    with pytest.raises(DataError, match=r"line 3 has 3 fields, and its header 2.*--skip-bad"):
        open_source(str(tmp_path / "a.csv"), cache=tmp_path / "cache")
    source = open_source(str(tmp_path / "a.csv"), cache=tmp_path / "cache", skip_bad=True)
    dataset = source.splits[""]
    assert [row["text"] for row in dataset.read(np.arange(len(dataset)))] == ["a", "d"]
    assert dataset.labels is not None and dataset.labels.tolist() == [0, 1]
    assert len(source.skipped) == 2
    assert "line 3 has 3 fields" in source.skipped[0]
    assert source.skipped[1].endswith("row 1 has no label")


def test_a_source_without_any_label_loses_no_row(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,label\na,-1\nb,-1\n")
    dataset = open_source(str(tmp_path / "a.csv"), cache=tmp_path / "cache", skip_bad=True).splits[""]
    assert (len(dataset), dataset.labels) == (2, None)


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    pq.write_table(image_table(0), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet"):
        open_source(str(tmp_path / "a.parquet"), cache=tmp_path / "cache")


def test_a_cache_that_cannot_be_made_is_the_outputs_fault(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x": [1.0]}\n')
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="ONNXPTQ_CACHE"):
        open_source(str(tmp_path / "a.jsonl"), cache=tmp_path / "file" / "cache")


def test_opening_prints_nothing_and_leaves_progress_bars_as_they_were(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    import datasets

    assert not datasets.are_progress_bars_disabled()
    (tmp_path / "good.jsonl").write_text('{"x": [1.0]}\n')
    (tmp_path / "bad.jsonl").write_text("{bad")
    open_source(str(tmp_path / "good.jsonl"), cache=tmp_path / "cache")
    with pytest.raises(DataError):
        open_source(str(tmp_path / "bad.jsonl"), cache=tmp_path / "cache")
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()


def test_a_dataset_survives_pickling_so_that_other_processes_can_read_it(tmp_path: Path) -> None:
    pq.write_table(image_table(), tmp_path / "a.parquet")
    dataset = open_source(str(tmp_path / "a.parquet"), cache=tmp_path / "cache").splits[""]
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.read(np.array([3])) == dataset.read(np.array([3]))


def test_rows_are_read_from_the_mapped_file_and_not_held(tmp_path: Path) -> None:
    """Opening 64 MB of arrays may not cost 64 MB of Arrow memory: only pieces are copied out of the mapped file."""
    rows = 64
    values = pa.array(np.random.default_rng(0).random(rows << 17))
    big = pa.FixedSizeListArray.from_arrays(values, 1 << 17)
    pq.write_table(pa.table({"x": big}), tmp_path / "big.parquet", row_group_size=4)
    del big, values
    dataset = open_source(str(tmp_path / "big.parquet"), cache=tmp_path / "cache").splits[""]
    before = pa.total_allocated_bytes()
    kept = dataset.read(np.array([5]))
    assert kept[0]["x"].nbytes == 1 << 20
    assert pa.total_allocated_bytes() - before < 4 << 20


def test_labels_in_json_may_be_missing_everywhere_but_not_somewhere(tmp_path: Path) -> None:
    lines = [{"x": [1.0], "label": None}, {"x": [2.0], "label": "a"}]
    (tmp_path / "some.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(DataError, match=r"1 of 2 samples have no label .* row 0"):
        open_source(str(tmp_path / "some.jsonl"), cache=tmp_path / "cache")
    (tmp_path / "none.jsonl").write_text('{"x": [1.0], "label": -1}\n{"x": [2.0], "label": -1}')
    assert open_source(str(tmp_path / "none.jsonl"), cache=tmp_path / "cache").splits[""].labels is None
