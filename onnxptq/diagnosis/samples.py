"""The samples of a diagnosis: one half to search on and one to verify on, and few of each group.

A node is chosen because it looked harmful on some samples; on those same samples the choice looks better than it is. So
the ranking and the search see one half of the original samples, and what was chosen is judged on the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from onnxptq.data.dataset import Dataset
from onnxptq.errors import DataError
from onnxptq.evaluation.groups import default_groupings, group_rows
from onnxptq.evaluation.samples import EvaluationSamples

Positions = npt.NDArray[np.int64]

_FEWEST = 8
"""Original samples of a group in the searching half below which halving it again says nothing."""


@dataclass(frozen=True)
class Part:
    """Samples of which each group has about as many.

    Attributes:
        samples: what is run.
        weights: float64, (rows,): how many samples of the data each row stands for, so that a mean is one of the data.
    """

    samples: EvaluationSamples
    weights: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Halves:
    """The two halves of the data, as positions in the dataset.

    Attributes:
        samples: all of them.
        searching, verifying: positions of each half, the rarest strata balanced too.
        strata: int64, (N,): the stratum of each sample: what it shares with its groups, corruptions aside.
    """

    samples: EvaluationSamples
    searching: Positions
    verifying: Positions
    strata: Positions

    def few(self, per_stratum: int) -> Part:
        """At most `per_stratum` original samples of each stratum of the searching half, under every corruption."""
        chosen = [p[:per_stratum] for p in _by_stratum(self.samples.dataset, self.strata, self.searching)]
        positions = np.sort(np.concatenate(chosen))
        have, taken = np.bincount(self.strata), np.bincount(self.strata[positions], minlength=self.strata.max() + 1)
        weights = (have / np.maximum(taken, 1))[self.strata[positions]]
        return Part(self._select(positions), np.tile(weights, len(self.samples.corruptions)))

    @property
    def held_out(self) -> EvaluationSamples:
        """The verifying half, all of it."""
        return self._select(self.verifying)

    def _select(self, positions: Positions) -> EvaluationSamples:
        return replace(self.samples, dataset=self.samples.dataset.select(positions))


def halve(samples: EvaluationSamples, groupings: Sequence[str]) -> Halves:
    """Halves the original samples within each stratum, by their content: the same data is always halved the same way.

    Args:
        samples: what to judge on.
        groupings: as the user wrote them; none is the default.

    Raises:
        DataError: no stratum has enough samples to be halved.
    """
    strata = _strata(samples.dataset, groupings)
    sides: dict[str, int] = {}
    searching: list[int] = []
    verifying: list[int] = []
    for positions in _by_stratum(samples.dataset, strata, np.arange(len(samples.dataset))):
        for number, position in enumerate(positions.tolist()):
            # Equal content goes to one side, whatever its label.
            side = sides.setdefault(str(samples.dataset.fingerprints[position]), number % 2)
            (verifying if side else searching).append(position)
    counts = np.bincount(strata[searching]) if searching else np.zeros(1)
    if counts.max() < _FEWEST or not verifying:
        raise DataError(
            f"{samples.dataset.source} has at most {int(counts.max())} original samples a group in the half that is "
            f"searched; expected at least {_FEWEST}. Give more data, or group by fewer things (--group)."
        )
    return Halves(samples, np.sort(np.asarray(searching)), np.sort(np.asarray(verifying)), strata)


def _strata(dataset: Dataset, groupings: Sequence[str]) -> Positions:
    """The stratum of each sample: all columns that some grouping names, crossed. Corruptions are no stratum."""
    named = [c.strip() for text in groupings or default_groupings(dataset.attributes) for c in text.split("*")]
    columns = [name for name in dict.fromkeys(named) if name in dataset.attributes]
    if not columns:
        return np.zeros(len(dataset), dtype=np.int64)
    return group_rows(dataset.attributes, ["*".join(columns)])[0].codes


def _by_stratum(dataset: Dataset, strata: Positions, positions: Positions) -> list[Positions]:
    """The positions of each stratum, in the order of the samples' digests: as good as random, whatever their order."""
    ordered = positions[np.argsort(dataset.fingerprints[positions], kind="stable")]
    return [ordered[strata[ordered] == stratum] for stratum in np.unique(strata[positions])]
