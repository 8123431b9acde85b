"""Samplers that ask the FP32 model: hard, easy, diverse. They look at no more than `pool` candidates."""

from __future__ import annotations

import numpy as np

from onnxptq.calibrators.sampler import SAMPLERS, Asked, Pool, Sampler, at_random
from onnxptq.data.dataset import Indices
from onnxptq.errors import UsageError

CANDIDATES = 1024
"""Samples that the FP32 model scores to choose from: eight times the default set, so that the choice is a real one."""


def _candidates(pool: Pool, size: int, generator: np.random.Generator, limit: int) -> tuple[Indices, Asked]:
    if pool.ask is None:
        raise UsageError("the calibration sets hard, easy and diverse need the FP32 model; give it to draw().")
    if not isinstance(limit, int) or limit < 1:
        raise UsageError(f"candidates must be a positive number of candidates, got {limit}.")
    positions = at_random(np.arange(len(pool.dataset)), max(limit, size), generator)
    return positions, pool.ask(positions)


def _by_margin(pool: Pool, size: int, generator: np.random.Generator, limit: int, sign: int) -> Indices:
    positions, asked = _candidates(pool, size, generator, limit)
    if asked.certainty is None:
        raise UsageError(
            "the calibration sets hard and easy need a task whose answers are more or less certain, such as "
            "classification; nothing says so here. Name the head (--head), or use diverse."
        )
    return positions[np.argsort(sign * asked.certainty, kind="stable")[:size]]


def _hard(pool: Pool, size: int, generator: np.random.Generator, candidates: int) -> Indices:
    return _by_margin(pool, size, generator, candidates, +1)


def _easy(pool: Pool, size: int, generator: np.random.Generator, candidates: int) -> Indices:
    return _by_margin(pool, size, generator, candidates, -1)


def _diverse(pool: Pool, size: int, generator: np.random.Generator, candidates: int) -> Indices:
    """Greedy k-center: each next sample is the one farthest from those chosen so far."""
    positions, asked = _candidates(pool, size, generator, candidates)
    longest = max(map(len, asked.vectors))
    # Outputs of another length differ in what they lack.
    outputs = np.array([np.pad(vector, (0, longest - len(vector))) for vector in asked.vectors], np.float64)
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
