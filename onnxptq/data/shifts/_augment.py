"""Augmentations: changes that training uses to widen the data, here in front of a calibration set.

At severity 3, the default, mixup is half and half, a cutmix patch has half of each side and a cutout patch a quarter of
the shorter side.
"""

from __future__ import annotations

import itertools

import numpy as np

from onnxptq.data.shifts._apply import Images, generators
from onnxptq.data.shifts._base import SHIFTS, Seeds, Shift

MIXUP_WEIGHT = (0.3, 0.4, 0.5, 0.6, 0.7)
CUTMIX_SIDE = (1 / 4, 3 / 8, 1 / 2, 5 / 8, 3 / 4)
CUTOUT_SIDE = (1 / 8, 3 / 16, 1 / 4, 3 / 8, 1 / 2)
JITTER = (0.2, 0.3, 0.4, 0.5, 0.6)

PERMUTATIONS = tuple(itertools.permutations(range(3)))[1:]  # without the first, which changes nothing
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601, as Pillow's mode "L"


def mixup(images: Images, severity: int, seeds: Seeds, partners: Images) -> Images:
    """Weighted mean of the image and its partner."""
    weight = np.float32(MIXUP_WEIGHT[severity - 1])
    return np.clip(images * (1 - weight) + partners * weight, 0, 1)


def cutmix(images: Images, severity: int, seeds: Seeds, partners: Images) -> Images:
    """A rectangle of the partner, in its own place, of the image's proportions and wholly inside."""
    share = CUTMIX_SIDE[severity - 1]
    height, width = (max(1, int(side * share)) for side in images.shape[1:3])
    mixed = images.copy()
    for row, partner, generator in zip(mixed, partners, generators("cutmix", seeds), strict=True):
        patch = _patch(generator, row.shape, height, width)
        row[patch] = partner[patch]
    return mixed


def cutout(images: Images, severity: int, seeds: Seeds) -> Images:
    """A square of one random colour, wholly inside."""
    side = max(1, int(min(images.shape[1:3]) * CUTOUT_SIDE[severity - 1]))
    cut = images.copy()
    for row, generator in zip(cut, generators("cutout", seeds), strict=True):
        row[_patch(generator, row.shape, side, side)] = generator.random(row.shape[2], dtype=np.float32)
    return cut


def autocontrast(images: Images, severity: int, seeds: Seeds) -> Images:
    """Each image stretched so that its smallest value is 0 and its largest 1; a flat image stays as it is."""
    low = images.min(axis=(1, 2, 3), keepdims=True)
    spread = images.max(axis=(1, 2, 3), keepdims=True) - low
    stretched = images.copy()
    np.divide(images - low, spread, out=stretched, where=spread > 0)
    return stretched


def permute_channels(images: Images, severity: int, seeds: Seeds) -> Images:
    """The colour channels in another order, drawn from the five that differ from the given one."""
    if images.shape[3] == 1:
        return images.copy()
    permuted = np.empty_like(images)
    for row, image, generator in zip(permuted, images, generators("permute_channels", seeds), strict=True):
        row[...] = image[..., PERMUTATIONS[generator.integers(len(PERMUTATIONS))]]
    return permuted


def jitter(images: Images, severity: int, seeds: Seeds) -> Images:
    """Brightness, then contrast, then saturation, each times a factor from U(1 - c, 1 + c) and clipped."""
    reach = JITTER[severity - 1]
    drawn = [generator.uniform(1 - reach, 1 + reach, 3) for generator in generators("jitter", seeds)]
    brightness, contrast, saturation = np.asarray(drawn, np.float32).reshape(-1, 3).T[:, :, None, None, None]
    images = np.clip(images * brightness, 0, 1)
    mean = _luma(images).mean(axis=(1, 2), dtype=np.float64, keepdims=True).astype(np.float32)
    images = np.clip((images - mean) * contrast + mean, 0, 1)
    gray = _luma(images)
    jittered: Images = (images - gray) * saturation + gray
    return np.clip(jittered, 0, 1)


def _patch(generator: np.random.Generator, shape: tuple[int, ...], height: int, width: int) -> tuple[slice, slice]:
    top = int(generator.integers(shape[0] - height + 1))
    left = int(generator.integers(shape[1] - width + 1))
    return slice(top, top + height), slice(left, left + width)


def _luma(images: Images) -> Images:
    if images.shape[3] == 1:
        return images
    red, green, blue = (images[..., i : i + 1] * np.float32(weight) for i, weight in enumerate(LUMA))
    luma: Images = red + green + blue
    return luma


SHIFTS.register(
    Shift(
        name="mixup",
        family="augmentation",
        modality="image",
        apply=mixup,
        summary="half the image, half another one",
        source="Zhang et al. 2018 (arXiv 1710.09412), with a fixed weight",
        mixes=True,
    )
)
SHIFTS.register(
    Shift(
        name="cutmix",
        family="augmentation",
        modality="image",
        apply=cutmix,
        summary="a patch of half the side from another image",
        source="Yun et al. 2019 (arXiv 1905.04899), with a fixed patch size",
        min_size=4,
        mixes=True,
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="cutout",
        family="augmentation",
        modality="image",
        apply=cutout,
        summary="a square patch of random colour, a quarter of the side",
        source="DeVries & Taylor 2017 (arXiv 1708.04552), with a random colour",
        min_size=4,
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="autocontrast",
        family="augmentation",
        modality="image",
        apply=autocontrast,
        summary="each image stretched to the whole range (the same at every severity)",
        source="ours, after autocontrast in AutoAugment (arXiv 1805.09501)",
        min_size=2,
    )
)
SHIFTS.register(
    Shift(
        name="permute_channels",
        family="augmentation",
        modality="image",
        apply=permute_channels,
        summary="colour channels in another order (the same at every severity)",
        source="ours",
        needs_color=True,
        seeded=True,
    )
)
SHIFTS.register(
    Shift(
        name="jitter",
        family="augmentation",
        modality="image",
        apply=jitter,
        summary="random brightness, contrast and saturation",
        source="ours, after color jitter in SimCLR (arXiv 2002.05709)",
        seeded=True,
    )
)
