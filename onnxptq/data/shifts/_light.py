"""Shifts of light, tone and colour: each pixel is changed by itself (contrast: against its image's mean).

Everything here is built from additions, products, quotients and square roots, which IEEE 754 rounds alike on every
processor.
"""

from __future__ import annotations

import functools

import numpy as np

from onnxptq.data.shifts._apply import Images
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift
from onnxptq.data.shifts._severities import Severities

DARK = (0.5, 0.3, 0.15, 0.1, 0.05)
BRIGHT = Severities(cifar=(0.05, 0.1, 0.15, 0.2, 0.3), imagenet=(0.1, 0.2, 0.3, 0.4, 0.5))
GAMMA = (1.5, 2.0, 2.5, 3.0, 4.0)
CONTRAST = Severities(cifar=(0.75, 0.5, 0.4, 0.3, 0.15), imagenet=(0.4, 0.3, 0.2, 0.1, 0.05))
# (factor, offset)
SATURATION = Severities(
    cifar=((0.3, 0.0), (0.1, 0.0), (1.5, 0.0), (2.0, 0.1), (2.5, 0.2)),
    imagenet=((0.3, 0.0), (0.1, 0.0), (2.0, 0.0), (5.0, 0.1), (20.0, 0.2)),
)
# Severity 3 is the usual solarize (threshold one half), severity 5 inverts everything.
INVERT_THRESHOLD = (0.8, 0.65, 0.5, 0.25, 0.0)


def dark(images: Images, severity: int, seeds: Seeds) -> Images:
    """x * c."""
    return images * np.float32(DARK[severity - 1])


def bright(images: Images, severity: int, seeds: Seeds) -> Images:
    """HSV value + c, at most 1. On gray images the value is the pixel."""
    value = _largest(images)
    raised = np.minimum(value + np.float32(BRIGHT.at(severity, images)), np.float32(1))
    # Hue and saturation stay when the channels keep their ratios. Black has neither: it becomes the gray `raised`.
    # The ratios come first: one factor for the pixel, raised / value, would overflow for nearly black ones.
    ratios = np.divide(images, value, out=np.ones_like(images), where=value > 0)
    brighter: Images = ratios * raised
    return brighter


def gamma(images: Images, severity: int, seeds: Seeds) -> Images:
    """x ** c, for c a multiple of one half."""
    whole, half = divmod(GAMMA[severity - 1], 1)
    powered: Images = np.sqrt(images) if half else np.ones_like(images)
    for _ in range(int(whole)):
        powered *= images
    return powered


def contrast(images: Images, severity: int, seeds: Seeds) -> Images:
    """(x - mean) * c + mean, with the mean of each image and channel."""
    # In float64 the sum of 8-bit pixels over 255 is exact, so it does not depend on the order of summation.
    mean = images.mean(axis=(1, 2), dtype=np.float64, keepdims=True).astype(np.float32)
    flattened: Images = (images - mean) * np.float32(CONTRAST.at(severity, images)) + mean
    return np.clip(flattened, 0, 1)


def saturation(images: Images, severity: int, seeds: Seeds) -> Images:
    """HSV saturation * factor + offset, clipped to [0, 1]."""
    if images.shape[3] == 1:
        return images.copy()
    factor, offset = SATURATION.at(severity, images)
    value = _largest(images)
    spread = value - _smallest(images)
    old = np.divide(spread, value, out=np.zeros_like(value), where=value > 0)
    new = np.clip(old * np.float32(factor) + np.float32(offset), 0, 1)
    # How far each channel lies below the largest, as a fraction of the spread: that is the hue, and it stays.
    # A gray pixel has no hue; HSV calls it red, so an offset tints it red, in ImageNet-C as here.
    red = np.array([0, 1, 1], np.float32)
    below = np.divide(value - images, spread, out=np.broadcast_to(red, images.shape).copy(), where=spread > 0)
    saturated: Images = value - value * new * below
    return saturated


def invert(images: Images, severity: int, seeds: Seeds) -> Images:
    """1 - x where x reaches the threshold (solarize), x elsewhere."""
    inverted: Images = np.where(images >= np.float32(INVERT_THRESHOLD[severity - 1]), 1 - images, images)
    return inverted


def _largest(images: Images) -> Images:
    """Of the channels, (N, H, W, 1): several times faster than a reduction over an axis of three."""
    largest: Images = functools.reduce(np.maximum, (images[..., i : i + 1] for i in range(images.shape[3])))
    return largest


def _smallest(images: Images) -> Images:
    smallest: Images = functools.reduce(np.minimum, (images[..., i : i + 1] for i in range(images.shape[3])))
    return smallest


SHIFTS.register(
    Shift(
        name="dark",
        family="light",
        modality="image",
        apply=dark,
        summary="all pixels times 0.5, 0.3, 0.15, 0.1, 0.05",
        source="ours",
    )
)
SHIFTS.register(
    Shift(
        name="bright",
        family="light",
        modality="image",
        apply=bright,
        summary="brightness (HSV value) plus 0.1 to 0.5; below 64 pixels 0.05 to 0.3",
        source="ImageNet-C brightness, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
    )
)
SHIFTS.register(
    Shift(
        name="gamma",
        family="tone",
        modality="image",
        apply=gamma,
        summary="pixels to the power 1.5, 2, 2.5, 3, 4: darker mid-tones, black and white stay",
        source="ours",
    )
)
SHIFTS.register(
    Shift(
        name="contrast",
        family="contrast",
        modality="image",
        apply=contrast,
        summary="distance to the image's mean times 0.4 to 0.05; below 64 pixels 0.75 to 0.15",
        source="ImageNet-C contrast, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        min_size=2,
    )
)
SHIFTS.register(
    Shift(
        name="saturation",
        family="color",
        modality="image",
        apply=saturation,
        summary="colours paler (severity 1, 2) or stronger (3 to 5), less so below 64 pixels",
        source="ImageNet-C saturate, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        needs_color=True,
    )
)
SHIFTS.register(
    Shift(
        name="invert",
        family="invert",
        modality="image",
        apply=invert,
        summary="pixels from a threshold on inverted (solarize); severity 5 inverts all",
        source="ours, after solarize in AutoAugment (arXiv 1805.09501)",
        default_severity=5,
    )
)
