"""Writing files so that no half file is ever left, whatever interrupts it."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from onnxptq.errors import DataError, OutputError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path beside `path`; what is written there takes its place when the block ends without an error.

    A symbolic link stays one: the file that it points to is replaced.

    Raises:
        OutputError: the folder does not exist or cannot be written, the disk is full, or `path` is no regular file.
    """
    try:
        _check_regular(path)
        real = Path(os.path.realpath(path))
        # Cut, because the whole name may be as long as the file system allows.
        descriptor, name = tempfile.mkstemp(dir=real.parent, prefix=f".{real.name[:40]}.", suffix=".part")
    except OSError as error:
        raise _output_error(path, error) from error
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        if not is_private(path):
            _give_usual_permissions(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(real)
    except OSError as error:
        raise _output_error(path, error) from error
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


def check_writable(path: Path) -> None:
    """Raises OutputError when `path` could not be written, before any work is done for it."""
    try:
        _check_regular(path)
        # Deletes itself, whatever interrupts this.
        tempfile.TemporaryFile(dir=Path(os.path.realpath(path)).parent).close()
    except OSError as error:
        raise _output_error(path, error) from error


def check_free(path: Path, force: bool, inputs: Iterable[Path] = ()) -> None:
    """Refuses a place to write to before any work is done for it.

    Args:
        path: the file to write.
        force: replace an existing file.
        inputs: files that the work reads, which are never replaced.

    Raises:
        OutputError: it could not be written, is one of `inputs`, or exists and `force` was not asked for.
    """
    check_writable(path)
    check_no_input(path, inputs)
    if path.exists() and not force:
        raise OutputError(f"{path} exists already. Replace it with --force, or write elsewhere with -o.")


def check_no_input(path: Path, inputs: Iterable[Path]) -> None:
    """Raises OutputError when `path` is one of the models that are read, under whatever name."""
    if path.exists() and any(path.samefile(one) for one in inputs):
        raise OutputError(f"{path} is the model itself; it is never replaced. Write elsewhere with -o.")


@dataclass(frozen=True)
class FileState:
    """What tells that a file is as it was: place, inode, bytes, and the time of the last change in nanoseconds."""

    path: str
    inode: int
    size: int
    modified: int

    def settled(self) -> bool:
        """Whether a later change would be seen: file systems count time in steps of some milliseconds."""
        return time.time_ns() - self.modified > _TICK


_TICK = 20_000_000
_DIGESTS = 256
_digests: dict[FileState, str] = {}


def state_of(path: Path) -> FileState:
    """The state of a file now. Raises OSError where there is none."""
    found = path.stat()
    return FileState(str(path), found.st_ino, found.st_size, found.st_mtime_ns)


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits. A process reads a file again only where it has changed."""
    state = state_of(path)
    known = _digests.get(state)
    if known is None:
        with path.open("rb") as file:
            known = hashlib.file_digest(file, "sha256").hexdigest()
        remember_digest(state, known)
    return known


def remember_digest(state: FileState, digest: str) -> None:
    """Makes the SHA-256 of a file known to `digest_file`, for who has its bytes in memory anyway."""
    if state.settled():
        while len(_digests) >= _DIGESTS:
            del _digests[next(iter(_digests))]
        _digests[state] = digest


def make_private(folder: Path) -> None:
    """Makes a folder, and those above it that are missing, for this user alone. Raises OSError."""
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for one in reversed(missing):
        one.mkdir(mode=0o700, exist_ok=True)


_private_roots: set[Path] = set()
"""Folders below which files are for this user alone."""


def keep_private(root: Path) -> None:
    """From now on this process writes files below `root` for this user alone."""
    _private_roots.add(root.absolute())


def is_private(path: Path) -> bool:
    """Whether a file is below a folder that was named to `keep_private`."""
    return bool(_private_roots) and not _private_roots.isdisjoint(path.absolute().parents)


@contextmanager
def work_folder(parent: Path, prefix: str) -> Iterator[Path]:
    """A new folder below `parent` for what is half done; it goes at the end, whatever happens.

    Folders of the same prefix that killed runs have left go first: whoever works in one holds a lock, which the system
    gives back when the process ends.

    Raises:
        OSError: the folder cannot be made.
    """
    remove_left_behind(parent, prefix)
    folder = parent / f"{prefix}{os.getpid()}.{os.urandom(4).hex()}"
    folder.mkdir(mode=0o700)
    lock = None
    try:
        lock = (folder / _LOCK).open("wb")
        _try_lock(lock)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.close()


_LOCK = ".lock"
LEFT_SECONDS = 24 * 3600.0
"""From when on a folder without a lock is taken for left behind: one that is being made has none for a moment."""


def remove_left_behind(parent: Path, prefix: str) -> None:
    """Removes what killed runs have left of `work_folder`."""
    own = os.getuid() if hasattr(os, "getuid") else None
    # What cannot be looked at or removed is left: others work in the same folder.
    with suppress(OSError):
        for entry in os.scandir(parent):
            if not entry.name.startswith(prefix) or not entry.is_dir(follow_symlinks=False):
                continue
            with suppress(OSError):
                state = entry.stat(follow_symlinks=False)
                if own is not None and state.st_uid == own and _is_left_behind(Path(entry.path), state.st_mtime):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _is_left_behind(folder: Path, changed: float) -> bool:
    try:
        with (folder / _LOCK).open("rb+") as lock:
            return _try_lock(lock)
    except FileNotFoundError:
        return time.time() - changed > LEFT_SECONDS


def _try_lock(file: IO[bytes]) -> bool:
    """Whether the file could be locked; never where the system knows no such locks (Windows)."""
    try:
        import fcntl
    except ImportError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


UNPACKED_FREE = 2**30
UNPACKED_RATIO = 100
"""What a packed file may unpack to: 1 GiB, or 100 times its size. Bombs are packed 1,000 times and more."""


def check_unpacked(path: Path, unpacked: int, what: str) -> None:
    """Raises DataError where a packed file says that it unpacks to far more than data does."""
    packed = path.stat().st_size
    if unpacked > max(UNPACKED_FREE, UNPACKED_RATIO * packed):
        raise DataError(
            f"{what} would unpack from {packed} to {unpacked} bytes, more than {UNPACKED_RATIO} times its size and "
            f"than {UNPACKED_FREE / 2**30:g} GiB. Pack less densely, or split it."
        )


def _check_regular(path: Path) -> None:
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file.")
    # A device or a pipe would be replaced by a file: /dev/null would be no more.
    if path.exists() and not path.is_file():
        raise OutputError(
            f"{path} is a device or a pipe; give the name of a file, or - for stdout where that is offered."
        )


def _give_usual_permissions(path: Path) -> None:
    # mkstemp makes files that only their owner can read; a model is to be read by the server that runs it.
    mask = os.umask(0)
    os.umask(mask)
    path.chmod(0o666 & ~mask)


def _output_error(path: Path, error: OSError) -> OutputError:
    if error.errno == errno.ENOSPC:
        return OutputError(f"no space left to write {path}. Free some, or write elsewhere.")
    if error.errno == errno.ENOENT and not path.parent.is_dir():
        return OutputError(f"cannot write {path}: there is no folder {path.parent}. Create it first.")
    return OutputError(f"cannot write {path}: {error.strerror or error}. Choose another place.")
