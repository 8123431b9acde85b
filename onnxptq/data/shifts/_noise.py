"""Noise: every pixel and channel changes by chance, by the sample's own seed."""

from __future__ import annotations

import math

import numpy as np

from onnxptq.data.shifts._apply import Images, generators
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift
from onnxptq.data.shifts._severities import Severities

GAUSSIAN = Severities(cifar=(0.04, 0.06, 0.08, 0.09, 0.1), imagenet=(0.08, 0.12, 0.18, 0.26, 0.38))
SHOT = Severities(cifar=(500, 250, 100, 75, 50), imagenet=(60, 25, 12, 5, 3))
SPECKLE = Severities(cifar=(0.06, 0.1, 0.12, 0.16, 0.2), imagenet=(0.15, 0.2, 0.35, 0.45, 0.6))
IMPULSE = Severities(cifar=(0.01, 0.02, 0.03, 0.05, 0.07), imagenet=(0.03, 0.06, 0.09, 0.17, 0.27))


def _normal(name: str, images: Images, seeds: Seeds) -> Images:
    drawn = np.empty(images.shape, np.float32)
    for row, generator in zip(drawn, generators(name, seeds), strict=True):
        generator.standard_normal(dtype=np.float32, out=row)
    return drawn


def _unit(name: str, images: Images, seeds: Seeds) -> Images:
    drawn = np.empty(images.shape, np.float32)
    for row, generator in zip(drawn, generators(name, seeds), strict=True):
        generator.random(dtype=np.float32, out=row)
    return drawn


def gaussian(images: Images, severity: int, seeds: Seeds) -> Images:
    """x + N(0, c), clipped."""
    return np.clip(images + _normal("gaussian", images, seeds) * np.float32(GAUSSIAN.at(severity, images)), 0, 1)


def shot(images: Images, severity: int, seeds: Seeds) -> Images:
    """Poisson(x * c) / c, clipped: c is the number of photons that make white."""
    photons = SHOT.at(severity, images)
    noisy = np.empty_like(images)
    for row, image, generator in zip(noisy, images, generators("shot", seeds), strict=True):
        row[...] = generator.poisson(image.astype(np.float64) * photons)
    noisy /= np.float32(photons)
    return np.clip(noisy, 0, 1)


def speckle(images: Images, severity: int, seeds: Seeds) -> Images:
    """x + x * N(0, c), clipped."""
    noise = _normal("speckle", images, seeds) * np.float32(SPECKLE.at(severity, images))
    return np.clip(images + images * noise, 0, 1)


def uniform(images: Images, severity: int, seeds: Seeds) -> Images:
    """x + U(-a, a), clipped."""
    # U(-a, a) has the standard deviation a / sqrt(3): as strong as gaussian noise of the same severity.
    bound = np.float32(GAUSSIAN.at(severity, images) * math.sqrt(3))
    noise = _unit("uniform", images, seeds) * np.float32(2) - np.float32(1)
    return np.clip(images + noise * bound, 0, 1)


def impulse(images: Images, severity: int, seeds: Seeds) -> Images:
    """Salt and pepper: a share c of the values becomes 0 or 1, half of them each."""
    half = np.float32(IMPULSE.at(severity, images) / 2)
    drawn = _unit("impulse", images, seeds)
    return np.where(drawn < half, np.float32(0), np.where(drawn >= 1 - half, np.float32(1), images))


SHIFTS.register(
    Shift(
        name="gaussian",
        family="noise",
        modality="image",
        apply=gaussian,
        summary="gaussian noise, standard deviation 0.08 to 0.38; below 64 pixels 0.04 to 0.1",
        source="ImageNet-C gaussian_noise, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="shot",
        family="noise",
        modality="image",
        apply=shot,
        summary="Poisson noise of 60 down to 3 photons; below 64 pixels 500 to 50",
        source="ImageNet-C shot_noise, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="speckle",
        family="noise",
        modality="image",
        apply=speckle,
        summary="gaussian noise in proportion to the pixel, 0.15 to 0.6 of it; below 64 pixels 0.06 to 0.2",
        source="ImageNet-C speckle_noise, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="uniform",
        family="noise",
        modality="image",
        apply=uniform,
        summary="uniform noise, as strong as gaussian of the same severity",
        source="ours",
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="impulse",
        family="impulse",
        modality="image",
        apply=impulse,
        summary="salt and pepper on 3 to 27 % of the values; below 64 pixels 1 to 7 %",
        source="ImageNet-C impulse_noise, below 64 pixels CIFAR-10-C (arXiv 1903.12261)",
        seeded=True,
    )
)
