"""Whatever interrupts writing, the old file stays whole and nothing is left beside it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import pytest

from onnxptq.errors import OutputError
from onnxptq.files import check_free, check_writable, digest_file, replacing

posix = pytest.mark.skipif(os.name != "posix", reason="permissions and device files of POSIX")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "out" / "model.onnx"
    path.parent.mkdir()
    return path


def beside(path: Path) -> list[str]:
    return sorted(other.name for other in path.parent.iterdir())


def test_the_file_appears_when_the_block_ends(path):
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
        assert temporary.parent == path.parent  # A rename between file systems would not be atomic.
    assert path.read_text() == "new"
    assert beside(path) == ["model.onnx"]


@pytest.mark.parametrize("stop", [RuntimeError, KeyboardInterrupt, SystemExit, MemoryError])
@pytest.mark.parametrize("old", [None, "old"])
def test_an_error_or_ctrl_c_leaves_the_old_file_and_nothing_else(path, stop, old):
    if old:
        path.write_text(old)
    with pytest.raises(stop), replacing(path) as temporary:
        temporary.write_text("half")
        raise stop
    assert beside(path) == (["model.onnx"] if old else [])
    assert not old or path.read_text() == old


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_no_space_is_said_and_leaves_the_old_file(path):
    path.write_text("old")
    wanted = r"no space left to write .*model\.onnx"
    with pytest.raises(OutputError, match=wanted), replacing(path), Path("/dev/full").open("wb") as full:
        full.write(b"x")
    assert path.read_text() == "old"
    assert beside(path) == ["model.onnx"]


def test_a_block_that_moves_its_file_away_leaves_nothing(path):
    with pytest.raises(OutputError), replacing(path) as temporary:
        temporary.unlink()
    assert beside(path) == []


@posix
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_as_the_umask_says(path, mask, mode):
    before = os.umask(mask)
    try:
        with replacing(path) as temporary:
            temporary.write_text("new")
        assert os.umask(mask) == mask
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == mode


@posix
def test_a_symbolic_link_stays_one(path, tmp_path):
    real = tmp_path / "real.onnx"
    real.write_text("old")
    path.symlink_to(real)
    with replacing(path) as temporary:
        temporary.write_text("new")
    assert path.is_symlink()
    assert real.read_text() == "new"


def test_a_missing_folder_is_named(tmp_path):
    target = tmp_path / "no" / "model.onnx"
    for attempt in (lambda: replacing(target).__enter__(), lambda: check_writable(target)):
        with pytest.raises(OutputError, match=r"there is no folder .*no. Create it first"):
            attempt()


def test_a_folder_in_the_way_is_refused(path):
    for attempt in (lambda: replacing(path.parent).__enter__(), lambda: check_writable(path.parent)):
        with pytest.raises(OutputError, match="is a folder; give the name of a file"):
            attempt()


@posix
def test_a_device_is_never_replaced():
    null = Path(os.devnull)
    for attempt in (lambda: replacing(null).__enter__(), lambda: check_writable(null)):
        with pytest.raises(OutputError, match="give the name of a file"):
            attempt()
    assert stat.S_ISCHR(null.stat().st_mode)


@posix
@pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_said(path):
    path.parent.chmod(0o500)
    try:
        with pytest.raises(OutputError, match=r"cannot write .*ermission"):
            check_writable(path)
    finally:
        path.parent.chmod(0o700)


def test_checking_leaves_no_trace(path):
    path.write_text("old")
    check_writable(path)
    check_writable(path.with_name("other"))
    assert beside(path) == ["model.onnx"]
    assert path.read_text() == "old"


def test_a_file_is_replaced_only_when_asked_for_and_never_one_that_is_read(path):
    check_free(path, False)
    path.write_text("old")
    with pytest.raises(OutputError, match=r"exists already\. Replace it with --force"):
        check_free(path, False)
    check_free(path, True)
    path.with_name("link").symlink_to(path)
    with pytest.raises(OutputError, match="never replaced"):
        check_free(path.with_name("link"), True, [path])


@posix
def test_a_name_as_long_as_the_file_system_allows_can_be_written(path):
    longest = path.with_name("x" * 255)
    with replacing(longest) as temporary:
        temporary.write_text("new")
    assert longest.read_text() == "new"


def test_a_digest_is_the_sha256_of_the_bytes(path):
    data = os.urandom(3_000_000)
    path.write_bytes(data)
    assert digest_file(path) == hashlib.sha256(data).hexdigest()
