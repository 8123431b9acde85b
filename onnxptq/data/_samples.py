"""One raw sample: its digest, and whether it can be used at all."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

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


def defect(row: Mapping[str, Any], *, images: bool = True) -> str | None:
    """What is wrong with a sample: an image that Pillow cannot decode, an array with NaN or infinity, a
    text without a word. None: nothing.

    Args:
        row: the input columns.
        images: decode images too.
    """
    for name, value in row.items():
        if isinstance(value, bytes) and images:
            try:
                decode_image(value).load()
            # Pillow raises whatever its decoders raise: OSError, SyntaxError, EOFError, struct.error and others.
            except Exception as error:
                return f"its image cannot be decoded: {why_not_decoded(error)}"
        elif isinstance(value, str) and not value.strip() and not name.startswith("_"):
            return f"column {name!r} has no word"
        elif isinstance(value, np.ndarray) and (reason := not_finite(value)):
            return f"column {name!r} has {reason}"
    return None


def decode_image(encoded: bytes) -> Any:
    """The `PIL.Image.Image` in `encoded`; pixels are decoded when they are first used, and may raise then."""
    from PIL import Image

    return Image.open(BytesIO(encoded))


def why_not_decoded(error: Exception) -> str:
    """What Pillow says, without the address of the buffer that it was given."""
    from PIL import UnidentifiedImageError

    return "not an image, or cut off" if isinstance(error, UnidentifiedImageError) else str(error)


def not_finite(array: npt.NDArray[Any]) -> str | None:
    """ "NaN" or "infinity" where a float array has one, else None."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return None
    return "NaN" if np.isnan(array).any() else "infinity"


def _content(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    array = np.asarray(value)
    return f"{array.dtype.str}{array.shape}".encode() + array.tobytes()
