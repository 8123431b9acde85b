"""A folder of images or recordings: a sub-folder a class, or none and no labels; perhaps train and test above."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxptq.data._raw import SPLIT_NAMES, RawSplit
from onnxptq.data._sounds import is_sound
from onnxptq.data.dataset import Indices
from onnxptq.errors import DataError

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm"})


@dataclass(frozen=True)
class FileRows:
    """Reads files as rows {"image" or "audio": encoded bytes, "_name": path below the source}."""

    root: Path
    files: tuple[str, ...]
    column: str = "image"

    def __call__(self, indices: Indices) -> list[dict[str, Any]]:
        """The rows at `indices`. Raises DataError naming a file that cannot be read."""
        return [{self.column: read_file(self.root / self.files[i]), "_name": self.files[i]} for i in indices.tolist()]


def read_file(path: Path, within: Path | None = None) -> bytes:
    """The bytes of a file that a dataset refers to.

    Args:
        path: the file; links are followed.
        within: the folder in which it must lie, links followed too, because a stranger wrote its name; None: anywhere.

    Raises:
        DataError: it cannot be read, is no regular file, is larger than `MOST_FILE_BYTES`, or lies elsewhere; the
            message names it.
    """
    try:
        if within is not None and not path.resolve().is_relative_to(within.resolve()):
            raise DataError(
                f"the data names the file {path}, which lies outside of its folder {within.resolve()}. If you trust "
                "whoever wrote the data, allow it with --trust-data."
            )
        # Not blocking, because opening a pipe that nobody writes to would never end.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as file:
            state = os.fstat(descriptor)
            if not stat.S_ISREG(state.st_mode):
                raise DataError(f"{path} is a folder, a device or a pipe. Expected a file.")
            if state.st_size > MOST_FILE_BYTES:
                raise DataError(
                    f"the file {path} has {state.st_size} bytes; at most {MOST_FILE_BYTES} are read. Store it smaller."
                )
            return file.read(MOST_FILE_BYTES + 1)
    except (OSError, ValueError, RuntimeError) as error:  # A name with a zero character, a circle of links.
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"the file {path} cannot be read: {reason}. Restore it or leave it out.") from error


MOST_FILE_BYTES = 512 * 2**20
"""The largest image or sound that is read: photographs have 10 MB, satellite images 100."""


def open_folder(folder: Path) -> dict[str, RawSplit]:
    """The splits of a folder of images, or of recordings, {"": only} where it has none.

    Raises:
        DataError: none at all, a class folder without one, files beside class folders, images and recordings.
    """
    below = _sub_folders(folder)
    if below and all(path.name.lower() in SPLIT_NAMES for path in below) and not _media(folder):
        return {SPLIT_NAMES[path.name.lower()]: _open_split(folder, path) for path in below}
    return {"": _open_split(folder, folder)}


def _open_split(root: Path, folder: Path) -> RawSplit:
    classes = _sub_folders(folder)
    loose = _media(folder)
    if classes and loose:
        raise DataError(
            f"{folder} has the file {loose[0].name} beside class folders ({', '.join(c.name for c in classes[:5])}). "
            "Put every file into the folder of its class."
        )
    files: list[Path] = loose
    labels: list[str] = []
    for path in classes:
        found = [file for file in sorted(path.rglob("*")) if is_image(file) or is_sound(file)]
        if not found:
            raise DataError(
                f"the class folder {path} has no image and no recording. Remove the folder or add some of that class."
            )
        files = [*files, *found]
        labels.extend([path.name] * len(found))
    if not files:
        raise DataError(
            f"{folder} has no data: expected a folder of images or recordings a class, or files that end in .parquet, "
            ".arrow, .csv, .tsv or .jsonl."
        )
    sounds = [file for file in files if is_sound(file)]
    if sounds and len(sounds) < len(files):
        image = next(file for file in files if not is_sound(file))
        raise DataError(f"{folder} holds images ({image.name}) and recordings ({sounds[0].name}). Part them.")
    rows = FileRows(root, tuple(file.relative_to(root).as_posix() for file in files), "audio" if sounds else "image")
    return RawSplit(rows, len(files), labels or None, None, {})


def _sub_folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith((".", "__")))


def _media(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if is_image(path) or is_sound(path))


def is_image(path: Path) -> bool:
    """Whether the file's name says that it is an image."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and path.is_file()
