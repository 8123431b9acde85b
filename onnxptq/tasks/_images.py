"""Pixels: from a raw image (encoded, a path, an array) to float32 of the right size and color in [0, 1]."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data import DecodeError, decode_picture, not_finite
from onnxptq.errors import DataError
from onnxptq.tasks._image_specification import ImageSpecification

Pixels = npt.NDArray[np.float32]


def read_image(raw: Any, specification: ImageSpecification, name: str) -> Pixels:
    """One image: float32, (H, W, C) in [0, 1], C 3 (RGB, whatever order the model wants) or 1 (gray).

    Args:
        raw: encoded bytes, the path of a file, or an array (H, W) or (H, W, 1, 3 or 4): uint8 or other integers from
            0 to 255, uint16 from 0 to 65535, floats from 0 to 1, or bool.
        specification: size, color and how to resize.
        name: what messages call the sample.

    Raises:
        DataError: the image cannot be decoded, or the array is not an image; the message names the sample.
    """
    pixels = _from_array(raw, name) if isinstance(raw, np.ndarray) else _decoded(raw, specification, name)
    pixels = _recolored(pixels, "L" if specification.color == "L" else "RGB")
    return np.asarray(_resized(pixels, specification, name), np.float32)


def _decoded(raw: Any, specification: ImageSpecification, name: str) -> npt.NDArray[Any]:
    """uint8 (H, W, 3) or (H, W, 1), resized already, or float32 in [0, 1] for images of more than 8 bits."""
    try:
        pixels = decode_picture(
            raw if isinstance(raw, bytes) else Path(raw).read_bytes(),
            color=specification.color,
            size=specification.geometry.target,
            resize=specification.resize,
            interpolation=specification.interpolation,
        ).pixels
    except (DecodeError, OSError) as error:
        raise DataError(
            f"the image {name} cannot be decoded: {error}. Restore or remove it, or leave out bad ones with --skip-bad."
        ) from error
    if pixels.dtype.kind == "f":
        return _from_array(pixels, name)
    if pixels.dtype != np.uint8:
        return (pixels.astype(np.float32) / np.float32(65535)).clip(0, 1)
    return pixels


def _from_array(array: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise DataError(
            f"the image {name} is an array of shape {array.shape}; expected (height, width), or (height, width, "
            "channels) with 1 or 3 channels. Arrays in the model's own layout are for the task tensor."
        )
    array = array[..., :3]  # As Pillow does: transparency is left out.
    if reason := not_finite(array):
        raise DataError(f"the image {name} holds {reason}. Repair it or leave bad ones out with --skip-bad.")
    if array.dtype.kind not in "biuf":
        raise DataError(f"the image {name} is an array of {array.dtype}; expected numbers.")
    top = 1 if array.dtype.kind in "bf" else 65535 if array.dtype == np.uint16 else 255
    if array.min() < 0 or array.max() > top:
        raise DataError(
            f"the image {name} ({array.dtype}) has values from {array.min()} to {array.max()}; expected 0 to {top}. "
            "Store pixels as uint8, or as floats divided by the largest value."
        )
    if top == 255:
        return array.astype(np.uint8)
    return array.astype(np.float32) / np.float32(top)


def _recolored(pixels: npt.NDArray[Any], color: str) -> npt.NDArray[Any]:
    channels = pixels.shape[2]
    if color == "RGB" and channels == 1:
        return np.repeat(pixels, 3, axis=2)
    if color == "RGB" or channels == 1:
        return pixels
    if pixels.dtype == np.uint8:
        from PIL import Image

        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    # ITU-R BT.601, the weights of Pillow's convert("L").
    return (pixels @ np.array([0.299, 0.587, 0.114], np.float32))[..., None]


def _resized(pixels: npt.NDArray[Any], specification: ImageSpecification, name: str) -> npt.NDArray[Any]:
    """Resized, and cut or filled up as the specification says, then scaled to [0, 1]."""
    height, width = specification.size
    placed = specification.geometry.place(*pixels.shape[:2])
    pixels = _scaled_to(pixels, placed.height, placed.width, specification.interpolation)
    if specification.resize == "letterbox":
        pixels = _filled_up(pixels, height, width, placed.top, placed.left, specification.fill)
    elif placed.height < height or placed.width < width:
        raise DataError(
            f"the image {name} is {placed.height} x {placed.width} pixels, but the model takes {height} x {width} "
            "and its preprocessing does not resize. Give larger images or another resize."
        )
    else:
        pixels = pixels[-placed.top : height - placed.top, -placed.left : width - placed.left]
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels


def _filled_up(pixels: npt.NDArray[Any], height: int, width: int, top: int, left: int, fill: int) -> npt.NDArray[Any]:
    """An image of the model's size that is `fill` (0 to 255) around the pixels."""
    value = fill if pixels.dtype == np.uint8 else np.float32(fill / 255)
    canvas = np.full((height, width, pixels.shape[2]), value, pixels.dtype)
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _scaled_to(pixels: npt.NDArray[Any], height: int, width: int, interpolation: str) -> npt.NDArray[Any]:
    if pixels.shape[:2] == (height, width):
        return pixels
    from PIL import Image

    filter_ = Image.Resampling[interpolation.upper()]
    if pixels.dtype == np.uint8:
        image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        scaled = np.asarray(image.resize((width, height), filter_))
        return scaled[..., None] if scaled.ndim == 2 else scaled
    channels = [Image.fromarray(np.ascontiguousarray(pixels[..., c])) for c in range(pixels.shape[2])]
    stacked = np.stack([np.asarray(channel.resize((width, height), filter_)) for channel in channels], axis=2)
    return stacked.clip(0, 1)  # Cubic filters overshoot.
