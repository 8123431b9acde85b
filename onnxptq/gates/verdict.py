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
        tolerance: what must be ruled out for a pass, or None where the rule is not about samples.
        ruled_out: with a pass, the largest loss that is still possible, in words; "" elsewhere.
        samples_to_decide: undecided: about how many original samples (of each group) would decide; None where that is
            not known.
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
    tolerance: float | None = None
    ruled_out: str = ""
    samples_to_decide: int | None = None

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


def shown(value: float, unit: Unit) -> str:
    """A number with its unit: "8.5 points", "12.0 %", "1.25 times"; what rounds to nothing has no sign."""
    if unit == "ratio":
        return f"{value:.2f} times"
    if unit == "count":
        return f"{value:g}"
    text = f"{100 * value:.1f}"
    return f"{'0.0' if text == '-0.0' else text} {'points' if unit == 'drop' else '%'}"
