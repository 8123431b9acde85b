"""Synthetic images have what natural ones have: power that falls with frequency, and edges between things."""

from __future__ import annotations

import numpy as np
import pytest

from onnxptq.tasks._synthetic_images import coloured_noise, dead_leaves


@pytest.mark.parametrize("make", [coloured_noise, dead_leaves])
@pytest.mark.parametrize(("size", "channels"), [((32, 32), 3), ((8, 8), 1), ((5, 11), 3), ((1, 1), 1)])
def test_they_fill_the_range_of_images_and_follow_their_seed(make, size, channels):
    image = make(size, channels, np.random.default_rng(1))
    assert image.shape == (*size, channels)
    assert image.dtype == np.float32
    if min(size) > 1:
        assert (image.min(), image.max()) == (0, 1)
    np.testing.assert_array_equal(image, make(size, channels, np.random.default_rng(1)))
    if min(size) > 1:
        assert not np.array_equal(image, make(size, channels, np.random.default_rng(2)))


def test_the_power_of_coloured_noise_falls_as_the_square_of_the_frequency():
    power = np.zeros((64, 33))
    for seed in range(40):
        image = coloured_noise((64, 64), 1, np.random.default_rng(seed))[..., 0]
        power += np.abs(np.fft.rfft2((image - image.mean()) / image.std())) ** 2
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.rfftfreq(64))
    inside = (frequency > 0.03) & (frequency < 0.45)
    slope = np.polyfit(np.log(frequency[inside]), np.log(power[inside]), 1)[0]
    assert slope == pytest.approx(-2, abs=0.1)


def test_dead_leaves_are_of_few_colours_in_patches():
    image = dead_leaves((32, 32), 3, np.random.default_rng(0))
    assert len(np.unique(image.reshape(-1, 3), axis=0)) < 300
    flat = np.all(image[:, 1:] == image[:, :-1], axis=-1).mean()
    assert 0.5 < flat < 0.99
