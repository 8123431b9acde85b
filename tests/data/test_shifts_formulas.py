"""Each shift against arithmetic written a second time, or against the library that defines it."""

from __future__ import annotations

import colorsys
import io
import math
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from PIL import Image

from onnxptq.data.shifts import SHIFTS, apply_shift, generators, sample_seeds

from .conftest import SEEDS, apply, close, random_images

# ImageNet-C's constants hold from 64 pixels on, on the shorter side; CIFAR-10-C's below.
SMALL, LARGE = (63, 65), (64, 70)


def in_both_sizes(cifar: list[Any], imagenet: list[Any]) -> list[tuple[tuple[int, int], int, Any]]:
    """(height and width, severity, constant), to run a test on a small and a large image at every severity."""
    return [(SMALL, s, c) for s, c in enumerate(cifar, start=1)] + [
        (LARGE, s, c) for s, c in enumerate(imagenet, start=1)
    ]


@pytest.mark.parametrize(("severity", "factor"), list(enumerate([0.5, 0.3, 0.15, 0.1, 0.05], start=1)))
def test_dark_multiplies(severity: int, factor: float) -> None:
    images = random_images(2, 8, 8, 3)
    close(apply("dark", images, severity), images.astype(np.float64) * factor)


@pytest.mark.parametrize(("severity", "exponent"), list(enumerate([1.5, 2, 2.5, 3, 4], start=1)))
def test_gamma_raises_to_a_power(severity: int, exponent: float) -> None:
    images = random_images(2, 8, 8, 1)
    close(apply("gamma", images, severity), images.astype(np.float64) ** exponent)


@pytest.mark.parametrize(
    ("size", "severity", "factor"), in_both_sizes([0.75, 0.5, 0.4, 0.3, 0.15], [0.4, 0.3, 0.2, 0.1, 0.05])
)
def test_contrast_shrinks_towards_the_mean_of_each_image_and_channel(
    size: tuple[int, int], severity: int, factor: float
) -> None:
    images = random_images(2, *size, 3)
    for image, result in zip(images, apply("contrast", images, severity), strict=True):
        for channel in range(3):
            mean = math.fsum(image[..., channel].ravel().tolist()) / math.prod(size)
            close(result[..., channel], mean + factor * (image[..., channel] - mean))


def hsv_pixels(size: tuple[int, int]) -> np.ndarray:
    """Random pixels, then black, white, gray, pure colours and a nearly black one."""
    height, width = size
    special = [[0, 0, 0], [1, 1, 1], [0.4, 0.4, 0.4], [1, 0, 0], [0, 1, 1], [0.2, 0.2, 0], [1 / 255, 0, 0]]
    random = random_images(height * width - len(special), 3)
    return np.concatenate([random, np.array(special, np.float32)]).reshape(1, height, width, 3)


@pytest.mark.parametrize(
    ("size", "severity", "raised"), in_both_sizes([0.05, 0.1, 0.15, 0.2, 0.3], [0.1, 0.2, 0.3, 0.4, 0.5])
)
def test_bright_raises_the_hsv_value(size: tuple[int, int], severity: int, raised: float) -> None:
    pixels = hsv_pixels(size)
    expected = []
    for pixel in pixels.reshape(-1, 3).tolist():
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb(hue, saturation, min(1, value + raised)))
    close(apply("bright", pixels, severity), np.reshape(expected, pixels.shape))


def test_bright_adds_on_gray_images() -> None:
    images = random_images(2, 8, 8, 1)
    close(apply("bright", images, 3), np.minimum(images + 0.15, 1))


@pytest.mark.parametrize(
    ("size", "severity", "constants"),
    in_both_sizes(
        [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)], [(0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)]
    ),
)
def test_saturation_scales_the_hsv_saturation(
    size: tuple[int, int], severity: int, constants: tuple[float, float]
) -> None:
    pixels = hsv_pixels(size)
    factor, offset = constants
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


def flat(size: tuple[int, int], value: float = 0.5) -> np.ndarray:
    """About 120,000 equal pixels, to count on, in images of this size."""
    return np.full((120_000 // math.prod(size), *size, 3), value, np.float32)


def noisy(name: str, images: np.ndarray, severity: int) -> np.ndarray:
    seeds = sample_seeds(0, [str(i) for i in range(len(images))])
    return apply_shift(SHIFTS.get(name), images, severity, seeds).astype(np.float64)


# On gray images stronger noise would be clipped: the next test looks at that.
@pytest.mark.parametrize(("size", "severity", "sigma"), in_both_sizes([0.04, 0.06, 0.08, 0.09, 0.1], [0.08, 0.12]))
def test_gaussian_noise_has_its_standard_deviation_and_no_bias(
    size: tuple[int, int], severity: int, sigma: float
) -> None:
    noise = noisy("gaussian", flat(size), severity) - 0.5
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert abs(noise.mean()) < 4 * sigma / math.sqrt(noise.size)


def test_strong_gaussian_noise_is_clipped_as_the_normal_distribution_says() -> None:
    for severity, sigma in [(3, 0.18), (4, 0.26), (5, 0.38)]:
        black = noisy("gaussian", flat(LARGE, sigma / 2), severity) == 0
        assert black.mean() == pytest.approx(0.3085, abs=0.01)  # P(Z < -1/2)


@pytest.mark.parametrize(
    ("size", "severity", "ratio"), in_both_sizes([0.06, 0.1, 0.12, 0.16, 0.2], [0.15, 0.2, 0.35, 0.45, 0.6])
)
def test_speckle_noise_is_in_proportion_to_the_pixel(size: tuple[int, int], severity: int, ratio: float) -> None:
    for value in (0.1, 0.3):
        noise = noisy("speckle", flat(size, value), severity) - value
        # P(Z < 1). Unlike the standard deviation it does not suffer from the clipping at 0.
        assert (noise < ratio * value).mean() == pytest.approx(0.8413, abs=0.005)


@pytest.mark.parametrize(
    ("size", "severity", "sigma"), in_both_sizes([0.04, 0.06, 0.08, 0.09, 0.1], [0.08, 0.12, 0.18, 0.26])
)
def test_uniform_noise_is_as_strong_as_gaussian_and_bounded(size: tuple[int, int], severity: int, sigma: float) -> None:
    noise = noisy("uniform", flat(size), severity) - 0.5
    bound = sigma * math.sqrt(3)
    assert noise.std() == pytest.approx(sigma, rel=0.02)
    assert -bound - 1e-6 <= noise.min() < -0.99 * bound
    assert 0.99 * bound < noise.max() <= bound + 1e-6


@pytest.mark.parametrize(("size", "severity", "photons"), in_both_sizes([500, 250, 100, 75, 50], [60, 25, 12, 5, 3]))
def test_shot_noise_counts_photons(size: tuple[int, int], severity: int, photons: int) -> None:
    counts = noisy("shot", flat(size, 0.2), severity) * photons
    np.testing.assert_allclose(counts, np.rint(counts), atol=1e-3)
    rate = 0.2 * photons
    for count in (int(rate), int(rate) + 1):
        expected = math.exp(-rate) * rate**count / math.factorial(count)
        assert (np.rint(counts) == count).mean() == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize(
    ("size", "severity", "share"), in_both_sizes([0.01, 0.02, 0.03, 0.05, 0.07], [0.03, 0.06, 0.09, 0.17, 0.27])
)
def test_impulse_noise_turns_its_share_to_salt_and_pepper_and_leaves_the_rest(
    size: tuple[int, int], severity: int, share: float
) -> None:
    values = noisy("impulse", flat(size), severity)
    assert set(np.unique(values).tolist()) == {0.0, 0.5, 1.0}
    assert (values == 0).mean() == pytest.approx(share / 2, abs=0.002)
    assert (values == 1).mean() == pytest.approx(share / 2, abs=0.002)


def test_two_noises_of_one_sample_are_independent() -> None:
    gaussian = noisy("gaussian", flat(LARGE), 1) - 0.5
    speckle = noisy("speckle", flat(LARGE), 1) - 0.5
    assert abs(np.corrcoef(gaussian.ravel(), speckle.ravel())[0, 1]) < 0.02


# ImageNet-C's sigma at 224 pixels, the larger of its share and CIFAR-10-C's from 64 pixels on, CIFAR-10-C's below.
@pytest.mark.parametrize(
    ("side", "sigmas"),
    [
        (224, [1, 2, 3, 4, 6]),
        (112, [0.5, 1, 1.5, 2, 3]),
        (64, [0.4, 0.6, 6 / 7, 8 / 7, 12 / 7]),
        (63, [0.4, 0.6, 0.7, 0.8, 1]),
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
        (63, [13, 13, 13, 17, 19], [1, 1.5, 2, 2.25, 2.5]),
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


@pytest.mark.parametrize(("size", "severity", "quality"), in_both_sizes([80, 65, 58, 50, 40], [25, 18, 15, 10, 7]))
@pytest.mark.parametrize("channels", [1, 3])
def test_jpeg_is_what_pillow_writes_and_reads(
    size: tuple[int, int], severity: int, quality: int, channels: int
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (2, *size, channels), dtype=np.uint8)
    result = apply("jpeg", (pixels / 255).astype(np.float32), severity)
    for image, compressed in zip(pixels, result, strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0] if channels == 1 else image).save(file, "jpeg", quality=quality)
        expected = np.asarray(Image.open(io.BytesIO(file.getvalue()))).reshape(image.shape)
        np.testing.assert_array_equal(np.rint(compressed * 255), expected)


@pytest.mark.parametrize(
    ("height", "width", "shares"),
    [
        *[(side, side, [0.95, 0.9, 0.85, 0.75, 0.65]) for side in (8, 28, 32)],
        (48, 60, [0.95, 0.9, 0.85, 0.75, 0.65]),
        *[(*size, [0.6, 0.5, 0.4, 0.3, 0.25]) for size in [(64, 72), (224, 224), (448, 460)]],
    ],
)
@pytest.mark.parametrize("severity", range(1, 6))
def test_pixelate_is_pillows_box_filter_down_and_up(
    severity: int, height: int, width: int, shares: list[float]
) -> None:
    images = random_images(1, height, width, 3)
    result = apply("pixelate", images, severity)
    share = shares[severity - 1] / max(1, min(height, width) / 224)
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


THIN_FOG = [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]
FOG = [(1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)]


@pytest.mark.parametrize(
    ("height", "width", "size", "constants"),
    [(16, 16, 16, THIN_FOG), (5, 19, 32, THIN_FOG), (63, 65, 128, THIN_FOG), (64, 64, 64, FOG)],
)
@pytest.mark.parametrize("severity", range(1, 6))
def test_fog_adds_a_plasma_fractal(
    severity: int, height: int, width: int, size: int, constants: list[tuple[float, float]]
) -> None:
    thickness, decay = constants[severity - 1]
    images = random_images(2, height, width, 3) * np.float32(0.8)
    for image, result, generator in zip(
        images, apply("fog", images, severity), generators("fog", SEEDS[:2]), strict=True
    ):
        cloud = diamond_square(2.0 * generator.random((size, size), dtype=np.float32) - 1, decay)[:height, :width, None]
        brightest = float(image.max())
        close(result, (image + thickness * cloud) * brightest / (brightest + thickness))
