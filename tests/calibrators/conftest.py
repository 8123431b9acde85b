"""Tasks to draw calibration sets for: tensors, and colour images of 32 x 32 pixels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnxptq.data import Dataset, fingerprint
from onnxptq.tasks import Signature, Task, TensorSpec, make_task


@pytest.fixture(scope="session")
def tensor_task() -> Task:
    """Takes what `make_dataset` makes: x, float32 (N, 6) -> logits (N, 4)."""
    signature = Signature((TensorSpec("x", "float32", (None, 6)),), (TensorSpec("logits", "float32", (None, 4)),))
    return make_task("tensor-classification", {}, signature)


@pytest.fixture(scope="session")
def image_task() -> Task:
    """Colour images, fed as they are, in [0, 1]."""
    signature = Signature(
        (TensorSpec("x", "float32", (None, 3, 32, 32)),), (TensorSpec("logits", "float32", (None, 4)),)
    )
    specification = {"scale": 1 / 255, "mean": [0, 0, 0], "std": [1, 1, 1]}
    return make_task("image-classification", specification, signature)


@pytest.fixture(scope="session")
def images() -> Dataset:
    """Twelve smooth colour images with texture, three of each of four classes."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(20, 230, (12, 4, 4, 3)).repeat(8, axis=1).repeat(8, axis=2)
    pixels = np.clip(coarse + rng.integers(-15, 16, (12, 32, 32, 3)), 0, 255).astype(np.uint8)
    labels = np.arange(12) % 4
    names = ("ant", "bee", "cat", "dog")
    return Dataset(
        source="images",
        split=None,
        rows=lambda indices: [{"image": pixels[i], "_name": f"image {i}"} for i in indices.tolist()],
        indices=np.arange(12),
        labels=labels,
        label_names=names,
        attributes={"label": np.asarray(names)[labels]},
        fingerprints=np.array([fingerprint({"image": image}) for image in pixels]),
    )


@pytest.fixture(scope="session")
def drawn_rows() -> Callable[[Any], list[bytes]]:
    """The feeds of the input x of drawn samples, one byte string a sample, in order."""
    return lambda samples: [feeds["x"].tobytes() for _, feeds in samples]
