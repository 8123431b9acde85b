"""Pictures with masks: `images/` and `masks/`, a PNG of class numbers for each picture, by the name without its ending.

Each row holds the encoded picture, and under `TRUTH` its "mask": integers (height, width). A picture without a mask has
none; it is judged by fidelity alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.data._folder import IMAGE_SUFFIXES, read_file
from onnxptq.data._raw import SPLIT_NAMES, RawSplit
from onnxptq.data.dataset import TRUTH, Indices
from onnxptq.data.isolated import DecodeError, ask
from onnxptq.errors import DataError


@dataclass(frozen=True)
class MaskedRows:
    """Reads pictures and their masks as rows {"image": encoded bytes, "_name": file name, TRUTH: {"mask": array}}."""

    pairs: tuple[tuple[Path, Path | None], ...]

    def __call__(self, indices: Indices) -> list[dict[str, Any]]:
        """The rows at `indices`. Raises DataError naming a file that cannot be used."""
        return [self._row(*self.pairs[i]) for i in indices.tolist()]

    def _row(self, picture: Path, mask: Path | None) -> dict[str, Any]:
        encoded = read_file(picture)
        truth = {} if mask is None else {"mask": read_mask(mask, encoded)}
        return {"image": encoded, "_name": picture.name, TRUTH: truth}


def read_mask(path: Path, picture: bytes) -> Any:
    """A mask's class numbers: uint8 or uint16, (height, width).

    Args:
        path: of the mask.
        picture: the encoded picture that it belongs to.

    Raises:
        DataError: it cannot be decoded, holds colors instead of numbers, or has another size than its picture.
    """
    try:
        answer, (data,) = ask("numbers", [read_file(path), picture])
    except DecodeError as error:
        raise DataError(f"the mask {path} cannot be read: {error}. Restore it or leave it out.") from error
    width, height = answer["size"]
    if answer["picture"] not in (None, [width, height]):
        across, down = answer["picture"]
        raise DataError(
            f"the mask {path} has {width} x {height} pixels, and its picture {across} x {down}. Make it of the "
            "picture's size, or leave such pictures out with --skip-bad."
        )
    if answer["mode"] not in ("L", "I;16"):
        raise DataError(
            f"the mask {path} holds colors ({answer['mode']}); expected one class number a pixel: a gray or a palette "
            "PNG."
        )
    return np.frombuffer(data, np.uint8 if answer["mode"] == "L" else np.dtype("<u2")).reshape(height, width)


def open_masked(path: Path) -> dict[str, RawSplit] | None:
    """The splits of pictures with masks, {"": only} where it has none; None where the path holds something else.

    Raises:
        DataError: no mask has the name of a picture.
    """
    images, masks = path / "images", path / "masks"
    if not images.is_dir() or not masks.is_dir():
        return None
    below = [folder for folder in sorted(images.iterdir()) if folder.is_dir()]
    splits = {SPLIT_NAMES.get(folder.name.rstrip("0123456789").lower(), folder.name): folder for folder in below}
    found = {}
    for split, folder in (splits or {"": images}).items():
        there = masks / folder.name if splits and (masks / folder.name).is_dir() else masks
        known = {file.stem: file for file in sorted(there.glob("*.png"))}
        pictures = sorted(one for one in folder.iterdir() if one.suffix.lower() in IMAGE_SUFFIXES and one.is_file())
        pairs = tuple((picture, known.get(picture.stem)) for picture in pictures)
        if not any(mask for _, mask in pairs):
            raise DataError(
                f"no mask in {there} has the name of a picture in {folder}. Expected NAME.png for NAME.jpg."
            )
        found[split] = RawSplit(MaskedRows(pairs), len(pairs), None, None, {})
    return found
