"""The store: what is in it is whole, what was damaged is as if it were not there, and two may write at once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from onnxptq.cache import Cache
from onnxptq.errors import DataError, OutputError, UsageError
from onnxptq.sweeps.plan import Plan
from onnxptq.sweeps.store import Store, cache_of, load_study
from onnxptq.sweeps.study import DONE, FAILED, Cell, CellKey, Study

KEY = CellKey("builtin", "clean", "", "minmax", "cpu", "cpu", 0)
CELL = Cell(
    KEY, DONE, report={"crossfit_drop": 0.5, "groups": []}, ranges={"x": (-1.0, 2.0)}, seconds={"evaluate": 1.0}
)


def study(run: str = "2026-01-02-abcdef", name: str = "study") -> Study:
    return Study(run, name, "2026-01-02T00:00:00+00:00", Plan().to_dict(), (CELL,), {"numpy": "2"}, {"cores": 2}, "cmd")


def test_a_study_comes_back_as_it_was_put(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        store.start(study(), "digest", ["key"])
        store.put({"key": CELL})
    assert load_study("last", tmp_path) == study()


def test_cells_without_a_result_are_not_in_the_study(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        store.start(study(), "digest", ["key"])
        assert store.study("last").cells == ()
        (summary,) = store.runs()
        assert (summary.cells, summary.done, summary.finished) == (1, 0, None)


def test_the_same_plan_on_the_same_inputs_is_the_same_run(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        first = store.start(study(), "digest", ["key"])
        assert store.start(study(run="2026-01-03-abcdef"), "digest", ["key"]) == first
        assert len(store.runs()) == 1


def test_a_run_is_found_by_a_prefix_that_only_it_has(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        with pytest.raises(UsageError, match=r"there is no run in .*`onnxptq sweep` makes one"):
            store.find("last")
        for run in ("2026-01-02-abc", "2026-01-02-xyz"):
            store.start(study(run=run), run, ["key"])
        assert store.find("2026-01-02-x") == store.find("last") == "2026-01-02-xyz"
        with pytest.raises(UsageError, match="several runs"):
            store.find("2026")
        with pytest.raises(UsageError, match="there is no run '1999'"):
            store.find("1999")


@pytest.mark.parametrize("column", ["report", "ranges", "status", "seconds"])
def test_a_cell_that_was_damaged_is_as_if_it_were_not_there(tmp_path: Path, column: str) -> None:
    with Store(Cache(tmp_path)) as store:
        store.put({"key": CELL})
        assert store.get("key") is not None
        with sqlite3.connect(store.path) as other:
            other.execute(f"UPDATE cells SET {column} = replace({column}, substr({column}, 2, 1), '?')")
        assert store.get("key") is None


def test_a_cell_that_stands_in_the_place_of_another_is_not_taken_for_it(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        store.put({"key": CELL})
        with sqlite3.connect(store.path) as other:
            other.execute("UPDATE cells SET cell = 'other'")
        assert store.get("other") is None


def test_a_newer_store_is_refused(tmp_path: Path) -> None:
    Store(Cache(tmp_path)).close()
    with sqlite3.connect(tmp_path / "v1/sweeps/sweeps.sqlite") as other:
        other.execute("UPDATE store SET schema_version = 2")
    with pytest.raises(DataError, match=r"has schema 2; this version reads 1\. Update onnxptq"):
        Store(Cache(tmp_path))


def test_a_file_that_is_no_database_is_not_written_to(tmp_path: Path) -> None:
    Cache(tmp_path).folder("sweeps")
    path = tmp_path / "v1/sweeps/sweeps.sqlite"
    path.write_bytes(b"something else entirely, and long enough to be looked at" * 50)
    with pytest.raises(DataError, match="is damaged"):
        Store(Cache(tmp_path))
    assert path.read_bytes().startswith(b"something else")


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    def write(number: int) -> None:
        with Store(Cache(tmp_path)) as store:
            for cell in range(20):
                store.put({f"{number}-{cell}": CELL, "shared": CELL})

    threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with Store(Cache(tmp_path)) as store:
        assert all(store.get(f"{number}-{cell}") for number in range(4) for cell in range(20))


def test_a_full_disk_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        store.put({"before": CELL})
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        large = replace(CELL, report={"text": "x" * 100_000})
        with pytest.raises(OutputError, match="cannot be written: database or disk is full"):
            store.put({"during": large, "too": CELL})
        assert store.get("during") is None and store.get("too") is None, "all of a job, or nothing"
        store._connection.execute("PRAGMA max_page_count = 1000000")
        store.put({"during": large})
        assert store.get("before") and store.get("during")


def test_the_metrics_are_columns_for_other_tools(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        store.start(study(), "digest", ["key"])
        store.put({"key": CELL})
        where = store.path
    with sqlite3.connect(where) as other:
        row = other.execute("SELECT calibration, method, status, crossfit_drop FROM metrics").fetchone()
    assert row == ("clean", "minmax", DONE, 0.5)


def test_a_failed_cell_keeps_its_reason(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        store.start(study(), "digest", ["key"])
        store.put({"key": Cell(KEY, FAILED, error="why")})
        assert store.runs()[0].failed == 1
    (cell,) = load_study("last", tmp_path).cells
    assert (cell.status, cell.error, cell.report) == (FAILED, "why", {})


@pytest.fixture
def locked() -> Iterator[Path]:
    """A store with a cell in a folder that nobody may write to, and a user whom that stops."""
    if sys.platform == "win32":
        pytest.skip("permissions of POSIX")
    folder = Path(tempfile.mkdtemp())  # tmp_path is its owner's alone.
    try:
        with Store(Cache(folder)) as store:
            store.start(study(), "digest", ["key"])
            store.put({"key": CELL})
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555 if path.is_dir() else 0o444)
        if was_root := os.geteuid() == 0:
            os.seteuid(65534)
        yield folder
        if was_root:
            os.seteuid(0)
    finally:
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o755)
        shutil.rmtree(folder)


def test_a_store_that_cannot_be_written_is_read(locked: Path) -> None:
    files = sorted(locked.rglob("*"))
    assert load_study("last", locked) == study()
    assert sorted(locked.rglob("*")) == files
    with pytest.raises(OutputError, match=r"cannot be written"):
        Store(Cache(locked))


def test_reading_while_another_writes_sees_what_is_stored(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as writer:
        writer.start(study(), "digest", ["key"])
        assert load_study("last", tmp_path).cells == ()
        writer.put({"key": CELL})
        assert load_study("last", tmp_path) == study()


def test_reading_what_is_not_there_makes_nothing_and_names_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"there is no store of sweeps at .*typo.v1.sweeps.sweeps\.sqlite"):
        load_study("last", tmp_path / "typo")
    assert not list(tmp_path.iterdir())


def test_a_store_whose_making_was_cut_off_is_none_to_read(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        path = store.path
    path.unlink()
    sqlite3.connect(path).execute("PRAGMA journal_mode = WAL").connection.close()
    with pytest.raises(UsageError, match="there is no store of sweeps"):
        Store(Cache(tmp_path), read=True)


def test_a_run_that_begins_while_runs_are_listed_does_not_disturb(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(Cache(tmp_path)) as store, Store(Cache(tmp_path)) as other:
        store.start(study("2026-01-02-aaaaaa"), "a", ["x"])
        statuses = store._statuses

        def begun() -> dict[str, str]:
            found = statuses()
            other.start(study("2026-01-03-bbbbbb"), "b", ["y"])
            return found

        monkeypatch.setattr(store, "_statuses", begun)
        assert [run.run for run in store.runs()] == ["2026-01-02-aaaaaa"]
        monkeypatch.undo()
        assert len(store.runs()) == 2


def test_a_folder_with_signs_of_a_url_in_its_name_is_read(tmp_path: Path) -> None:
    folder = tmp_path / "100% sure? #1"
    with Store(Cache(folder)) as store:
        store.start(study(), "digest", ["key"])
        store.put({"key": CELL})
    assert load_study("last", folder) == study()


def test_the_hint_to_go_on_names_the_store(tmp_path: Path) -> None:
    with Store(Cache(tmp_path / "my store")) as store:
        store.start(study(), "digest", ["key"])
    assert load_study("last", tmp_path / "my store").resume == f"onnxptq sweep --resume --store '{tmp_path}/my store'"


def test_a_folder_that_cannot_be_made_is_said_with_the_option_that_named_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"folder of --store .*file cannot be written: .*another one with --store"):
        Store(cache_of(tmp_path / "file"))


def test_the_last_run_is_the_one_that_ran_last(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        for run in ("2026-01-02-abc", "2026-01-03-xyz"):
            store.start(study(run=run), run, ["key"])
        assert store.find("last") == "2026-01-03-xyz"
        store.start(study(run="2026-01-04-abc"), "2026-01-02-abc", ["key"])  # The first plan again.
        assert store.find("last") == "2026-01-02-abc"
        assert [one.run for one in store.runs()] == ["2026-01-03-xyz", "2026-01-02-abc"]


def test_a_store_is_for_this_user_alone(tmp_path: Path) -> None:
    with Store(Cache(tmp_path)) as store:
        store.start(study(), "digest", ["key"])
        for path in store.path.parent.iterdir():
            assert not path.stat().st_mode & 0o077, path
