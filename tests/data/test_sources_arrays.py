"""`.npz` files, and the hub without a network."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import pytest

from onnxptq.data import Columns, _hub, open_source
from onnxptq.errors import DataError


def test_x_and_y_become_inputs_and_labels_with_attributes(tmp_path: Path) -> None:
    x = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.savez(tmp_path / "a.npz", x=x, y=np.array([[7], [3], [7]]), site=np.array(["n", "s", "n"]))
    dataset = open_source(str(tmp_path / "a.npz"), cache=tmp_path / "cache").splits[""]
    rows = dataset.read(np.array([2, 0]))
    np.testing.assert_array_equal(rows[0]["x"], x[2])
    assert rows[1]["_name"] == "row 0"
    assert dataset.label_names == ("3", "7")
    assert dataset.attributes["label"].tolist() == ["7", "3", "7"]
    assert dataset.attributes["site"].tolist() == ["n", "s", "n"]


def test_several_inputs_are_read_by_name(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", ids=np.ones((2, 3), np.int64), mask=np.zeros((2, 3), np.bool_), label=[0, 1])
    row = open_source(str(tmp_path / "a.npz"), cache=tmp_path / "cache").splits[""].read(np.array([1]))[0]
    assert set(row) == {"ids", "mask", "_name"}
    assert row["ids"].dtype == np.int64


def test_arrays_named_after_splits_become_splits(tmp_path: Path) -> None:
    names = {"x_train": np.zeros((4, 2)), "y_train": [0, 1, 0, 1], "x_test": np.ones((2, 2)), "y_test": [0, 1]}
    np.savez(tmp_path / "a.npz", **names)
    source = open_source(str(tmp_path / "a.npz"), cache=tmp_path / "cache")
    assert {name: len(split) for name, split in source.splits.items()} == {"train": 4, "test": 2}
    assert source.splits["test"].attributes["label"].tolist() == ["0", "1"]


def test_dtype_shape_and_values_all_count_in_the_fingerprint(tmp_path: Path) -> None:
    zeros = np.zeros((1, 2, 2), np.float32)
    digests = []
    for number, x in enumerate((zeros, zeros.astype(np.float64), zeros.reshape(1, 4), zeros + 1)):
        np.savez(tmp_path / f"{number}.npz", x=x)
        digests += open_source(str(tmp_path / f"{number}.npz"), cache=tmp_path).splits[""].fingerprints.tolist()
    assert len(set(digests)) == 4


def test_not_finite_samples_are_left_out_with_skip_bad(tmp_path: Path) -> None:
    x = np.zeros((3, 2))
    x[1, 0] = np.nan
    np.savez(tmp_path / "a.npz", x=x)
    source = open_source(str(tmp_path / "a.npz"), cache=tmp_path, skip_bad=True)
    assert len(source.splits[""]) == 2
    assert "row 1: column 'x' has NaN" in source.skipped[0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((2, 3)), "y": [0, 1, 2]}, r"differ in length: x \(2, 3\), y \(3,\)"),
        ({"x": np.zeros((0, 3))}, "has no row"),
        ({"x": np.array([{"a": 1}], object)}, "cannot be read as .npz"),
        ({}, "has no array"),
        ({"x": np.zeros((2, 3)), "y": [0.5, 1]}, "label 0.5 is not a class"),
    ],
)
def test_bad_archives_are_refused(tmp_path: Path, arrays: dict[str, object], message: str) -> None:
    np.savez(tmp_path / "a.npz", **arrays)  # type: ignore[arg-type]  # What a careless user would save.
    with pytest.raises(DataError, match=message):
        open_source(str(tmp_path / "a.npz"), cache=tmp_path)


def test_a_file_that_is_no_archive_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(DataError, match=r"a\.npz cannot be read"):
        open_source(str(tmp_path / "a.npz"), cache=tmp_path)


def test_a_named_label_column_wins(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((2, 2)), y=[0, 1], coarse=[5, 5])
    dataset = open_source(str(tmp_path / "a.npz"), columns=Columns(label="coarse"), cache=tmp_path).splits[""]
    assert dataset.attributes["label"].tolist() == ["5", "5"]
    assert dataset.attributes["y"].tolist() == ["0", "1"]


def test_the_hub_is_not_asked_when_it_is_said_to_be_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path))
    _new_decoder(monkeypatch)
    monkeypatch.setattr(_hub, "_unreachable", lambda: pytest.fail("asked the network"))
    with pytest.raises(
        DataError, match=r"HF_HUB_OFFLINE is set.*load_dataset\('no-such/thing', 'small'\)\.save_to_disk"
    ):
        open_source("hub:no-such/thing:small", cache=tmp_path)


def test_an_unreachable_hub_fails_at_once_and_says_how_to_get_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    _point_hub_to(f"http://127.0.0.1:{port}", monkeypatch)
    with pytest.raises(DataError, match=r"cannot be reached: .*refused.*save_to_disk\('FOLDER'\)"):
        open_source("hub:mnist", cache=tmp_path)


def test_a_hub_that_accepts_and_never_answers_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_hub, "TIMEOUT_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _point_hub_to(f"http://127.0.0.1:{silent.getsockname()[1]}", monkeypatch)
        with pytest.raises(DataError, match="cannot be reached: timed out"):
            open_source("hub:mnist", cache=tmp_path)


def test_what_the_hub_gives_is_converted_in_the_decoder_s_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder stands in for a dataset of the hub: the library loads both by name."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "train.csv").write_text("text,label\ngood,1\nbad,0\n")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    _new_decoder(monkeypatch)
    source = open_source(f"hub:{tmp_path / 'mine'}", cache=tmp_path)
    assert [row["text"] for row in source.splits["train"].read(np.arange(2))] == ["good", "bad"]
    assert list((tmp_path / "cache").rglob("*.arrow"))
    (tmp_path / "mine" / "train.csv").write_bytes(b"")
    with pytest.raises(DataError, match="cannot be loaded"):
        open_source(f"hub:{tmp_path / 'mine'}", cache=tmp_path)


def _new_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that starts with the environment of the test."""
    from onnxptq.data import isolated

    monkeypatch.setattr(isolated, "_decoder", None)


def _point_hub_to(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
