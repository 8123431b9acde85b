"""Equal content is found again, other content never, and the cache can be measured and emptied."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onnxptq.cache import Cache, content_key, is_whole, seal, user_cache
from onnxptq.errors import OutputError
from onnxptq.files import remove_left_behind, work_folder

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
parts = st.dictionaries(st.text(min_size=1, max_size=6), json_values, min_size=1, max_size=5)


@given(parts, st.randoms())
def test_equal_parts_in_any_order_have_one_key(values, random):
    shuffled = list(values.items())
    random.shuffle(shuffled)
    assert content_key("x", **values) == content_key("x", **dict(shuffled))


@given(parts, st.data())
def test_a_changed_part_another_kind_a_missing_part_have_other_keys(values, data):
    key = content_key("x", **values)
    name = data.draw(st.sampled_from(sorted(values)))
    changed = {**values, name: [values[name], "changed"]}
    missing = {k: v for k, v in values.items() if k != name}
    others = [content_key("x", **changed), content_key("y", **values), content_key("x", **missing)]
    assert key not in others


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": 1}),
        ({"a": None}, {}),
        ({"a": ["b", "c"]}, {"a": ["b,c"]}),
        ({"a": "x", "b": ""}, {"a": "", "b": "x"}),
        ({"a": {"b": 1}}, {"a": 1, "b": 1}),
    ],
)
def test_what_looks_alike_is_told_apart(one, other):
    assert content_key("x", **one) != content_key("x", **other)


def test_a_key_is_a_sha256_that_stays_the_same_between_versions():
    # Changing it would make every cache useless: raise LAYOUT then.
    expected = "d9c7c82792e46e6e5302ca0705d1eded21e7a01e0dde96d15f522f2c8a7d5e61"
    assert content_key("statistics", model="m", samples=128) == expected


@pytest.mark.parametrize("part", [Path("a"), {1, 2}, b"x", object()])
def test_a_part_that_cannot_be_compared_by_content_is_refused(part):
    with pytest.raises(TypeError):
        content_key("x", part=part)
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_key("x", part=float("nan"))


def test_artefacts_lie_by_kind_and_key(tmp_path):
    key = content_key("predictions", a=1)
    place = Cache(tmp_path / "room").place("predictions", key, ".parquet")
    assert place == tmp_path / "room" / "v1" / "predictions" / key[:2] / f"{key}.parquet"
    assert place.parent.is_dir()
    assert not place.exists()


def test_a_library_gets_a_folder_of_its_kind(tmp_path):
    folder = Cache(tmp_path).folder("datasets")
    assert folder == tmp_path / "v1" / "datasets"
    assert folder.is_dir()


def fill(empty_cache: Cache) -> None:
    empty_cache.place("predictions", "ab" * 32, ".parquet").write_bytes(bytes(10))
    empty_cache.place("predictions", "cd" * 32, ".parquet").write_bytes(bytes(20))
    (empty_cache.folder("datasets") / "deep").mkdir()
    (empty_cache.folder("datasets") / "deep" / "file").write_bytes(bytes(5))


def test_usage_counts_files_and_bytes_of_each_kind(tmp_path):
    empty_cache = Cache(tmp_path)
    assert empty_cache.usage() == {}
    fill(empty_cache)
    assert empty_cache.usage() == {"datasets": (1, 5), "predictions": (2, 30)}


def test_clearing_deletes_one_kind_or_all_and_nothing_that_is_not_ours(tmp_path):
    empty_cache = Cache(tmp_path)
    fill(empty_cache)
    (tmp_path / "mine.txt").write_text("a user's own file")
    empty_cache.clear("datasets")
    assert list(empty_cache.usage()) == ["predictions"]
    empty_cache.clear()
    assert empty_cache.usage() == {}
    assert (tmp_path / "mine.txt").is_file()
    empty_cache.clear()  # An empty room can be cleared again.


def test_a_room_that_cannot_be_made_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot be written.*ONNXPTQ_CACHE"):
        Cache(tmp_path / "file").place("x", "ab", "")
    with pytest.raises(OutputError, match="ONNXPTQ_CACHE"):
        Cache(tmp_path / "file").folder("x")


def test_the_room_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("ONNXPTQ_CACHE", str(tmp_path / "here"))
    assert user_cache() == Cache(tmp_path / "here")


@pytest.mark.parametrize(
    ("platform", "variables", "expected"),
    [
        ("linux", {"XDG_CACHE_HOME": "/x"}, "/x/onnxptq"),
        ("linux", {"XDG_CACHE_HOME": ""}, "/home/me/.cache/onnxptq"),
        ("darwin", {}, "/home/me/Library/Caches/onnxptq"),
        ("win32", {"LOCALAPPDATA": "/local"}, "/local/onnxptq"),
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="the home folder is told by HOME on POSIX only")
def test_without_it_the_room_is_in_the_platforms_cache_folder(monkeypatch, platform, variables, expected):
    for name in ("ONNXPTQ_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setattr("sys.platform", platform)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(user_cache().root) == expected


def test_the_tests_do_not_use_the_users_room():
    assert re.search("cache-room", str(user_cache().root))


def test_a_sealed_file_is_whole_until_a_byte_changes(tmp_path, monkeypatch):
    file = tmp_path / "model.onnx"
    file.write_bytes(b"weights")
    os.utime(file, ns=(0, 0))  # Clocks of file systems are coarse.
    assert not is_whole(file), "not sealed"
    seal(file)
    assert is_whole(file)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("read twice"))
    assert is_whole(file)
    monkeypatch.undo()
    file.write_bytes(b"Weights")
    assert not is_whole(file)
    file.unlink()
    assert not is_whole(file)


def test_all_that_is_kept_is_for_this_user_alone(tmp_path, onnxptq, monkeypatch):
    cache_folder = tmp_path / "room"
    cache_folder.mkdir(mode=0o755)
    monkeypatch.setenv("ONNXPTQ_CACHE", str(cache_folder))
    assert onnxptq("quantize", "--corruption", "clean").returncode == 0
    paths = list((cache_folder / "v1").rglob("*"))
    assert {path.suffix for path in paths} >= {".parquet", ".onnx", ".stats", ".arrow", ".sha256"}
    assert [path for path in (cache_folder / "v1", *paths) if path.stat().st_mode & 0o077] == []
    (model,) = tmp_path.glob("*.onnx")
    assert model.stat().st_mode & 0o044, "a model is to be read by the server that runs it"


def test_verifying_removes_what_is_damaged_and_what_killed_runs_left(tmp_path, onnxptq, monkeypatch):
    monkeypatch.setenv("ONNXPTQ_CACHE", str(tmp_path / "room"))
    assert onnxptq("quantize", "--corruption", "clean").returncode == 0
    assert onnxptq("cache", "verify").returncode == 0
    cache_folder = tmp_path / "room" / "v1"
    damaged = [next(cache_folder.rglob(f"*{suffix}")) for suffix in (".arrow", ".parquet", ".stats", ".onnx")]
    for file in damaged:
        data = bytearray(file.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 40] = bytes(40)
        file.write_bytes(bytes(data))
    left = cache_folder / "datasets" / ".part.1.aa"
    left.mkdir()
    half = cache_folder / "statistics" / ".x.part"
    half.write_bytes(b"half")
    for path in (left, half):
        os.utime(path, (0, 0))
    done = onnxptq("cache", "verify", "--json", "-")
    assert done.returncode == 1
    assert sorted(json.loads(done.stdout)["damaged"]) == sorted(map(str, damaged))
    assert not any(path.exists() for path in (*damaged, left, half))
    assert onnxptq("cache", "verify").returncode == 0
    assert onnxptq("quantize", "--corruption", "clean", "--force").returncode == 0


def test_a_folder_in_use_is_not_taken_for_left_behind(tmp_path):
    with work_folder(tmp_path, "onnxptq-run.") as used:
        os.utime(used, (0, 0))
        remove_left_behind(tmp_path, "onnxptq-run.")
        assert used.is_dir()
    assert not used.exists()


def test_a_folder_of_a_killed_run_goes_with_the_next_one(tmp_path):
    code = "import os, sys; from pathlib import Path; from onnxptq.files import work_folder\n"
    code += "with work_folder(Path(sys.argv[1]), 'onnxptq-run.'): os.kill(os.getpid(), 9)"
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert len(list(tmp_path.iterdir())) == 1
    with work_folder(tmp_path, "onnxptq-run.") as used:
        assert list(tmp_path.iterdir()) == [used]


def test_what_another_run_has_kept_meanwhile_is_not_taken_from_under_it(tmp_path):
    """Two runs make the same table; the slower one must not remove what the faster one is reading."""
    from onnxptq.data._kept import keep, kept

    def write(folder):
        (folder / "a.bin").write_bytes(b"the same")
        return {"a": [folder / "a.bin"]}

    def slower(folder):
        keep(tmp_path / "place", write)
        return write(folder)

    keep(tmp_path / "place", write)
    before = (tmp_path / "place").stat().st_ino
    keep(tmp_path / "place", slower)
    assert (tmp_path / "place").stat().st_ino == before and kept(tmp_path / "place")
    next((tmp_path / "place").glob("*.bin")).write_bytes(b"damaged!")
    keep(tmp_path / "place", write)
    assert kept(tmp_path / "place") and (tmp_path / "place").stat().st_ino != before
