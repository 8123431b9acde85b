"""One raw sample: its digest, and whether it can be used at all."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data._sounds import SOUND_SUFFIXES, looks_like_sound, sound_defects
from onnxptq.data.isolated import DecodeError, ask

DIGEST_BYTES = 16
"""BLAKE2b-128: among a billion samples, two different ones share a digest with a probability below 1e-20."""


def fingerprint(row: Mapping[str, Any]) -> str:
    """Digest of a sample's input content, 32 hexadecimal digits of BLAKE2b.

    Bytes (an encoded image) and text count as they are, arrays with their dtype and shape. The column's name counts
    only where there are several, so that one image has one digest whatever file it lies in.

    Args:
        row: the input columns; entries whose name begins with "_" are left out.
    """
    values = {name: row[name] for name in sorted(row) if not name.startswith("_")}
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name, value in values.items():
        content = _content(value)
        if len(values) > 1:
            state.update(f"{name}\0{len(content)}\0".encode())
        state.update(content)
    return state.hexdigest()


def truth_digest(truth: Mapping[str, Any]) -> str:
    """Digest of a sample's truth: nested lists, tables, numbers, text and arrays."""
    state = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for name in sorted(truth):
        value = truth[name]
        state.update(f"{name}\0".encode())
        state.update(_content(value) if isinstance(value, bytes | str | np.ndarray) else repr(value).encode())
    return state.hexdigest()


def defects(rows: Sequence[Mapping[str, Any]], *, whole: bool = False, cells: Collection[str] = ()) -> list[str | None]:
    """What is wrong with each sample: an image that is none or is cut off, an array with NaN or infinity, a text
    without a word. None: nothing.

    Args:
        rows: the input columns of each.
        whole: decode all pixels of the images too, which costs as much as using them; else their headers, the
            checksums of PNG and the ends of files are looked at.
        cells: columns whose text may be empty.
    """
    found = [_plain_defect(row, cells) for row in rows]
    encoded = [(at, data) for at, row in enumerate(rows) for data in row.values() if isinstance(data, bytes)]
    sounds = [(at, data) for at, data in encoded if _is_sound(rows[at], data)]
    images = [(at, data) for at, data in encoded if not _is_sound(rows[at], data)]
    for of_kind, look in ((images, _image_defects), (sounds, sound_defects)):
        for (at, _), reason in zip(of_kind, look([data for _, data in of_kind], whole), strict=True):
            if reason is not None and found[at] is None:
                found[at] = f"{UNDECODED}: {reason}"
    return found


UNDECODED = "cannot be decoded"
"""How the defect of an image or a recording begins."""


def encoded_kind(row: Mapping[str, Any]) -> str:
    """What messages call the encoded input of a row: "image" or "recording"."""
    data = next((value for name, value in row.items() if isinstance(value, bytes) and not name.startswith("_")), b"")
    return "recording" if _is_sound(row, data) else "image"


def _is_sound(row: Mapping[str, Any], data: bytes) -> bool:
    """By its first bytes, or by its name where it has lost them."""
    name = str(row.get("_name", "")).lower().removesuffix(")")
    return looks_like_sound(data) or name.endswith(tuple(SOUND_SUFFIXES))


def _plain_defect(row: Mapping[str, Any], cells: Collection[str]) -> str | None:
    for name, value in row.items():
        if isinstance(value, str) and not value.strip() and not name.startswith("_") and name not in cells:
            return f"column {name!r} has no word"
        if isinstance(value, np.ndarray) and (reason := not_finite(value)):
            return f"column {name!r} has {reason}"
    return None


def _image_defects(images: Sequence[bytes], whole: bool) -> list[str | None]:
    if not images:
        return []
    try:
        found: list[str | None] = ask("defects", images, whole=whole)[0]
    except DecodeError as error:
        if len(images) == 1:
            return [error.reason]
        # One of them ended the process; one by one, the others are looked at all the same.
        return [reason for image in images for reason in _image_defects([image], whole)]
    return found


@dataclass(frozen=True)
class Picture:
    """A decoded image, turned as its EXIF orientation says, without transparency.

    Attributes:
        pixels: uint8, (H, W, 1) gray or (H, W, 3) RGB; of more than 8 bits uint16, int32 or float32, (H, W, 1).
        form: of the file, for example "PNG".
    """

    pixels: npt.NDArray[Any]
    form: str


def decode_picture(
    encoded: bytes,
    *,
    color: str | None = None,
    size: tuple[int, int] | None = None,
    resize: str = "stretch",
    interpolation: str = "bilinear",
) -> Picture:
    """Decodes an image, in the decoder's process. One of more than 8 bits comes as it is stored.

    Args:
        encoded: the file.
        color: "L" makes gray of colors (ITU-R BT.601).
        size: height and width to resize it to; None leaves it.
        resize: "stretch", "shortest" (keeps the shape and covers `size`) or "letterbox" (fits into it).
        interpolation: Pillow's filter.

    Raises:
        DecodeError: it is no image that we know, is damaged, or decoding it crashed, hung or took too much memory.
    """
    answer, (data,) = ask("picture", [encoded], color=color, size=size, resize=resize, interpolation=interpolation)
    channels, dtype = _MODES[answer["mode"]]
    width, height = answer["size"]
    # A copy, because what lies in bytes cannot be written.
    return Picture(np.frombuffer(bytearray(data), dtype).reshape(height, width, channels), answer["format"])


_MODES = {"L": (1, "u1"), "RGB": (3, "u1"), "I": (1, "<i4"), "I;16": (1, "<u2"), "I;16B": (1, ">u2"), "F": (1, "<f4")}
"""Pillow's modes: channels and dtype."""


def not_finite(array: npt.NDArray[Any]) -> str | None:
    """ "NaN" or "infinity" where a float array has one, else None."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    return "NaN" if np.isnan(array).any() else "infinity"


def _content(value: Any) -> bytes:
    if value is None:
        return b"\0missing"
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    array = np.asarray(value)
    return f"{array.dtype.str}{array.shape}".encode() + array.tobytes()
