"""Digital loss: JPEG compression and coarse pixels."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts._apply import Images
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift
from onnxptq.data.shifts._severities import Severities, scale

JPEG_QUALITY = Severities(cifar=(80, 65, 58, 50, 40), imagenet=(25, 18, 15, 10, 7))
PIXELATE = Severities(cifar=(0.95, 0.9, 0.85, 0.75, 0.65), imagenet=(0.6, 0.5, 0.4, 0.3, 0.25))


def jpeg(images: Images, severity: int, seeds: Seeds) -> Images:
    """Rounded to 8 bits, written as JPEG by Pillow (4:2:0 chroma for colour) and read back."""
    from PIL import Image

    quality = JPEG_QUALITY.at(severity, images)
    gray = images.shape[3] == 1
    pixels = np.rint(images * np.float32(255)).astype(np.uint8)
    decoded = np.empty_like(pixels)
    for row, image in zip(decoded, pixels[..., 0] if gray else pixels, strict=True):
        file = io.BytesIO()
        Image.fromarray(image).save(file, "JPEG", quality=quality)
        row[...] = np.asarray(Image.open(file)).reshape(row.shape)
    reread: Images = decoded.astype(np.float32) / np.float32(255)
    return reread


def pixelate(images: Images, severity: int, seeds: Seeds) -> Images:
    """Shrunk by averaging blocks, then enlarged by repeating pixels.

    Pillow's BOX filter in float. Where a pixel lies exactly half in one block, Pillow's rounding may count it in none;
    here it is always in exactly one.
    """
    height, width = images.shape[1:3]
    share = PIXELATE.at(severity, images) / max(1.0, scale(images))  # blocks grow with large images
    rows, columns = max(1, int(height * share)), max(1, int(width * share))
    # float64 sums of 8-bit pixels over 255 are exact whatever their order.
    sums = np.add.reduceat(images, _starts(height, rows), axis=1, dtype=np.float64)
    sums = np.add.reduceat(sums, _starts(width, columns), axis=2)
    area = np.outer(_lengths(height, rows), _lengths(width, columns))
    blocks = (sums / area[:, :, None]).astype(np.float32)
    return np.clip(blocks[:, _nearest(height, rows)][:, :, _nearest(width, columns)], 0, 1)


def _starts(length: int, blocks: int) -> npt.NDArray[np.int64]:
    """First pixel of each of `blocks` blocks: i * length / blocks, rounded half up."""
    return (2 * np.arange(blocks) * length + blocks) // (2 * blocks)


def _lengths(length: int, blocks: int) -> npt.NDArray[np.int64]:
    return np.diff(np.append(_starts(length, blocks), length))


def _nearest(length: int, blocks: int) -> npt.NDArray[np.int64]:
    """The block whose enlarged pixel covers the middle of each pixel."""
    return (2 * np.arange(length) + 1) * blocks // (2 * length)


SHIFTS.register(
    Shift(
        name="jpeg",
        family="digital",
        modality="image",
        apply=jpeg,
        summary="JPEG compression, quality 25 down to 7; below 64 pixels 80 to 40",
        source="ImageNet-C jpeg_compression, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        min_size=16,
    )
)
SHIFTS.register(
    Shift(
        name="pixelate",
        family="digital",
        modality="image",
        apply=pixelate,
        summary="shrunk to 0.6 down to 0.25 of the side and enlarged again; below 64 pixels 0.95 to 0.65",
        source="ImageNet-C pixelate, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        min_size=8,
    )
)
