"""Blur: gaussian, and the motion blur of a camera that moves in a straight line.

Lengths are in pixels: ImageNet-C's at 224 pixels and in proportion at other sizes, CIFAR-10-C's below 64 pixels and as
the floor above.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from onnxptq.data.shifts._apply import Images, generators
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift
from onnxptq.data.shifts._severities import Severities, length_at

SIGMA = Severities(cifar=(0.4, 0.6, 0.7, 0.8, 1.0), imagenet=(1.0, 2.0, 3.0, 4.0, 6.0))
TRUNCATE = 4.0  # the kernel ends at this many sigma, as in scipy.ndimage.gaussian_filter

# Of ImageMagick's motion blur.
MOTION_RADIUS = Severities[float](cifar=(6, 6, 6, 8, 9), imagenet=(10, 15, 15, 15, 20))
# CIFAR-10-C has sigma 2 at severity 4 too, where a longer radius alone changes no pixel visibly.
MOTION_SIGMA = Severities(cifar=(1.0, 1.5, 2.0, 2.25, 2.5), imagenet=(3.0, 5.0, 8.0, 12.0, 15.0))
MOTION_ANGLE = 45.0  # degrees, either way from the horizontal
# Taps below this share of the first one would not change a float32 pixel.
NEGLIGIBLE = 1e-8


def blur(images: Images, severity: int, seeds: Seeds) -> Images:
    """Gaussian filter, each channel by itself; pixels beyond the border repeat the border."""
    sigma = length_at(SIGMA, severity, images)
    radius = int(TRUNCATE * sigma + 0.5)
    half = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2)
    weights = (half / (2 * half.sum() - half[0])).astype(np.float32)
    return np.clip(_symmetric(_symmetric(images, weights, axis=1), weights, axis=2), 0, 1)


def _symmetric(images: Images, weights: npt.NDArray[np.float32], axis: int) -> Images:
    """Correlation along `axis` with a symmetric kernel, of which `weights` is the middle and one side."""
    radius, length = len(weights) - 1, images.shape[axis]
    widths = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
    padded = np.pad(images, widths, mode="edge")

    def moved(by: int) -> Images:
        window = slice(radius + by, radius + by + length)
        return padded[:, window] if axis == 1 else padded[:, :, window]

    total: Images = images * weights[0]
    pair = np.empty_like(images)
    for by in range(1, radius + 1):
        np.add(moved(-by), moved(by), out=pair)
        pair *= weights[by]
        total += pair
    return total


def motion_kernel(radius: int, sigma: float) -> npt.NDArray[np.float32]:
    """Weights of the taps 0, 1, 2 ... pixels along the motion: one side of a gaussian, 2 * radius + 1 long."""
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    weights = weights[weights > NEGLIGIBLE]
    kernel: npt.NDArray[np.float32] = (weights / weights.sum()).astype(np.float32)
    return kernel


def motion_blur(images: Images, severity: int, seeds: Seeds) -> Images:
    """Mean along a line in a direction of the sample's own, at most 45 degrees from the horizontal."""
    radius = round(length_at(MOTION_RADIUS, severity, images))
    kernel = motion_kernel(radius, length_at(MOTION_SIGMA, severity, images))
    degrees = [generator.uniform(-MOTION_ANGLE, MOTION_ANGLE) for generator in generators("motion_blur", seeds)]
    angle = np.radians(np.asarray(degrees, np.float64))[:, None]
    taps = np.arange(len(kernel))
    # Whole pixels, as ImageMagick steps: (N, taps). The cosine is positive, so columns only move to the right.
    right = np.ceil(taps * np.cos(angle) - 0.5).astype(np.int64)
    down = np.ceil(taps * np.sin(angle) - 0.5).astype(np.int64)
    above, below, beyond = -down.min(initial=0), down.max(initial=0), right.max(initial=0)
    padded = np.pad(images, ((0, 0), (above, below), (0, beyond), (0, 0)), mode="edge")
    # Every place that an image can move to, its rows as one run of numbers: (N, down, right, H, W * C).
    count, height, width, channels = images.shape
    rows = padded.reshape(count, padded.shape[1], padded.shape[2] * channels)
    moved = sliding_window_view(rows, (height, width * channels), axis=(1, 2))[:, :, ::channels]
    total = np.zeros((count, height, width * channels), np.float32)
    for weight, row, column in zip(kernel, down.T, right.T, strict=True):
        total += moved[np.arange(count), above + row, column] * weight
    return np.clip(total.reshape(images.shape), 0, 1)


SHIFTS.register(
    Shift(
        name="blur",
        family="blur",
        modality="image",
        apply=blur,
        summary="gaussian blur, sigma 1 to 6 pixels at 224; below 64 pixels 0.4 to 1",
        source="ImageNet-C gaussian_blur, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        min_size=4,
    )
)
SHIFTS.register(
    Shift(
        name="motion_blur",
        family="motion",
        modality="image",
        apply=motion_blur,
        summary="blur along a line in a random direction, shorter below 64 pixels",
        source="ImageNet-C motion_blur without ImageMagick, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        min_size=8,
        seeded=True,
    )
)
