"""Samplers that shift the label distribution: imbalanced, few-class, single-class."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.sampler import SAMPLERS, Pool, Sampler, at_random
from onnxptq.data.dataset import Indices
from onnxptq.errors import UsageError


def _imbalanced(pool: Pool, size: int, generator: np.random.Generator, ratio: float) -> Indices:
    """A long tail: the share of the k-th of K classes is proportional to ratio ** (-k / (K - 1)), classes shuffled.

    Fewer than `size` where a class has too few samples for its share: the tail keeps its shape.
    """
    if not ratio >= 1:
        raise UsageError(f"imbalanced:ratio must be a number of at least 1 (largest class to smallest), got {ratio}.")
    labels = pool.labels
    classes = generator.permutation(np.unique(labels))
    shares = float(ratio) ** (-np.arange(len(classes)) / max(len(classes) - 1, 1))
    shares /= shares.sum()
    available = np.array([(labels == c).sum() for c in classes])
    counts = _apportion(shares, min(size, int((available / shares).min())))
    drawn = [at_random(np.flatnonzero(labels == c), n, generator) for c, n in zip(classes, counts, strict=True)]
    return at_random(np.concatenate(drawn), size, generator)


def _apportion(shares: npt.NDArray[np.float64], total: int) -> npt.NDArray[np.int64]:
    """Whole numbers in proportion to `shares`, which sum to 1, that add up to `total` (largest remainders)."""
    exact = shares * total
    counts: npt.NDArray[np.int64] = np.floor(exact).astype(np.int64)
    largest = np.argsort(-(exact - counts), kind="stable")[: total - counts.sum()]
    counts[largest] += 1
    return counts


def _few_class(pool: Pool, size: int, generator: np.random.Generator, k: int) -> Indices:
    labels = pool.labels
    present = np.unique(labels)
    if not isinstance(k, int) or not 1 <= k <= len(present):
        raise UsageError(f"few-class:k must be between 1 and {len(present)}, the number of classes, got {k}.")
    kept = generator.choice(present, size=k, replace=False)
    return at_random(np.flatnonzero(np.isin(labels, kept)), size, generator)


def _single_class(pool: Pool, size: int, generator: np.random.Generator, label: str = "") -> Indices:
    labels = pool.labels
    code = pool.label_code(str(label)) if label != "" else int(generator.choice(np.unique(labels)))
    return at_random(np.flatnonzero(labels == code), size, generator)


SAMPLERS.register(
    Sampler(
        "imbalanced",
        "a long tail over the classes, largest to smallest as ratio to 1",
        "Cao et al. 2019 (LDAM), exponential long tail",
        _imbalanced,
        {"ratio": 100},
        positional="ratio",
        needs_labels=True,
    )
)
SAMPLERS.register(
    Sampler(
        "few-class",
        "k classes drawn at random, the others never seen",
        "Yuan et al. 2023, label shift",
        _few_class,
        {"k": 2},
        positional="k",
        needs_labels=True,
    )
)
SAMPLERS.register(
    Sampler(
        "single-class",
        "one class only: the named one, or one drawn at random",
        "Yuan et al. 2023, label shift",
        _single_class,
        {"label": ""},
        positional="label",
        needs_labels=True,
    )
)
