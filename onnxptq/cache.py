"""One key function and one cache: whatever is kept is found by the content that made it.

Layout: `<cache>/v1/<kind>/<first two digits of the key>/<key><suffix>`. The cache is `$ONNXPTQ_CACHE`, or the
platform's cache folder. Deleting the cache loses time, never a result.
"""

from __future__ import annotations

import atexit
import errno
import hashlib
import importlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxptq.errors import DataError, OutputError
from onnxptq.files import (
    LEFT_SECONDS,
    digest_file,
    is_private,
    keep_private,
    make_private,
    remove_left_behind,
    replacing,
)

LAYOUT = "v1"

_SEAL = ".sha256"
"""Behind the name of a file: beside it lies its digest."""

_HALF = ".part"
"""Behind the name of a file that is being written (`files.replacing`)."""


def content_key(kind: str, /, **parts: Any) -> str:
    """The key of an artefact: SHA-256 over its kind and everything that made it, 64 hexadecimal digits.

    Args:
        kind: what the artefact is ("predictions", "folded-model" ...).
        parts: digests, specifications and versions; values of JSON types. Equal parts, equal key, in any order.

    Raises:
        TypeError, ValueError: a part is not of a JSON type, or NaN, so that it could not be compared by content.
    """
    text = json.dumps([kind, parts], sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def with_option(command: str, option: str) -> str:
    """A command line with an option as it was given ("--store DIR"); "" is none."""
    return f"{command} {option}".rstrip()


def seal(*files: Path) -> None:
    """Keeps the digest of each file beside it, for formats that do not notice themselves that bytes were changed."""
    for file in files:
        if is_private(file):
            file.chmod(0o600)
        with replacing(_seal_of(file)) as temporary:
            temporary.write_text(digest_file(file), encoding="ascii")


def is_whole(*files: Path) -> bool:
    """Whether each file is there as it was sealed. It is read once a process, and again only when it has changed."""
    return all(map(_is_whole, files))


def _is_whole(file: Path) -> bool:
    try:
        return digest_file(file) == _seal_of(file).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError):
        return False  # Not there, not sealed, or not to be read: to be made again.


def _stands(file: Path) -> bool | None:
    """Whether a file is as it was written; None where nothing beside or in it tells."""
    if _seal_of(file).exists():
        return _is_whole(file)
    if file.suffix in _CHECKED:
        module, name = _CHECKED[file.suffix]
        try:
            getattr(importlib.import_module(module), name)(file)
        except DataError:
            return False
        return True
    return None


_CHECKED = {
    ".parquet": ("onnxptq.evaluation.predictions", "load_predictions"),
    ".stats": ("onnxptq.calibrators.statistics_file", "read_statistics"),
}
"""Kinds that carry checksums of their own, and what reads them."""


@dataclass(frozen=True)
class Verified:
    """What `Cache.verify` found.

    Attributes:
        whole: files that are as they were written.
        damaged: files that were not, and are gone.
    """

    whole: int
    damaged: tuple[Path, ...]


def _seal_of(file: Path) -> Path:
    return file.with_name(file.name + _SEAL)


@dataclass(frozen=True)
class Cache:
    """The folder in which artefacts are kept by their key.

    Attributes:
        root: the folder.
        option: the option that named it, as it was given ("--store DIR"); "" is none.
        may_move: where the folder cannot be written, a temporary one takes its place, and a note says so. Not for what
            must be found again.
    """

    root: Path
    option: str = field(default="", compare=False)
    may_move: bool = field(default=False, compare=False)

    def place(self, kind: str, key: str, suffix: str) -> Path:
        """Where the artefact lies or will lie. Its folder exists afterwards."""
        return self._made(self.root / LAYOUT / kind / key[:2]) / f"{key}{suffix}"

    def folder(self, kind: str) -> Path:
        """A folder of one kind for a library that keeps its own order in it. It exists afterwards."""
        return self._made(self.root / LAYOUT / kind)

    def command(self, text: str) -> str:
        """A command line that is about this cache: `text` with the option that named it."""
        return with_option(text, self.option)

    def lookup(self, kind: str) -> Path:
        """Where `folder` would be; nothing is made."""
        return self.root / LAYOUT / kind

    def usage(self) -> Mapping[str, tuple[int, int]]:
        """Number of files and bytes of each kind."""
        usage: dict[str, tuple[int, int]] = {}
        for file in self.root.glob(f"{LAYOUT}/*/**/*"):
            if file.is_file():
                kind = file.relative_to(self.root / LAYOUT).parts[0]
                files, size = usage.get(kind, (0, 0))
                usage[kind] = (files + 1, size + file.stat().st_size)
        return dict(sorted(usage.items()))

    def verify(self) -> Verified:
        """Reads everything that is kept with a seal or with checksums, and removes what is not as it was written.

        Afterwards all of it is for this user alone, and nothing is left of runs that were killed.
        """
        whole, damaged = 0, []
        base = self.root / LAYOUT
        for folder in sorted({path.parent for path in base.glob("*/**/.part.*")}):
            remove_left_behind(folder, ".part.")
        for file in sorted(path for path in base.glob("*/**/*") if path.is_file() and not path.is_symlink()):
            if not file.exists() or file.name.endswith(_SEAL):
                continue
            if file.name.endswith(_HALF) and time.time() - file.stat().st_mtime > LEFT_SECONDS:
                file.unlink(missing_ok=True)
            elif (standing := _stands(file)) is True:
                whole += 1
            elif standing is False:
                damaged.append(file)
                for gone in (file, _seal_of(file)):
                    gone.unlink(missing_ok=True)
        for path in [base, *base.glob("*/**/*")]:
            with suppress(OSError):
                path.chmod(path.stat().st_mode & 0o700)
        return Verified(whole, tuple(damaged))

    def clear(self, kind: str | None = None) -> None:
        """Deletes everything of one kind, or everything that we keep."""
        folder = self.root / LAYOUT / kind if kind else self.root / LAYOUT
        try:
            if folder.is_dir():
                shutil.rmtree(folder)
        except OSError as error:
            raise OutputError(f"{folder} cannot be deleted: {error.strerror or error}. Delete it by hand.") from error

    def _made(self, folder: Path) -> Path:
        try:
            keep_private(self.root / LAYOUT)
            make_private(folder)
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, "it is read-only")
        except OSError as error:
            if self.may_move:
                return self._moved(error)._made(_stand_ins[self.root] / folder.relative_to(self.root))
            name, option = self.option.split()[0] if self.option else "", self.option
            what = f"folder of {name}" if option else "cache folder"
            remedy = f"Give another one with {name}." if option else "Set ONNXPTQ_CACHE to a folder that can."
            raise OutputError(
                f"the {what} {self.root} cannot be written: {error.strerror or error}. {remedy}"
            ) from error
        return folder

    def _moved(self, error: OSError) -> Cache:
        """The cache that takes the place of this one, in this process."""
        if self.root not in _stand_ins:
            _stand_ins[self.root] = Path(tempfile.mkdtemp(prefix="onnxptq.cache."))
            atexit.register(shutil.rmtree, _stand_ins[self.root], ignore_errors=True)
            print(
                f"note: the cache folder {self.root} cannot be written ({error.strerror or error}): what would be kept "
                "there is made anew each time. Set ONNXPTQ_CACHE to a folder that can.",
                file=sys.stderr,
            )
        return Cache(_stand_ins[self.root])


_stand_ins: dict[Path, Path] = {}
"""Temporary folders, by the root that cannot be written."""


@contextmanager
def temporary_cache() -> Iterator[None]:
    """The user's cache is a temporary folder within the block, also for processes that are started there."""
    before = os.environ.get("ONNXPTQ_CACHE")
    with tempfile.TemporaryDirectory(prefix="onnxptq.cache.", ignore_cleanup_errors=True) as folder:
        os.environ["ONNXPTQ_CACHE"] = folder
        try:
            yield
        finally:
            del os.environ["ONNXPTQ_CACHE"]
            if before is not None:
                os.environ["ONNXPTQ_CACHE"] = before


def user_cache() -> Cache:
    """The cache of this user: `$ONNXPTQ_CACHE`, or `onnxptq` in the platform's cache folder."""
    if named := os.environ.get("ONNXPTQ_CACHE"):
        return Cache(Path(named), may_move=True)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Cache(base / "onnxptq", may_move=True)
