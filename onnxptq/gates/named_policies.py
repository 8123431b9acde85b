"""Policies by name, for `onnxptq check --policy NAME`; `onnxptq policy explain NAME` says what each asks for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from onnxptq.errors import UsageError, did_you_mean
from onnxptq.gates.policy import (
    AverageDrop,
    Policy,
    QualityShare,
    Samples,
    WorstGroupDrop,
    default_policy,
)
from onnxptq.gates.policy_file import load_policy


@dataclass(frozen=True)
class NamedPolicy:
    """A policy that comes with onnxptq.

    Attributes:
        name: as a user writes it.
        purpose: whom it is for, in a sentence.
        make: the policy, told whether the data has labels.
    """

    name: str
    purpose: str
    make: Callable[[bool], Policy]


def _strict(labelled: bool) -> Policy:
    return Policy(
        samples=Samples(minimum=100),
        average_drop=AverageDrop(limit=0.005, tolerance=0.01),
        worst_group_drop=WorstGroupDrop(limit=0.02, tolerance=0.05),
    )


def _mlperf(share: float, tolerance: float) -> Callable[[bool], Policy]:
    return lambda labelled: Policy(quality_share=QualityShare(share, "point", tolerance))


NAMED = {
    policy.name: policy
    for policy in (
        NamedPolicy(
            "default",
            "What a check asks without --policy: the average, and the worst group within ten points.",
            lambda labelled: default_policy(labelled=labelled),
        ),
        NamedPolicy(
            "strict", "The worst group within five points, for those who have the samples to show it.", _strict
        ),
        NamedPolicy("mlperf-99", "99 % of FP32's quality on average, whatever the groups.", _mlperf(0.99, 0.98)),
        NamedPolicy("mlperf-99.9", "99.9 % of FP32's quality on average, whatever the groups.", _mlperf(0.999, 0.99)),
    )
}


def find_policy(text: str | Path) -> Policy | None:
    """The policy of a name or a file; None is the default one, which depends on whether the data has labels.

    Raises:
        UsageError: neither a name nor a file, or the file is not a policy.
    """
    if str(text) == "default":
        return None
    if str(text) in NAMED:
        return NAMED[str(text)].make(True)
    path = Path(text)
    if not path.exists() and path.name == str(text) and not path.suffix.startswith(".toml"):
        raise UsageError(
            f"there is no policy {str(text)!r}, neither by name nor as a file. {did_you_mean(str(text), NAMED)} "
            "`onnxptq check MODEL --init` writes a file."
        )
    return load_policy(path)
