"""Weather: fog, drawn as a plasma fractal of any size."""

from __future__ import annotations

import numpy as np

from onnxptq.data.shifts._apply import Images, generators
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift
from onnxptq.data.shifts._severities import Severities

# (thickness, decay). The smaller the decay, the finer the fog's structure.
FOG = Severities(
    cifar=((0.2, 3.0), (0.5, 3.0), (0.75, 2.5), (1.0, 2.0), (1.5, 1.75)),
    imagenet=((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4)),
)


def plasma_fractal(noise: Images, decay: float) -> Images:
    """A cloudy height map for each field of noise, by the diamond-square algorithm on a torus.

    Each level halves the grid: the middle of every square, then of every edge, is the mean of its four neighbours plus
    noise. ImageNet-C applies its decaying amplitude twice to each number, so the noise falls by decay ** 2 a level.

    Args:
        noise: float32, (N, M, M), M a power of two, uniform in [-1, 1): the number drawn for each point.
        decay: see `FOG`.

    Returns:
        float32, (N, M, M), each map from 0 to 1.
    """
    size = noise.shape[1]
    height = np.zeros_like(noise)
    amplitude, step = 1.0, size
    while step >= 2:
        half = step // 2
        strength = np.float32(amplitude)
        corners = height[:, ::step, ::step]
        below = np.roll(corners, -1, axis=1)
        right = np.roll(corners, -1, axis=2)
        total = (corners + below) + (right + np.roll(below, -1, axis=2))
        middles = total / 4 + strength * noise[:, half::step, half::step]
        height[:, half::step, half::step] = middles
        total = (corners + right) + (middles + np.roll(middles, 1, axis=1))
        height[:, ::step, half::step] = total / 4 + strength * noise[:, ::step, half::step]
        total = (corners + below) + (middles + np.roll(middles, 1, axis=2))
        height[:, half::step, ::step] = total / 4 + strength * noise[:, half::step, ::step]
        amplitude /= decay**2
        step = half
    height -= height.min(axis=(1, 2), keepdims=True)
    top = height.max(axis=(1, 2), keepdims=True)
    np.divide(height, top, out=height, where=top > 0)
    return height


def fog(images: Images, severity: int, seeds: Seeds) -> Images:
    """(x + thickness * fog) * brightest / (brightest + thickness), with the brightest value of each image."""
    thickness, decay = FOG.at(severity, images)
    count, height, width, _ = images.shape
    # The smallest map that covers the image: 256 for 224 pixels and 32 for 32, as in ImageNet-C and CIFAR-10-C.
    size = max(2, 1 << (max(height, width) - 1).bit_length())
    noise = np.empty((count, size, size), np.float32)
    for row, generator in zip(noise, generators("fog", seeds), strict=True):
        generator.random(dtype=np.float32, out=row)
    noise = noise * np.float32(2) - np.float32(1)
    cloud = plasma_fractal(noise, decay)[:, :height, :width, None]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    foggy: Images = (images + np.float32(thickness) * cloud) * (brightest / (brightest + np.float32(thickness)))
    np.minimum(foggy, np.float32(1), out=foggy)
    return foggy


SHIFTS.register(
    Shift(
        name="fog",
        family="weather",
        modality="image",
        apply=fog,
        summary="fog: a seeded cloud over each image, thinner below 64 pixels",
        source="ImageNet-C fog, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        min_size=4,
        seeded=True,
    )
)
