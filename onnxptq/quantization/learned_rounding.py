"""Which way to round each weight of one layer, learned by gradient descent: the inner problem of AdaRound.

Nagel et al., Up or down? Adaptive rounding for post-training quantization (ICML 2020, arXiv 2004.10568), section 3.2. A
weight becomes floor(w / s) + h(V), h(V) = clip(sigmoid(V) * (zeta - gamma) + gamma, 0, 1). V starts where h(V) is what
floor left, and minimises

    |f(W x) - f(W(V) x')|^2 + penalty * sum(1 - |2 h(V) - 1|^beta)

with x of the float net, x' of the net whose earlier layers are rounded already, and f the activation behind the layer.
beta falls from 20 to 2, after a warm start without penalty, so that every h ends as 0 or 1. Unlike the paper both terms
are relative, to the error of rounding to nearest and to the number of weights, so that one penalty fits all layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import UsageError

ZETA, GAMMA = 1.1, -0.1
BETAS = 20.0, 2.0
WARM_START = 0.2
"""Share of the iterations without penalty."""

PENALTY = 10.0
RATE = 5e-2
"""Of Adam."""

BATCH = 256
"""Rows of an iteration."""

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class RoundingProblem:
    """One layer, whose weight is to be rounded.

    Attributes:
        steps: the weight in units of its grid, (G, O, K): groups, outputs and inputs of a group.
        zero_point, scale: of the grid, of a shape that meets `steps`.
        limits: the smallest and the largest integer.
        inputs: rows of the layer's input in the rounded net, (G, R, K).
        wanted: the float layer's output for them, before the activation, (R, G * O).
        bias: (G * O,).
        low, high: what the activation cuts the output to.
    """

    steps: _Floats
    zero_point: _Floats
    scale: _Floats
    limits: tuple[int, int]
    inputs: _Floats
    wanted: _Floats
    bias: _Floats
    low: float
    high: float

    @property
    def nearest(self) -> _Floats:
        """The integers of rounding to nearest, (G, O, K)."""
        return np.clip(np.rint(self.steps), *self.limits)

    def error(self, integers: _Floats) -> float:
        """Mean squared error of the layer's output behind its activation, if the weight were these integers."""
        weight = (integers - self.zero_point) * self.scale
        found = np.matmul(self.inputs, weight.transpose(0, 2, 1))  # (G, R, O)
        found = found.transpose(1, 0, 2).reshape(self.wanted.shape) + self.bias
        difference = np.clip(found, self.low, self.high) - np.clip(self.wanted, self.low, self.high)
        return float(np.square(difference, dtype=np.float64).mean())


def require_torch() -> Any:
    """PyTorch, which is imported here and nowhere before. Raises UsageError where it is missing."""
    try:
        import torch
    except ImportError as error:
        raise UsageError(
            f"learned rounding needs PyTorch: pip install 'onnxptq[reconstruct]' ({error}). Without it, "
            "--method adaround:iterations=0 rounds to nearest on the same grid."
        ) from error
    return torch


def learn_rounding(problem: RoundingProblem, iterations: int, seed: int) -> _Floats:
    """The integers of a layer's weight, (G, O, K): learned ones, or the nearest where those are not worse.

    Args:
        problem: the layer.
        iterations: steps of Adam.
        seed: of the rows of each step. The same seed gives the same integers on the same machine.

    Raises:
        UsageError: PyTorch is missing.
    """
    nearest = problem.error(problem.nearest)
    if nearest == 0:
        return problem.nearest
    learned = _descend(problem, nearest, iterations, seed)
    return learned if problem.error(learned) < nearest else problem.nearest


def _descend(problem: RoundingProblem, nearest: float, iterations: int, seed: int) -> _Floats:
    torch = require_torch()
    low, high = problem.limits
    steps = torch.from_numpy(np.clip(problem.steps, low, high))
    zero, scale = torch.from_numpy(problem.zero_point), torch.from_numpy(problem.scale)
    inputs, bias = torch.from_numpy(problem.inputs), torch.from_numpy(problem.bias)
    wanted = torch.from_numpy(problem.wanted).clamp(problem.low, problem.high)
    floor = torch.floor(steps)
    rest = (steps - floor).clamp(1e-4, 1 - 1e-4)
    variable = -torch.log((ZETA - GAMMA) / (rest - GAMMA) - 1)
    variable.requires_grad_(True)
    optimizer = torch.optim.Adam([variable], lr=RATE)
    generator = torch.Generator().manual_seed(seed)
    warm = int(WARM_START * iterations)

    def up() -> Any:
        return (torch.sigmoid(variable) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)

    for iteration in range(iterations):
        rows = torch.randint(len(wanted), (BATCH,), generator=generator)
        share = up()
        weight = ((floor + share).clamp(low, high) - zero) * scale
        found = torch.bmm(inputs[:, rows], weight.transpose(1, 2)).transpose(0, 1).reshape(len(rows), -1) + bias
        loss = torch.mean((found.clamp(problem.low, problem.high) - wanted[rows]) ** 2) / nearest
        if iteration >= warm:
            done = (iteration - warm) / max(iterations - warm, 1)
            beta = BETAS[1] + (BETAS[0] - BETAS[1]) * (1 - done)
            loss = loss + PENALTY * torch.mean(1 - (2 * share - 1).abs() ** beta)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    chosen: _Floats = (floor + (up().detach() >= 0.5)).clamp(low, high).numpy().astype(np.float32)
    return chosen
