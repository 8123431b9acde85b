"""Each shift against arithmetic written a second time, or against the library that defines it."""

from __future__ import annotations

import colorsys
import io
import math

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from onnxptq.data.shifts import SHIFTS, apply_shift, generators, sample_seeds

SEEDS = sample_seeds(0, list("abcdef"))


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    """8-bit noise from 0 to 1, both included."""
    return (np.random.default_rng(seed).integers(0, 256, shape) / 255).astype(np.float32)


def apply(name: str, images: np.ndarray, severity: int, partners: np.ndarray | None = None) -> np.ndarray:
    return apply_shift(SHIFTS.get(name), images, severity, SEEDS[: len(images)], partners)


def close(actual: np.ndarray, desired: np.ndarray) -> None:
    np.testing.assert_allclose(actual, desired, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("severity", "factor"), list(enumerate([0.5, 0.3, 0.15, 0.1, 0.05], start=1)))
def test_dark_multiplies(severity: int, factor: float) -> None:
    images = random_images(2, 8, 8, 3)
    close(apply("dark", images, severity), images.astype(np.float64) * factor)


@pytest.mark.parametrize(("severity", "exponent"), list(enumerate([1.5, 2, 2.5, 3, 4], start=1)))
def test_gamma_raises_to_a_power(severity: int, exponent: float) -> None:
    images = random_images(2, 8, 8, 1)
    close(apply("gamma", images, severity), images.astype(np.float64) ** exponent)


@pytest.mark.parametrize(("severity", "factor"), list(enumerate([0.4, 0.3, 0.2, 0.1, 0.05], start=1)))
def test_contrast_shrinks_towards_the_mean_of_each_image_and_channel(severity: int, factor: float) -> None:
    images = random_images(2, 8, 8, 3)
    for image, result in zip(images, apply("contrast", images, severity), strict=True):
        for channel in range(3):
            mean = math.fsum(image[..., channel].ravel().tolist()) / 64
            close(result[..., channel], mean + factor * (image[..., channel] - mean))


def hsv_pixels() -> np.ndarray:
    """Random pixels, then black, white, gray, pure colours and a nearly black one."""
    special = [[0, 0, 0], [1, 1, 1], [0.4, 0.4, 0.4], [1, 0, 0], [0, 1, 1], [0.2, 0.2, 0], [1 / 255, 0, 0]]
    return np.concatenate([random_images(93, 3), np.array(special, np.float32)]).reshape(1, 10, 10, 3)


@pytest.mark.parametrize(("severity", "raised"), list(enumerate([0.1, 0.2, 0.3, 0.4, 0.5], start=1)))
def test_bright_raises_the_hsv_value(severity: int, raised: float) -> None:
    pixels = hsv_pixels()
    expected = []
    for pixel in pixels.reshape(-1, 3).tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb(hue, saturation, min(1, value + raised)))
    close(apply("bright", pixels, severity), np.reshape(expected, pixels.shape))


def test_bright_adds_on_gray_images() -> None:
    images = random_images(2, 8, 8, 1)
    close(apply("bright", images, 3), np.minimum(images + 0.3, 1))


@pytest.mark.parametrize(
    ("severity", "factor", "offset"), [(1, 0.3, 0), (2, 0.1, 0), (3, 2, 0), (4, 5, 0.1), (5, 20, 0.2)]
)
def test_saturation_scales_the_hsv_saturation(severity: int, factor: float, offset: float) -> None:
    pixels = hsv_pixels()
    expected = []
    for pixel in pixels.reshape(-1, 3).tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb(hue, min(1, saturation * factor + offset), value))
    close(apply("saturation", pixels, severity), np.reshape(expected, pixels.shape))


def test_invert_solarizes_and_at_severity_5_inverts_everything() -> None:
    images = random_images(2, 8, 8, 3)
    close(apply("invert", images, 5), 1 - images)
    for severity, threshold in enumerate([0.8, 0.65, 0.5, 0.25], start=1):
        close(apply("invert", images, severity), np.where(images >= np.float32(threshold), 1 - images, images))
    assert SHIFTS.get("invert").default_severity == 5


GRAY = np.full((1, 200, 200, 3), 0.5, np.float32)


@pytest.mark.parametrize(("severity", "sigma"), list(enumerate([0.08, 0.12], start=1)))
def test_gaussian_noise_has_its_standard_deviation_and_no_bias(severity: int, sigma: float) -> None:
    noise = apply("gaussian", GRAY, severity) - 0.5
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean()) < 4 * sigma / math.sqrt(noise.size)


def test_strong_gaussian_noise_is_clipped_as_the_normal_distribution_says() -> None:
    black = apply("gaussian", np.full_like(GRAY, 0.19), 5) == 0
    assert black.mean() == pytest.approx(0.3085, abs=0.01)  # P(Z < -0.19 / 0.38)


def test_speckle_noise_is_in_proportion_to_the_pixel() -> None:
    for value in (0.1, 0.5):
        noise = apply("speckle", np.full_like(GRAY, value), 2) - value
        assert noise.std() == pytest.approx(0.2 * value, rel=0.02)


def test_uniform_noise_is_as_strong_as_gaussian_and_bounded() -> None:
    noise = apply("uniform", GRAY, 3) - 0.5
    bound = 0.18 * math.sqrt(3)
    assert noise.std() == pytest.approx(0.18, rel=0.02)
    assert -bound - 1e-6 <= noise.min() < -0.99 * bound
    assert 0.99 * bound < noise.max() <= bound + 1e-6


@pytest.mark.parametrize(("severity", "photons"), list(enumerate([60, 25, 12, 5, 3], start=1)))
def test_shot_noise_counts_photons(severity: int, photons: int) -> None:
    noisy = apply("shot", np.full_like(GRAY, 0.2), severity).astype(np.float64)
    counts = noisy * photons
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-4)
    rate = 0.2 * photons
    expected = [math.exp(-rate) * rate**k / math.factorial(k) for k in range(3)]
    for k in range(3):
        assert (np.rint(counts) == k).mean() == pytest.approx(expected[k], abs=0.01)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.03, 0.06, 0.09, 0.17, 0.27], start=1)))
def test_impulse_noise_turns_its_share_to_salt_and_pepper_and_leaves_the_rest(severity: int, share: float) -> None:
    noisy = apply("impulse", GRAY, severity)
    assert set(np.unique(noisy).tolist()) == {0.0, 0.5, 1.0}
    assert (noisy == 0).mean() == pytest.approx(share / 2, abs=0.004)
    assert (noisy == 1).mean() == pytest.approx(share / 2, abs=0.004)


def test_two_noises_of_one_sample_are_independent() -> None:
    gaussian = apply("gaussian", GRAY, 1) - 0.5
    speckle = apply("speckle", GRAY, 1) - 0.5
    assert abs(np.corrcoef(gaussian.ravel(), speckle.ravel())[0, 1]) < 0.02


# ImageNet-C's sigma at 224 pixels, CIFAR-10-C's at 32 and below, the larger of both in between.
@pytest.mark.parametrize(
    ("side", "sigmas"),
    [
        (224, [1, 2, 3, 4, 6]),
        (112, [0.5, 1, 1.5, 2, 3]),
        (64, [0.4, 0.6, 6 / 7, 8 / 7, 12 / 7]),
        (32, [0.4, 0.6, 0.7, 0.8, 1]),
        (8, [0.4, 0.6, 0.7, 0.8, 1]),
    ],
)
def test_blur_is_the_gaussian_filter_of_scipy_with_the_border_repeated(side: int, sigmas: list[float]) -> None:
    images = random_images(1, side, side + 3, 3)
    for severity, sigma in enumerate(sigmas, start=1):
        expected = scipy.ndimage.gaussian_filter(
            images.astype(np.float64), (0, sigma, sigma, 0), mode="nearest", truncate=4.0
        )
        close(apply("blur", images, severity), expected)


@pytest.mark.parametrize(
    ("side", "taps", "sigmas"),
    [
        (224, [21, 31, 31, 31, 41], [3, 5, 8, 12, 15]),
        (32, [13, 13, 13, 17, 19], [1, 1.5, 2, 2.25, 2.5]),
        (64, [13, 13, 13, 17, 19], [1, 1.5, 16 / 7, 24 / 7, 30 / 7]),
    ],
)
def test_motion_blur_is_a_one_sided_gaussian_along_a_line(side: int, taps: list[int], sigmas: list[float]) -> None:
    images = random_images(2, side, side, 1)
    for severity, (length, sigma) in enumerate(zip(taps, sigmas, strict=True), start=1):
        results = apply("motion_blur", images, severity)
        for image, result, generator in zip(images, results, generators("motion_blur", SEEDS[:2]), strict=True):
            angle = math.radians(generator.uniform(-45, 45))
            total, weights = np.zeros((side, side)), 0.0
            for k in range(length):
                weight = math.exp(-(k**2) / (2 * sigma**2))
                rows = np.clip(np.arange(side) + math.ceil(k * math.sin(angle) - 0.5), 0, side - 1)
                columns = np.clip(np.arange(side) + math.ceil(k * math.cos(angle) - 0.5), 0, side - 1)
                total += weight * image[rows][:, columns, 0].astype(np.float64)
                weights += weight
            close(result[..., 0], total / weights)


def test_motion_blur_draws_its_directions_from_the_whole_quarter_circle() -> None:
    dot = np.zeros((200, 33, 33, 1), np.float32)
    dot[:, 16, 16] = 1
    seeds = sample_seeds(0, [str(i) for i in range(200)])
    streaks = apply_shift(SHIFTS.get("motion_blur"), dot, 5, seeds)[..., 0].astype(np.float64)
    np.testing.assert_allclose(streaks.sum(axis=(1, 2)), 1, rtol=1e-5)
    rows, columns = np.arange(33)[:, None] - 16, np.arange(33)[None, :] - 16
    angles = np.degrees(np.arctan2((streaks * rows).sum(axis=(1, 2)), -(streaks * columns).sum(axis=(1, 2))))
    assert angles.min() < -35
    assert angles.max() > 35
    assert np.abs(angles).max() < 55  # whole-pixel steps bend a line a little
    assert np.histogram(angles, bins=4, range=(-45, 45))[0].min() > 25


@pytest.mark.parametrize(("severity", "quality"), list(enumerate([25, 18, 15, 10, 7], start=1)))
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_writes_and_reads(severity: int, quality: int, channels: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, 24, 17, channels), dtype=np.uint8)
    result = apply("jpeg", (pixels / 255).astype(np.float32), severity)
    for image, compressed in zip(pixels, result, strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if channels == 1 else image).save(file, "jpeg", quality=quality)
        expected = np.asarray(Image.open(io.BytesIO(file.getvalue()))).reshape(image.shape)
        np.testing.assert_array_equal(np.rint(compressed * 255), expected)


@pytest.mark.parametrize(("severity", "share"), list(enumerate([0.6, 0.5, 0.4, 0.3, 0.25], start=1)))
@pytest.mark.parametrize(("height", "width"), [(8, 8), (32, 32), (40, 31), (224, 224), (448, 460)])
def test_pixelate_is_pillows_box_filter_down_and_up(severity: int, share: float, height: int, width: int) -> None:
    images = random_images(1, height, width, 3)
    result = apply("pixelate", images, severity)
    share /= max(1, min(height, width) / 224)
    for channel in range(3):
        small = Image.fromarray(images[0, ..., channel]).resize(
            (int(width * share), int(height * share)), Image.Resampling.BOX
        )
        close(result[0, ..., channel], np.asarray(small.resize((width, height), Image.Resampling.BOX)))


def diamond_square(noise: np.ndarray, decay: float) -> np.ndarray:
    """The textbook algorithm, point by point, on a torus."""
    size = len(noise)
    height = np.zeros((size, size))
    step, amplitude = size, 1.0
    while step > 1:
        half = step // 2
        for row in range(half, size, step):
            for column in range(half, size, step):
                corners = [height[(row + i) % size, (column + j) % size] for i in (-half, half) for j in (-half, half)]
                height[row, column] = sum(corners) / 4 + amplitude * noise[row, column]
        for row in range(0, size, half):
            for column in range((row + half) % step, size, step):
                edges = [(half, 0), (-half, 0), (0, half), (0, -half)]
                around = [height[(row + i) % size, (column + j) % size] for i, j in edges]
                height[row, column] = sum(around) / 4 + amplitude * noise[row, column]
        step, amplitude = half, amplitude / decay**2
    height -= height.min()
    return height / height.max()


FOG = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)]


@pytest.mark.parametrize(("severity", "thickness", "decay"), [(i, *pair) for i, pair in enumerate(FOG, start=1)])
@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 16), (5, 19, 32)])
def test_fog_adds_a_plasma_fractal(
    severity: int, thickness: float, decay: float, height: int, width: int, size: int
) -> None:
    images = random_images(2, height, width, 3) * np.float32(0.8)
    for image, result, generator in zip(
        images, apply("fog", images, severity), generators("fog", SEEDS[:2]), strict=True
    ):
        cloud = diamond_square(2.0 * generator.random((size, size), dtype=np.float32) - 1, decay)[:height, :width, None]
        brightest = float(image.max())
        close(result, (image + thickness * cloud) * brightest / (brightest + thickness))


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
