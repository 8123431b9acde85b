"""A study summed over its seeds: one row a combination, each passed, failed, undecided or broken."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from typing import Any

from onnxptq.gates.policy import GROUP_MARGIN, AverageDrop, WorstGroupDrop
from onnxptq.sweeps.study import DONE, Cell, CellKey, Study

LIMIT = WorstGroupDrop().limit
"""Of the cross-fitted worst-group drop: what `onnxptq check` asks by default."""

AVERAGE_LIMIT = AverageDrop().limit
"""Of the average drop: who watches the average alone lets these pass."""

PASSED, UNDECIDED, FAILED, BROKEN = "passed", "undecided", "failed", "broken"


@dataclass(frozen=True, order=True)
class CombinationKey:
    """A cell's key without the seed.

    Attributes:
        model, calibration, strategy, method, target, runtime: as in `CellKey`.
    """

    model: str
    calibration: str
    strategy: str
    method: str
    target: str
    runtime: str

    @property
    def set_name(self) -> str:
        """The calibration set with what is done to it: "dark@3 & autocontrast"."""
        return set_name(self.calibration, self.strategy)


@dataclass(frozen=True)
class Combination:
    """The cells of one place, over the seeds. Drops and rates are fractions; None where nothing was measured.

    Attributes:
        place: where it stands.
        verdict: the three answers of `onnxptq check`. FAILED where the lower end of the cross-fitted drop is above the
            limit for one seed; PASSED where for every seed the largest upper end of a judged group is within the
            tolerance; else UNDECIDED. BROKEN where no seed gave a result.
        seeds: how many were judged.
        failed: how many failed.
        unjudged: how many have a result in which no group was large enough to be judged.
        missing: how many of the plan's have no result yet.
        average_drop, crossfit_drop, cvar10_drop, flip_rate: means over the seeds.
        low, high: of the cross-fitted drop: the smallest lower and the largest upper end over the seeds.
        possible: the largest upper end of a judged group's drop over the seeds: what cannot be ruled out.
        hurt_groups: the judged groups that lost most, as means over the seeds; several where they lost the same.
        hurt_drop: what each of them lost, mean over the seeds.
        leans_within: the mean cross-fitted drop is within the limit; None where there is none.
    """

    place: CombinationKey
    verdict: str
    seeds: int
    failed: int
    unjudged: int
    missing: int
    average_drop: float | None
    crossfit_drop: float | None
    low: float | None
    high: float | None
    possible: float | None
    cvar10_drop: float | None
    flip_rate: float | None
    hurt_groups: tuple[str, ...]
    hurt_drop: float | None
    leans_within: bool | None

    @property
    def whole(self) -> bool:
        """Every seed of the plan was judged."""
        return self.seeds > 0 and not (self.failed or self.unjudged or self.missing)

    def to_dict(self) -> dict[str, Any]:
        """One flat row of JSON types."""
        values = asdict(self)
        groups = "; ".join(values.pop("hurt_groups"))
        return {**values.pop("place"), **values, "hurt_group": groups or None}


@dataclass(frozen=True)
class Summary:
    """A study summed over its seeds.

    Attributes:
        study: what it was made from.
        limit: of the cross-fitted drop, a fraction.
        combinations: in the order of the grid.
    """

    study: Study
    limit: float
    combinations: tuple[Combination, ...]

    @property
    def tolerance(self) -> float:
        """What a group may lose for all that its samples can tell, for a combination to pass: as in `onnxptq check`."""
        return self.limit + GROUP_MARGIN

    def named(self, *verdicts: str) -> list[Combination]:
        """The combinations with one of these verdicts."""
        return [one for one in self.combinations if one.verdict in verdicts]

    def levels(self, factor: str) -> list[Any]:
        """The levels of a factor of the grid, in its order."""
        return self._levels[factor]

    @cached_property
    def _levels(self) -> dict[str, list[Any]]:
        """Of all factors; a page of thousands of cells asks hundreds of times."""
        names = [field.name for field in fields(CellKey)]
        return {name: list(dict.fromkeys(getattr(cell.key, name) for cell in self.study.cells)) for name in names}


def summarize(study: Study, limit: float = LIMIT) -> Summary:
    """Sums a study over its seeds.

    Args:
        study: from `onnxptq.sweeps.store.load_study`.
        limit: largest cross-fitted worst-group drop that passes, a fraction.
    """
    places: dict[CombinationKey, list[Cell]] = {}
    for cell in study.cells:
        places.setdefault(place_of(cell.key), []).append(cell)
    seeds = study.plan.get("seeds")
    planned = len(seeds) if isinstance(seeds, list) else 0
    combinations = tuple(_combination(place, cells, planned, limit) for place, cells in places.items())
    return Summary(study, limit, combinations)


def place_of(key: CellKey) -> CombinationKey:
    """The key without its seed."""
    return CombinationKey(key.model, key.calibration, key.strategy, key.method, key.target, key.runtime)


def set_name(calibration: str, strategy: str) -> str:
    """How a calibration set is written with what is done to it."""
    return f"{calibration} & {strategy}" if strategy else calibration


def number(cell: Cell, name: str) -> float | None:
    """A number of a cell's report; None where the cell failed or it is not defined."""
    return defined(getattr(cell.figures, name))


def defined(value: float) -> float | None:
    """A number of a report; None where it is NaN."""
    return None if math.isnan(value) else float(value)


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are defined; None where there is none."""
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None


def _combination(place: CombinationKey, cells: Sequence[Cell], planned: int, limit: float) -> Combination:
    done = [cell for cell in cells if cell.status == DONE]
    judged = [cell for cell in done if number(cell, "crossfit_drop") is not None]
    lows = [low for cell in judged if (low := number(cell, "crossfit_drop_low")) is not None]
    highs = [high for cell in judged if (high := number(cell, "crossfit_drop_high")) is not None]
    possible = [_possible(cell) for cell in judged]
    drop = mean(number(cell, "crossfit_drop") for cell in judged)
    hurt_groups, hurt_drop = _hurt(judged)
    return Combination(
        place=place,
        verdict=_verdict(max(planned, len(cells)), done, lows, possible, limit),
        seeds=len(judged),
        failed=len(cells) - len(done),
        unjudged=len(done) - len(judged),
        missing=max(0, planned - len(cells)),
        average_drop=mean(number(cell, "average_drop") for cell in done),
        crossfit_drop=drop,
        low=min(lows, default=None),
        high=max(highs, default=None),
        possible=max(possible, default=None),
        cvar10_drop=mean(number(cell, "cvar10_drop") for cell in done),
        flip_rate=mean(number(cell, "flip_rate") for cell in done),
        hurt_groups=hurt_groups,
        hurt_drop=hurt_drop,
        leans_within=None if drop is None else drop <= limit,
    )


def _possible(cell: Cell) -> float:
    """The largest upper end of a judged group's drop."""
    return max((group.drop_high for group in cell.figures.groups if group.judged), default=1.0)


def _hurt(judged: Sequence[Cell]) -> tuple[tuple[str, ...], float | None]:
    """The groups with the largest mean drop over these cells, and that drop: what an unlucky seed did is not theirs."""
    drops: dict[str, list[float]] = {}
    for cell in judged:
        for group in cell.figures.groups:
            if group.judged:
                drops.setdefault(group.name, []).append(group.drop)
    means = {name: statistics.fmean(found) for name, found in drops.items()}
    if not means:
        return (), None
    largest = max(means.values())
    return tuple(sorted(name for name, drop in means.items() if math.isclose(drop, largest, abs_tol=1e-9))), largest


def _verdict(planned: int, done: Sequence[Cell], lows: list[float], possible: list[float], limit: float) -> str:
    if not done:
        return BROKEN
    if any(low > limit for low in lows):
        return FAILED
    # A seed that failed, could not be judged or has not been made yet might be the failed one.
    if len(possible) == planned and all(high <= limit + GROUP_MARGIN for high in possible):
        return PASSED
    return UNDECIDED
