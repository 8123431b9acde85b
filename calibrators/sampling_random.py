"""Samplers that look at nothing or at group columns: clean, small, stratified, missing-group, only-group."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.sampler import SAMPLERS, Pool, Sampler, at_random
from onnxptq.data.dataset import Indices
from onnxptq.errors import DataError, UsageError, did_you_mean


def _clean(pool: Pool, size: int, generator: np.random.Generator) -> Indices:
    return at_random(np.arange(len(pool.dataset)), size, generator)


def _stratified(pool: Pool, size: int, generator: np.random.Generator, column: str) -> Indices:
    """Rounds over the groups, one sample of each in turn, so that group sizes differ by at most one."""
    values = pool.column(column)
    queues = [generator.permutation(np.flatnonzero(values == value)) for value in np.unique(values)]
    queues = [queues[i] for i in generator.permutation(len(queues))]
    rounds = max(len(queue) for queue in queues)
    in_turn = [queue[i] for i in range(rounds) for queue in queues if i < len(queue)]
    return np.asarray(in_turn[:size], dtype=np.int64)


def _missing_group(pool: Pool, size: int, generator: np.random.Generator, group: str) -> Indices:
    """Everything but one group."""
    inside = _in_group(pool, group)
    if inside.all():
        raise DataError(f"without {group!r} nothing is left to calibrate with.")
    return at_random(np.flatnonzero(~inside), size, generator)


def _only_group(pool: Pool, size: int, generator: np.random.Generator, group: str) -> Indices:
    return at_random(np.flatnonzero(_in_group(pool, group)), size, generator)


def _in_group(pool: Pool, group: str) -> npt.NDArray[np.bool_]:
    """Which samples are in a group: `cat` is a label, `column=value` a value of any group column."""
    column, _, value = group.partition("=") if "=" in group else ("label", "", group)
    values = pool.column(column)
    if value not in values:
        raise UsageError(f"no sample has {column}={value!r}. {did_you_mean(value, set(values.tolist()))}")
    return np.asarray(values == value)


SAMPLERS.register(Sampler("clean", "drawn at random, nothing changed: the reference", "stock practice", _clean))
SAMPLERS.register(
    Sampler("small", "very few samples, drawn at random", "Yuan et al. 2023, calibration-set size", _clean, size=8)
)
SAMPLERS.register(
    Sampler(
        "stratified",
        "equal shares of each group of a column",
        "Cochran 1977, stratified sampling",
        _stratified,
        {"column": "label"},
        positional="column",
    )
)
SAMPLERS.register(
    Sampler(
        "missing-group",
        "one group is left out, as when nobody collected it",
        "Yuan et al. 2023, distribution shift",
        _missing_group,
        {"group": ""},
        positional="group",
        required="group",
    )
)
SAMPLERS.register(
    Sampler(
        "only-group",
        "one group only: short sentences, or the pictures of one site",
        "Yuan et al. 2023, distribution shift",
        _only_group,
        {"group": ""},
        positional="group",
        required="group",
    )
)
