"""Samplers that ask the FP32 model: hard, easy, diverse. They look at no more than `pool` candidates."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators._sampler import SAMPLERS, Pool, Sampler, at_random
from onnxptq.data.dataset import Indices
from onnxptq.errors import UsageError

CANDIDATES = 1024
"""Samples that the FP32 model scores to choose from: eight times the default set, so that the choice is a real one."""


def _candidates(
    pool: Pool, size: int, generator: np.random.Generator, limit: int
) -> tuple[Indices, npt.NDArray[np.float64]]:
    if pool.outputs is None:
        raise UsageError("the calibration sets hard, easy and diverse need the FP32 model; give it to draw().")
    if not isinstance(limit, int) or limit < 1:
        raise UsageError(f"candidates must be a positive number of candidates, got {limit}.")
    positions = at_random(np.arange(len(pool.dataset)), max(limit, size), generator)
    outputs = pool.outputs(positions).astype(np.float64)
    if outputs.shape[1] < 2:
        raise UsageError("the calibration sets hard, easy and diverse need at least two outputs for each sample.")
    return positions, outputs


def _by_margin(pool: Pool, size: int, generator: np.random.Generator, limit: int, sign: int) -> Indices:
    positions, outputs = _candidates(pool, size, generator, limit)
    top = np.partition(outputs, -2, axis=1)
    margin = top[:, -1] - top[:, -2]
    return positions[np.argsort(sign * margin, kind="stable")[:size]]


def _hard(pool: Pool, size: int, generator: np.random.Generator, candidates: int) -> Indices:
    return _by_margin(pool, size, generator, candidates, +1)


def _easy(pool: Pool, size: int, generator: np.random.Generator, candidates: int) -> Indices:
    return _by_margin(pool, size, generator, candidates, -1)


def _diverse(pool: Pool, size: int, generator: np.random.Generator, candidates: int) -> Indices:
    """Greedy k-center: each next sample is the one farthest from those chosen so far."""
    positions, outputs = _candidates(pool, size, generator, candidates)
    chosen = [0]
    distance = np.linalg.norm(outputs - outputs[0], axis=1)
    while len(chosen) < min(size, len(positions)):
        distance[chosen[-1]] = -1.0
        farthest = int(distance.argmax())
        chosen.append(farthest)
        np.minimum(distance, np.linalg.norm(outputs - outputs[farthest], axis=1), out=distance)
    return positions[chosen]


_PARAMETERS: dict[str, str | int | float | bool] = {"candidates": CANDIDATES}

SAMPLERS.register(
    Sampler(
        "hard",
        "the samples that the FP32 model is least sure of (smallest margin)",
        "Hu et al. 2023 (CAIN): margins predict flips",
        _hard,
        _PARAMETERS,
        positional="candidates",
    )
)
SAMPLERS.register(
    Sampler(
        "easy",
        "the samples that the FP32 model is surest of (largest margin)",
        "Hu et al. 2023 (CAIN): margins predict flips",
        _easy,
        _PARAMETERS,
        positional="candidates",
    )
)
SAMPLERS.register(
    Sampler(
        "diverse",
        "samples far from each other in the FP32 model's outputs (greedy k-center)",
        "Sener and Savarese 2018 (core-set)",
        _diverse,
        _PARAMETERS,
        positional="candidates",
    )
)
