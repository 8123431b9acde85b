"""What the tests of the formulas of shifts share."""

from __future__ import annotations

import numpy as np

from onnxptq.data.shifts import SHIFTS, apply_shift, sample_seeds

SEEDS = sample_seeds(0, list("abcdef"))


def random_images(*shape: int, seed: int = 0) -> np.ndarray:
    """8-bit noise from 0 to 1, both included."""
    return (np.random.default_rng(seed).integers(0, 256, shape) / 255).astype(np.float32)


def apply(name: str, images: np.ndarray, severity: int, partners: np.ndarray | None = None) -> np.ndarray:
    return apply_shift(SHIFTS.get(name), images, severity, SEEDS[: len(images)], partners)


def close(actual: np.ndarray, desired: np.ndarray) -> None:
    np.testing.assert_allclose(actual, desired, rtol=0, atol=2e-6)
