"""The verdict on a calibration set, and the evidence that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxptq.audit.clipping import Clipping, Interval, covered
from onnxptq.audit.decisions import Undecided
from onnxptq.audit.missing import MissingGroups
from onnxptq.audit.yardsticks import FAR, MovedInput

RESULT_VERSION = 1

ROLES = ("input", "output", "inner")

PASSED, FAILED, UNDECIDED = "PASSED", "FAILED", "UNDECIDED"

COVERED = 0.9
"""Share of what preprocessing allows that an image's range has to cover."""

COVERED_AUDIO = 0.8
"""The same of a recording. From one net: noise that cost 2 points covered 89 %, a quiet set that cost 15
covered 65 %."""

UNDECIDED_LIMIT = 0.2
"""Share of a group's predictions that an output's range may take away. This and `COVERED` were chosen on the sets and
the net that docs/audit.md names, and judged on others."""

LOST_LIMIT = 0.05
"""Share of the values of real samples outside of the range of an input without exact bounds. Not of the energy, which a
single value of a heavy tail decides; not of copies, which may be guesses.
Draws of 64 rows of three columns lost up to 2.3 % by chance."""

WIDE_LIMIT = 4.0
"""How many times as wide as that of real samples the range of an input without exact bounds may be: 64 of 256 levels
are then left to them. Two draws of 64 from an exponential distribution differed by 2.4."""


@dataclass(frozen=True)
class TensorEvidence:
    """What is known of one tensor that the quantizer gives a range.

    Attributes:
        name: of the tensor.
        role: "input" (or what follows from one by normalisation), "output" or "inner".
        observed: what MinMax on the set can represent, zero included.
        augmented: extremes over augmented copies of the set, or None without any.
        bounds: what preprocessing and operators allow, or None where it is not known to be finite.
        batch_norm: what BatchNormalization says it reaches (`audit.bounds`), or None.
        clipping: what `observed` cuts off of each part of the probe, the worst first.
        undecided: of an output, the predictions that `observed` takes away from each part, the worst first.
        real: extremes over samples to judge on, without them over those that were not drawn; None without either.
        exact: `bounds` are such as sound sets reach (images), and decide.
        needed: the share of exact bounds that the range has to cover.
    """

    name: str
    role: str
    observed: Interval
    augmented: Interval | None
    bounds: Interval | None
    batch_norm: Interval | None
    clipping: tuple[Clipping, ...]
    undecided: tuple[Undecided, ...] = ()
    real: Interval | None = None
    exact: bool = True
    needed: float = COVERED

    @property
    def cut(self) -> float:
        """The share of the values of real samples outside of the range: of the kind that loses more, over its parts."""
        kinds = {one.kind for one in self.clipping} - {"augmented"}
        by_kind = [[one.share for one in self.clipping if one.kind == kind] for kind in kinds]
        return max((sum(shares) / len(shares) for shares in by_kind), default=0.0)

    @property
    def width(self) -> float:
        """The observed range over that of real samples; 1 without any."""
        if self.real is None:
            return 1.0
        low, high = min(self.real[0], 0.0), max(self.real[1], 0.0)
        return (self.observed[1] - self.observed[0]) / (high - low) if high > low else 1.0

    @property
    def worst(self) -> Clipping | None:
        """The part of the probe that suffers most."""
        return self.clipping[0] if self.clipping else None

    @property
    def distortion(self) -> float:
        """Of the worst part, or 0 without a probe."""
        return self.clipping[0].distortion if self.clipping else 0.0

    @property
    def lost_decisions(self) -> float:
        """The largest share of undecided predictions of a part, or 0."""
        return self.undecided[0].share if self.undecided else 0.0

    def coverage(self) -> dict[str, float | None]:
        """The fraction of each reference that the observed range covers; None where there is no reference."""
        references = {"augmented": self.augmented, "bounds": self.bounds, "batch_norm": self.batch_norm}
        return {name: None if known is None else covered(self.observed, known) for name, known in references.items()}

    def to_dict(self) -> dict[str, Any]:
        """The evidence as JSON types."""
        return {**asdict(self), "distortion": self.distortion, "covered": self.coverage(), "width": self.width}


@dataclass(frozen=True)
class Audit:
    """What an audit says of a calibration set.

    Attributes:
        verdict: PASSED, FAILED (a range is too narrow, see `dangerous`), or UNDECIDED (there was nothing to hold the
            set against).
        model, calibration: file name, and the set by its canonical name.
        samples: how many were drawn.
        probe: number of samples of each kind that it was held against.
        tensors: inputs, outputs, then the rest; of each the worst first.
        moved: inputs that are not distributed as the training data was, where that is known.
        without_yardstick: inputs of which nothing tells whether the whole set is shifted.
        missing: groups that the drawn samples lack. They do not decide: label shift alone does no harm to ranges.
        remedies: what to do, one line each, the first best.
        warnings: one line each.
    """

    verdict: str
    model: str
    calibration: str
    samples: int
    probe: Mapping[str, int]
    tensors: tuple[TensorEvidence, ...]
    moved: tuple[MovedInput, ...]
    without_yardstick: tuple[str, ...]
    missing: tuple[MissingGroups, ...]
    remedies: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def causes(self) -> tuple[TensorEvidence, ...]:
        """The tensors for whose sake the set is dangerous, inputs first."""
        return tuple(tensor for tensor in self.tensors if dangerous(tensor))

    def to_dict(self) -> dict[str, Any]:
        """The audit as JSON types, with stable keys (docs/audit.md). It holds no time and no place."""
        return {
            "audit_version": RESULT_VERSION,
            "verdict": self.verdict,
            "model": self.model,
            "calibration": self.calibration,
            "samples": self.samples,
            "probe": dict(self.probe),
            "limits": {"covered": COVERED, "undecided": UNDECIDED_LIMIT, "lost": LOST_LIMIT, "wide": WIDE_LIMIT},
            "causes": list(dict.fromkeys(one for one in (*_names(self.causes), *(m.input for m in self.moved)))),
            "moved": [asdict(one) for one in self.moved],
            "without_yardstick": list(self.without_yardstick),
            "tensors": [tensor.to_dict() for tensor in self.tensors],
            "missing_groups": [asdict(one) for one in self.missing],
            "remedies": list(self.remedies),
            "warnings": list(self.warnings),
        }


def dangerous(tensor: TensorEvidence) -> bool:
    """Whether the set's range of an input or an output is too narrow, or that of an input too wide.

    Inner tensors do not decide: where they were cut off as much as these, groups lost nothing (docs/audit.md).
    """
    if tensor.role == "input":
        reach = tensor.coverage()["bounds"]
        if reach is not None and tensor.exact:
            return reach < tensor.needed
        far = reach is not None and reach < FAR
        return far or tensor.cut > LOST_LIMIT or tensor.width > WIDE_LIMIT
    return tensor.lost_decisions > UNDECIDED_LIMIT


def _names(tensors: Sequence[TensorEvidence]) -> list[str]:
    return [tensor.name for tensor in tensors]


def verdict_of(tensors: Sequence[TensorEvidence], moved: Sequence[MovedInput], *, real: bool, yardsticks: bool) -> str:
    """FAILED where a tensor is in danger, UNDECIDED without real samples or without a yardstick, else PASSED.

    Args:
        tensors: the evidence.
        moved: inputs that are not distributed as the training data was.
        real: the set or the probe was drawn from data: copies of noise are noise.
        yardsticks: something tells of each input whether the whole set is shifted.
    """
    if moved or any(map(dangerous, tensors)):
        return FAILED
    return PASSED if real and yardsticks and any(tensor.clipping for tensor in tensors) else UNDECIDED
