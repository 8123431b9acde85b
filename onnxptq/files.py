"""Writing files so that no half file is ever left, whatever interrupts it."""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

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


def digest_file(path: Path) -> str:
    """SHA-256 of a file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


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
