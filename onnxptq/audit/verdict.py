"""The verdict on a calibration set, and the evidence that it rests on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from onnxptq.audit.clipping import Clipping, Interval, covered
from onnxptq.audit.decisions import Undecided
from onnxptq.audit.missing import MissingGroups

RESULT_VERSION = 1

ROLES = ("input", "output", "inner")

PASSED, FAILED, UNDECIDED = "PASSED", "FAILED", "UNDECIDED"

COVERED = 0.9
"""Share of what preprocessing allows that an input's range has to cover."""

UNDECIDED_LIMIT = 0.2
"""Share of a group's predictions that an output's range may take away. This and `COVERED` were chosen on the sets and
the net that docs/audit.md names, and judged on others."""

LOST_LIMIT = 0.02
"""Distortion of an input whose bounds nobody knows. Not tuned: image inputs have bounds."""


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
    """

    name: str
    role: str
    observed: Interval
    augmented: Interval | None
    bounds: Interval | None
    batch_norm: Interval | None
    clipping: tuple[Clipping, ...]
    undecided: tuple[Undecided, ...] = ()

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
        return {**asdict(self), "distortion": self.distortion, "covered": self.coverage()}


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
            "limits": {"covered": COVERED, "undecided": UNDECIDED_LIMIT, "lost": LOST_LIMIT},
            "causes": [tensor.name for tensor in self.causes],
            "tensors": [tensor.to_dict() for tensor in self.tensors],
            "missing_groups": [asdict(one) for one in self.missing],
            "remedies": list(self.remedies),
            "warnings": list(self.warnings),
        }


def dangerous(tensor: TensorEvidence) -> bool:
    """Whether the set's range of an input or an output is too narrow.

    Inner tensors do not decide: where they were cut off as much as these, groups lost nothing (docs/audit.md).
    """
    if tensor.role == "input":
        reach = tensor.coverage()["bounds"]
        return tensor.distortion > LOST_LIMIT if reach is None else reach < COVERED
    return tensor.lost_decisions > UNDECIDED_LIMIT


def verdict_of(tensors: Sequence[TensorEvidence], *, real: bool) -> str:
    """FAILED where a tensor is in danger, UNDECIDED without a probe that holds real samples, else PASSED.

    Args:
        tensors: the evidence.
        real: the set or the probe was drawn from data: copies of noise are noise.
    """
    if any(map(dangerous, tensors)):
        return FAILED
    return PASSED if real and any(tensor.clipping for tensor in tensors) else UNDECIDED
