"""Images that no camera took, with the statistics of those that one did: for calibration without data.

Natural images have a power spectrum of about 1/f^2 and are made of things that hide each other. Coloured noise has the
spectrum, dead leaves have the edges (Lee, Mumford and Huang, Occlusion models for natural images, IJCV 2001; Baradad et
al., Learning to see by looking at noise, NeurIPS 2021, arXiv 2106.05963). Each fills [0, 1].
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.float32]
"""float32, (H, W, C) in [0, 1]."""

LEAVES = 300
"""Discs of one image; by then hardly any background is left."""

SMALLEST = 0.03
LARGEST = 0.5
"""Radius of a disc, as a share of the longer side."""


def coloured_noise(size: tuple[int, int], channels: int, generator: np.random.Generator) -> Image:
    """Noise whose amplitude falls as 1/f, channels partly alike as those of photographs are."""
    height, width = size
    frequencies = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :])
    frequencies[0, 0] = np.inf  # The mean is set by stretching.
    layers = np.stack(
        [np.fft.irfft2(np.fft.rfft2(generator.standard_normal(size)) / frequencies, size) for _ in range(channels)], -1
    )
    shared = layers.mean(axis=-1, keepdims=True)
    return _stretched(shared + 0.5 * (layers - shared))


def dead_leaves(size: tuple[int, int], channels: int, generator: np.random.Generator) -> Image:
    """Discs of one colour each, one over the other, their areas distributed as those of things at all distances."""
    height, width = size
    rows, columns = np.mgrid[:height, :width]
    image = np.broadcast_to(generator.random(channels), (height, width, channels)).copy()
    longer = max(size)
    # Radii with density r**-3 between the ends, by inversion: the image then looks alike at every scale.
    ends = np.array([SMALLEST, LARGEST]) ** -2.0
    for share in generator.random(LEAVES):
        radius = longer * (ends[0] + share * (ends[1] - ends[0])) ** -0.5
        top, left = generator.uniform(0, height), generator.uniform(0, width)
        inside = (rows - top) ** 2 + (columns - left) ** 2 <= radius**2
        image[inside] = generator.random(channels)
    return _stretched(image)


def _stretched(values: npt.NDArray[np.float64]) -> Image:
    low, high = values.min(), values.max()
    stretched = (values - low) / (high - low) if high > low else np.full_like(values, 0.5)
    return np.clip(stretched, 0, 1).astype(np.float32)
