"""What one pass over a calibration set leaves behind, per tensor: exact extremes and a histogram that merges.

The state depends on the samples alone: not on their order, on batches, or on how they were spread over machines.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.histogram_bins import SHIFT
from onnxptq.errors import DataError, UsageError

_NEGATIVE_ZERO_BIN = 0x80000000 >> SHIFT


@dataclass(frozen=True, eq=False)
class TensorStatistics:
    """One tensor over all samples of one environment.

    Attributes:
        minimum: the smallest value, exact.
        maximum: the largest value, exact.
        count: number of values.
        bins: uint32, (B,), ascending: raw float32 bits >> `SHIFT` of the bins that hold values. Empty when only the
            extremes were asked for.
        counts: int64, (B,), all positive, with sum `count`.
    """

    minimum: np.float32
    maximum: np.float32
    count: int
    bins: npt.NDArray[np.uint32] = field(repr=False)
    counts: npt.NDArray[np.int64] = field(repr=False)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, TensorStatistics):
            return NotImplemented
        return (
            (self.minimum, self.maximum, self.count) == (other.minimum, other.maximum, other.count)
            and np.array_equal(self.bins, other.bins)
            and np.array_equal(self.counts, other.counts)
        )

    __hash__ = None  # type: ignore[assignment]  # arrays inside: equal by content, and not a key of anything


@dataclass(frozen=True)
class ValueHistogram:
    """The histogram in the order of values.

    Attributes:
        lower, upper: float64, (B,): bin i holds values in [lower[i], upper[i]], exact float32 numbers, cut to the
            extremes.
        counts: int64, (B,).
    """

    lower: npt.NDArray[np.float64]
    upper: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]

    @property
    def centers(self) -> npt.NDArray[np.float64]:
        """The middle of every bin, (B,): at most 2**-11 of the value away from every value in it."""
        return (self.lower + self.upper) / 2


def value_histogram(statistics: TensorStatistics) -> ValueHistogram:
    """The histogram of one tensor in the order of values, with 0.0 and -0.0 in one bin [0, 0].

    Raises:
        UsageError: the statistics were collected without a histogram.
    """
    if statistics.count and not statistics.bins.size:
        raise UsageError("these statistics hold only minimum and maximum; collect them again with histograms")
    bins, counts = statistics.bins, statistics.counts
    # Subnormals share the bins of the two zeros; 1e-41 is zero to any quantizer.
    zero = (bins == 0) | (bins == _NEGATIVE_ZERO_BIN)
    negative = (bins > _NEGATIVE_ZERO_BIN) & ~zero
    positive = (bins < _NEGATIVE_ZERO_BIN) & ~zero
    nearest = bins << SHIFT
    near = nearest.view(np.float32).astype(np.float64)
    far = (nearest + ((1 << SHIFT) - 1)).view(np.float32).astype(np.float64)
    # A negative bin's floats grow away from zero, so there the order turns round.
    low, high = float(statistics.minimum), float(statistics.maximum)
    lower = np.concatenate([far[negative][::-1], near[positive]])
    upper = np.concatenate([near[negative][::-1], far[positive]])
    bounds = np.clip([lower, upper], low, high)
    ordered = np.concatenate([counts[negative][::-1], counts[positive]])
    if zero.any():
        at = int(negative.sum())
        bounds = np.insert(bounds, at, 0.0, axis=1)
        ordered = np.insert(ordered, at, counts[zero].sum())
    return ValueHistogram(bounds[0], bounds[1], ordered)


def merge_tensors(parts: Sequence[TensorStatistics]) -> TensorStatistics:
    """The statistics of all values of `parts` together: exact, whatever the order and the grouping."""
    if len(parts) == 1:
        return parts[0]
    bins, inverse = np.unique(np.concatenate([part.bins for part in parts]), return_inverse=True)
    counts = np.zeros(bins.size, dtype=np.int64)
    np.add.at(counts, inverse, np.concatenate([part.counts for part in parts]))
    return TensorStatistics(
        minimum=min(part.minimum for part in parts),
        maximum=max(part.maximum for part in parts),
        count=sum(part.count for part in parts),
        bins=bins,
        counts=counts,
    )


@dataclass(frozen=True)
class CalibrationStatistics:
    """What one pass over a calibration set knows, per environment and tensor.

    Attributes:
        environments: environment name -> tensor name -> statistics. Every environment has the same tensors.
        samples: environment name -> number of samples seen.
        provenance: what made it (model digest, calibration set, versions, CPU features ...), free text by key. Only
            parts of equal provenance can be merged.
    """

    environments: Mapping[str, Mapping[str, TensorStatistics]]
    samples: Mapping[str, int]
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def tensors(self) -> tuple[str, ...]:
        """The names of the observed tensors, sorted."""
        return tuple(sorted({name for tensors in self.environments.values() for name in tensors}))

    def per_environment(self, tensor: str, names: Iterable[str] | None = None) -> tuple[TensorStatistics, ...]:
        """One tensor's statistics in each environment, by environment name: what a range method takes.

        Raises:
            UsageError: the tensor was not observed, or there is no such environment.
        """
        chosen = sorted(self.environments) if names is None else list(names)
        for name in chosen:
            if name not in self.environments:
                raise UsageError(f"no environment {name!r} in the statistics, only {sorted(self.environments)}")
            if tensor not in self.environments[name]:
                raise UsageError(f"the tensor {tensor!r} was not observed in the environment {name!r}")
        return tuple(self.environments[name][tensor] for name in chosen)

    def save(self, path: str | Path) -> None:
        """Writes the statistics: the same bytes for the same statistics, under a temporary name and then renamed.

        Raises:
            OutputError: the folder is missing, not writable or full.
        """
        from onnxptq.calibrators.statistics_file import write_statistics

        write_statistics(self, Path(path))

    @staticmethod
    def load(path: str | Path) -> CalibrationStatistics:
        """Reads what `save` wrote.

        Raises:
            DataError: no such file, truncated or damaged, not statistics, or written by another version of the format.
        """
        from onnxptq.calibrators.statistics_file import read_statistics

        return read_statistics(Path(path))


def _difference(ours: str | None, theirs: str | None) -> tuple[str | None, str | None]:
    """Two values of one key of provenance; of two objects in JSON only what differs: a runtime has many facts."""
    try:
        first, second = json.loads(ours or ""), json.loads(theirs or "")
    except ValueError:
        return ours, theirs
    if not isinstance(first, dict) or not isinstance(second, dict):
        return ours, theirs
    keys = [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]
    said = [", ".join(f"{key}={one.get(key)}" for key in keys) for one in (first, second)]
    return said[0], said[1]


def merge(*parts: CalibrationStatistics) -> CalibrationStatistics:
    """The statistics of all samples of `parts`, byte for byte what one pass over them gives, whatever the order.

    Raises:
        DataError: nothing to merge, or parts that do not belong together (other model, other calibration set).
    """
    if not parts:
        raise DataError("there are no statistics to merge; give at least one file")
    first = parts[0]
    for part in parts[1:]:
        for key in sorted({*first.provenance, *part.provenance}):
            ours, theirs = first.provenance.get(key), part.provenance.get(key)
            if ours != theirs:
                ours, theirs = _difference(ours, theirs)
                raise DataError(
                    f"statistics with {key} {ours!r} cannot be merged with {key} {theirs!r}: they describe different "
                    "runs. Merge only parts of one `calibrate` command."
                )
        if part.tensors != first.tensors:
            raise DataError(
                f"statistics of {len(first.tensors)} tensors cannot be merged with those of {len(part.tensors)} other "
                "tensors. Merge only parts of one `calibrate` command."
            )
    environments: dict[str, dict[str, TensorStatistics]] = {}
    samples: dict[str, int] = {}
    for name in sorted({name for part in parts for name in part.environments}):
        having = [part for part in parts if name in part.environments]
        environments[name] = {
            tensor: merge_tensors([part.environments[name][tensor] for part in having]) for tensor in first.tensors
        }
        samples[name] = sum(part.samples[name] for part in having)
    return CalibrationStatistics(environments, samples, dict(first.provenance))
