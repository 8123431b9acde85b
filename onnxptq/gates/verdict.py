"""Verdicts: of one rule, and of all of them."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from onnxptq.errors import EXIT_DONE, EXIT_FAILED, EXIT_UNDECIDED
from onnxptq.gates.policy import Mode

RESULT_VERSION = 1


class Verdict(enum.Enum):
    """What a rule, or all of them, say. A rule is NOT JUDGED where what was given cannot answer it."""

    PASSED = "PASSED"
    FAILED = "FAILED"
    UNDECIDED = "UNDECIDED"
    NOT_JUDGED = "NOT JUDGED"

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 3 undecided."""
        return {Verdict.PASSED: EXIT_DONE, Verdict.FAILED: EXIT_FAILED}.get(self, EXIT_UNDECIDED)


Unit = Literal["drop", "fraction", "ratio", "count"]
"""drop and fraction are both from -1 to 1; a drop is written in points, a fraction in percent."""


@dataclass(frozen=True)
class RuleResult:
    """What one rule says.

    Attributes:
        rule: its name, as in the policy.
        verdict: what it says.
        explanation: what was found, in a sentence.
        next_step: what to do where it has not passed; "" where it has.
        group: the group that it is about, or None.
        value, low, high: what was measured, and its interval: each end a one-sided bound. None where there is none.
        limit: what it was compared with, or None.
        mode: how uncertainty was treated, or None where there is none.
        n, sources: samples, and original samples behind them; None where the rule is not about samples.
        unit: of the numbers.
    """

    rule: str
    verdict: Verdict
    explanation: str
    next_step: str = ""
    group: str | None = None
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    mode: Mode | None = None
    n: int | None = None
    sources: int | None = None
    unit: Unit = "fraction"

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON types; NaN becomes None."""
        values = {**asdict(self), "verdict": self.verdict.value}
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}


@dataclass(frozen=True)
class CheckResult:
    """What a check says.

    Attributes:
        verdict: of all rules.
        rules: one result a rule, in the order of the policy.
        subject: what was judged: names and digests of model, reference and data, provider, versions; JSON types.
        policy: the policy as JSON types.
        command: the command that repeats the check.
        warnings: one line each.
    """

    verdict: Verdict
    rules: tuple[RuleResult, ...]
    subject: Mapping[str, Any]
    policy: Mapping[str, Any]
    command: str
    warnings: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 passed, 1 failed, 3 undecided."""
        return self.verdict.exit_code

    def named(self, *verdicts: Verdict) -> tuple[RuleResult, ...]:
        """The rules with one of these verdicts."""
        return tuple(rule for rule in self.rules if rule.verdict in verdicts)

    def to_dict(self) -> dict[str, Any]:
        """The check as JSON types, with stable keys (docs/check.md). It holds no time and no place."""
        return {
            "check_version": RESULT_VERSION,
            "verdict": self.verdict.value,
            "rules": [rule.to_dict() for rule in self.rules],
            "subject": dict(self.subject),
            "policy": dict(self.policy),
            "command": self.command,
            "warnings": list(self.warnings),
        }


def overall(rules: Iterable[RuleResult]) -> Verdict:
    """FAILED where a rule failed, else UNDECIDED where one is undecided or none was judged, else PASSED."""
    verdicts = {rule.verdict for rule in rules}
    if Verdict.FAILED in verdicts:
        return Verdict.FAILED
    if Verdict.UNDECIDED in verdicts or Verdict.PASSED not in verdicts:
        return Verdict.UNDECIDED
    return Verdict.PASSED


def at_most(value: float, low: float, high: float, limit: float, mode: Mode) -> Verdict:
    """Whether a value that should be at most `limit` passes, as `mode` treats its uncertainty.

    fail-if-likely fails where the interval lies wholly above the limit, fail-if-possible where any of it does, point
    where the value does. What could not be measured (NaN) is undecided.
    """
    deciding = {"fail-if-likely": low, "fail-if-possible": high, "point": value}[mode]
    if math.isnan(deciding):
        return Verdict.UNDECIDED
    return Verdict.FAILED if deciding > limit else Verdict.PASSED


def at_least(value: float, low: float, high: float, limit: float, mode: Mode) -> Verdict:
    """The same for a value that should be at least `limit`."""
    return at_most(-value, -high, -low, -limit, mode)
