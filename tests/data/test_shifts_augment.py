"""Each augmentation against arithmetic written a second time."""

from __future__ import annotations

import numpy as np
import pytest

from onnxptq.data.shifts import SHIFTS, apply_shift, generators, sample_seeds

from .conftest import SEEDS, apply, close, random_images

PATCH_SIDES = [(1, 8, 4), (2, 12, 6), (3, 16, 8), (4, 20, 12), (5, 24, 16)]


def box(changed: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


@pytest.mark.parametrize(("severity", "cutmix_side", "cutout_side"), PATCH_SIDES)
def test_patches_have_their_sides_at_32_pixels(severity: int, cutmix_side: int, cutout_side: int) -> None:
    images, partners = np.full((6, 32, 32, 3), 2.0**-9, np.float32), np.ones((6, 32, 32, 3), np.float32)
    for result in apply("cutmix", images, severity, partners):
        patch = box((result == 1).all(axis=2))
        assert [s.stop - s.start for s in patch] == [cutmix_side, cutmix_side]
        assert (result == 1).sum() == 3 * cutmix_side**2
    for result in apply("cutout", images, severity):
        patch = box((result != images[0]).any(axis=2))
        assert [s.stop - s.start for s in patch] == [cutout_side, cutout_side]
        assert len(np.unique(result[patch].reshape(-1, 3), axis=0)) == 1


def test_default_patches_are_half_and_quarter_of_any_side() -> None:
    images, partners = np.zeros((1, 224, 96, 1), np.float32), np.ones((1, 224, 96, 1), np.float32)
    assert (apply("cutmix", images, 3, partners) == 1).sum() == 112 * 48
    assert (apply("cutout", images, 3) != 0).sum() == 24 * 24


def test_patches_go_everywhere() -> None:
    images = np.full((400, 8, 8, 1), 2.0**-9, np.float32)
    seeds = sample_seeds(0, [str(i) for i in range(400)])
    covered = (apply_shift(SHIFTS.get("cutout"), images, 3, seeds) != images).mean(axis=0)[..., 0]
    assert covered[0, 0] == pytest.approx(1 / 49, abs=0.02)  # of 7 x 7 places, one covers the corner
    assert covered.min() > 0
    assert covered[4, 4] == pytest.approx(4 / 49, abs=0.04)


@pytest.mark.parametrize(("severity", "weight"), list(enumerate([0.3, 0.4, 0.5, 0.6, 0.7], start=1)))
def test_mixup_is_a_weighted_mean(severity: int, weight: float) -> None:
    images, partners = random_images(2, 8, 8, 3), random_images(2, 8, 8, 3, seed=1)
    close(apply("mixup", images, severity, partners), (1 - weight) * images + weight * partners)
    if severity == 3:
        np.testing.assert_array_equal(apply("mixup", images, 3, partners), (images + partners) / 2)


def test_autocontrast_stretches_each_whole_image() -> None:
    images = random_images(3, 8, 8, 3) * np.float32(0.4) + np.float32(0.3)
    images[2] = 0.25
    result = apply("autocontrast", images, 3)
    for image, stretched in zip(images[:2], result[:2], strict=True):
        low, high = image.min(), image.max()
        close(stretched, (image - low) / (high - low))
        assert stretched.min() == 0
        assert stretched.max() == 1
    np.testing.assert_array_equal(result[2], images[2])


def test_permuted_channels_are_the_same_channels_in_another_order() -> None:
    images = random_images(6, 8, 8, 3)
    for image, permuted in zip(images, apply("permute_channels", images, 3), strict=True):
        order = [next(c for c in range(3) if (image[..., c] == permuted[..., p]).all()) for p in range(3)]
        assert sorted(order) == [0, 1, 2]
        assert order != [0, 1, 2]


@pytest.mark.parametrize("channels", [1, 3])
def test_jitter_is_brightness_then_contrast_then_saturation(channels: int) -> None:
    images = random_images(3, 8, 8, channels)

    def gray(image: np.ndarray) -> np.ndarray:
        return image if channels == 1 else (image @ [0.299, 0.587, 0.114])[..., None]

    for image, result, generator in zip(
        images, apply("jitter", images, 3), generators("jitter", SEEDS[:3]), strict=True
    ):
        brightness, contrast, saturation = generator.uniform(0.6, 1.4, 3)
        expected = np.clip(image * brightness, 0, 1)
        expected = np.clip(gray(expected).mean() + contrast * (expected - gray(expected).mean()), 0, 1)
        expected = np.clip(gray(expected) + saturation * (expected - gray(expected)), 0, 1)
        close(result, expected)
