"""Is what a model is served what it was calibrated on? Without labels, from what the INT8 file remembers of its set.

Each number that the file remembers (`calibrators.marginals`) is compared by the largest distance between the two
distributions (Kolmogorov and Smirnov). The distance that samples of one population reach is simulated with the same
numbers of samples and the same order statistics, so it holds for any continuous distribution and is on the safe side
for others; `FALSE_ALARMS` is divided among the numbers (Bonferroni).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.audit.verdict import FAILED, PASSED, UNDECIDED
from onnxptq.cache import user_cache
from onnxptq.calibrators import CalibrationSamples
from onnxptq.calibrators.marginals import compressed, numbers_of
from onnxptq.errors import UsageError
from onnxptq.graphs import Model, read_provenance
from onnxptq.inputs import DataOptions, resolve_for_evaluation

RESULT_VERSION = 1

FALSE_ALARMS = 0.05
"""Share of sets of the same population that FAIL."""

FEWEST = 20
"""Served samples below which nothing is said."""

MOST = 512
"""Served samples that are read; more show nothing that matters to ranges."""

_DRAWS = 20_000

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Difference:
    """One number of a sample, in the calibration set and in what is served.

    Attributes:
        number: "x (mean)", "x[2]".
        distance: the largest distance between the two distributions, 0 to 1.
        calibrated, served: (5 %, median, 95 %) of it in both.
    """

    number: str
    distance: float
    calibrated: tuple[float, float, float]
    served: tuple[float, float, float]


@dataclass(frozen=True)
class ServedAudit:
    """What an audit of served data says.

    Attributes:
        verdict: FAILED (not what the model was calibrated on), PASSED (no difference found), UNDECIDED (too few).
        model: file name.
        calibrated, served: number of samples.
        limit: distance that samples of one population exceed in `FALSE_ALARMS` of all audits.
        differences: every number that is remembered, the largest distance first.
        warnings: one line each.
    """

    verdict: str
    model: str
    calibrated: int
    served: int
    limit: float
    differences: tuple[Difference, ...]
    warnings: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON types, with stable keys (docs/audit.md)."""
        return {"served_audit_version": RESULT_VERSION, "false_alarms": FALSE_ALARMS, **asdict(self)}


def audit_served(model: Model, options: DataOptions) -> ServedAudit:
    """Compares samples that a model is served with those that calibrated it.

    Raises:
        UsageError: the file does not say what it was calibrated on.
        DataError: the data cannot be used.
    """
    remembered, calibrated, forgetful = _remembered(model)
    dataset, task, warnings = resolve_for_evaluation([forgetful], options, user_cache())
    # By content and not by row: what is served is often sorted by time.
    order = np.argsort(dataset.fingerprints, kind="stable")[:MOST]
    samples = CalibrationSamples(task, dataset.select(order), len(order), 0, ())
    numbers = numbers_of(feeds for _, feeds in samples.in_front())
    served = len(order)
    shared = {name: np.asarray(points) for name, points in remembered.items() if name in numbers}
    found = [_difference(name, points, numbers[name]) for name, points in shared.items()]
    differences = tuple(sorted(found, key=lambda one: -one.distance))
    limit = distance_limit(calibrated, served, len(found)) if found and served >= FEWEST else 1.0
    verdict = UNDECIDED
    if found and served >= FEWEST:
        verdict = FAILED if differences[0].distance > limit else PASSED
    return ServedAudit(verdict, model.path.name, calibrated, served, limit, differences, warnings)


def distance_limit(calibrated: int, served: int, numbers: int) -> float:
    """The distance that the largest of `numbers` distances exceeds with a probability of `FALSE_ALARMS` at most."""
    random = np.random.default_rng(0)
    distances = np.empty(_DRAWS)
    for start in range(0, _DRAWS, 1000):
        kept = compressed(random.random((1000, calibrated)))
        drawn = random.random((1000, served))
        distances[start : start + 1000] = [distance(*pair) for pair in zip(kept, drawn, strict=True)]
    return float(np.quantile(distances, 1 - FALSE_ALARMS / numbers))


def distance(points: Array, values: Array) -> float:
    """The largest distance between the distribution of some order statistics and that of values."""
    points, values = np.sort(points), np.sort(values)
    both = np.concatenate([points, values])
    shares = [np.searchsorted(one, both, side="right") / len(one) for one in (points, values)]
    return float(np.abs(shares[0] - shares[1]).max())


def _remembered(model: Model) -> tuple[Mapping[str, Sequence[float]], int, Model]:
    """What the file remembers, of how many samples, and the model as if it did not know which they were.

    Leaving out what calibrated it, and what equals that, would make what is left another population.
    """
    found = read_provenance(model.metadata)
    kept = found.calibration.get("marginals") if found is not None else None
    if found is None or not isinstance(kept, Mapping) or not kept:
        raise UsageError(
            f"{model.path} does not say what the samples that calibrated it were like. Quantize the FP32 model again "
            "with this version of onnxptq, or audit the FP32 model with --calib-data and --eval-data."
        )
    forgotten = replace(found, data={}, calibration={})
    return kept, int(found.calibration["samples"]), replace(model, metadata={**model.metadata, **forgotten.metadata})


def _difference(name: str, points: Array, values: Array) -> Difference:
    spans = [tuple(map(float, np.quantile(one, (0.05, 0.5, 0.95)))) for one in (points, values)]
    return Difference(name, distance(points, values), *((span[0], span[1], span[2]) for span in spans))


__all__ = ["FALSE_ALARMS", "Difference", "ServedAudit", "audit_served", "distance", "distance_limit"]
