"""Claims about samples, judged together: each has a limit that must not be surely exceeded, and a tolerance within
which all that the samples cannot rule out must lie.

**One error rate for a policy.** The claims that fail only where harm is likely are tests of one family: a model that
keeps all limits fails any of them with probability 1 - confidence at most (Holm 1979, Scand. J. Stat. 6:65, by interval
ends, so that it holds for any interval). **No correction on the other side**: a policy passes where every claim
passes, so a model that is worse than the tolerance of one claim must slip through that one (Berger 1982, Technometrics
24:295); the same holds for the largest upper bound of many groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

from onnxptq.gates.policy import Mode
from onnxptq.gates.verdict import RuleResult, Unit, Verdict, shown

Bounds = Callable[[float], tuple[float, float]]
"""One-sided lower and upper bounds of a value, each of which holds alone with this confidence."""

_DECIDED = 0.8
"""How often the number of samples that is asked for shall decide, if the loss is what was measured."""

_MOST = 1_000_000
"""Samples beyond which a number is of no use to anybody."""


@dataclass(frozen=True)
class Estimate:
    """A value of some samples, and what they leave possible.

    Attributes:
        value: what was measured.
        bounds: one-sided bounds of it at a confidence.
        n, sources: samples, and original samples behind them, of one group where `groups` are judged together.
        spread: how far the upper bound lies above the value at the confidence of the policy; of the group with the
            largest upper bound where `groups` are judged together.
        groups: how many groups the upper bound is the largest of.
        widest: the group with the largest upper bound, where there are several.
    """

    value: float
    bounds: Bounds
    n: int
    sources: int
    spread: float
    groups: int = 1
    widest: str | None = None


@dataclass(frozen=True)
class Claim:
    """That a value of some samples keeps a limit.

    Attributes:
        rule: its name, as in the policy.
        found: the value.
        limit, tolerance, mode: of the rule; see `Tolerant`.
        explanation: what was found, in a sentence.
        repair: what to do where it fails.
        about: what a loss that cannot be ruled out would be in: "on average", "in the worst group".
        group: the group that it is about, or None.
        unit: of the numbers.
        floor: the value must be at least the limit, instead of at most.
        p_value: of "the value is at most the limit", where a test is more exact than the lower bound; None uses that.
    """

    rule: str
    found: Estimate
    limit: float
    tolerance: float
    mode: Mode
    explanation: str
    repair: str
    about: str
    group: str | None = None
    unit: Unit = "fraction"
    floor: bool = False
    p_value: float | None = None

    def surely_broken(self, confidence: float) -> bool:
        """Whether the limit is exceeded with this confidence."""
        if self.p_value is not None:
            return self.p_value <= 1.0 - confidence
        low, high = self.found.bounds(confidence)
        return high < self.limit if self.floor else low > self.limit


def judge_claims(claims: Sequence[Claim], confidence: float) -> list[RuleResult]:
    """The results of claims, in their order.

    Args:
        claims: all of a policy, since they share one error rate.
        confidence: that a model which keeps all limits does not fail, and that one which exceeds a tolerance does not
            pass.
    """
    levels = _shared_levels(claims, confidence)
    return [_judged(claim, level, confidence) for claim, level in zip(claims, levels, strict=True)]


def _shared_levels(claims: Sequence[Claim], confidence: float) -> list[float]:
    """The confidence at which the limit of each claim is tested (Holm, step-down)."""
    levels = [confidence] * len(claims)
    standing = [number for number, claim in enumerate(claims) if claim.mode == "fail-if-likely"]
    while standing:
        level = 1.0 - (1.0 - confidence) / len(standing)
        for number in standing:
            levels[number] = level
        kept = [number for number in standing if not claims[number].surely_broken(level)]
        if len(kept) == len(standing):
            break
        standing = kept
    return levels


def _judged(claim: Claim, level: float, confidence: float) -> RuleResult:
    found, sign = claim.found, -1.0 if claim.floor else 1.0
    tested, ruled_out = found.bounds(level), found.bounds(confidence)
    # The end that a failure is about is that of the shared error rate, the end that a pass is about is not corrected.
    low, high = (ruled_out[0], tested[1]) if claim.floor else (tested[0], ruled_out[1])
    result = RuleResult(
        claim.rule,
        Verdict.UNDECIDED,
        claim.explanation,
        group=claim.group,
        value=found.value,
        low=low,
        high=high,
        limit=claim.limit,
        mode=claim.mode,
        n=found.n,
        sources=found.sources,
        unit=claim.unit,
        tolerance=claim.tolerance,
    )
    worst = low if claim.floor else high
    if math.isnan(found.value) or math.isnan(worst):
        return replace(result, next_step="Evaluate on more samples.")
    broken = {
        "fail-if-likely": claim.surely_broken(level),
        "fail-if-possible": sign * worst > sign * claim.limit,
        "point": sign * found.value > sign * claim.limit,
    }[claim.mode]
    if broken:
        return replace(result, verdict=Verdict.FAILED, next_step=claim.repair)
    possible = _possible(claim, worst)
    if sign * worst <= sign * claim.tolerance:
        said = f"{possible}, with {100 * confidence:g} % confidence"
        return replace(result, verdict=Verdict.PASSED, ruled_out=said)
    needed = samples_to_decide(claim, confidence)
    return replace(
        result, explanation=_undecided(claim, worst), next_step=_more(claim, needed), samples_to_decide=needed
    )


def _possible(claim: Claim, worst: float) -> str:
    """What cannot be ruled out, in words: the largest loss, or the least gain where even that is none."""
    if claim.floor:
        return f"at least {shown(worst, claim.unit)} {claim.about}"
    if claim.unit == "drop" and shown(worst, "drop").startswith("-"):
        return f"a gain of at least {shown(-worst, 'drop')} {claim.about}"
    return f"at most {shown(worst, claim.unit)} {claim.about}"


def _undecided(claim: Claim, worst: float) -> str:
    where = f" (in {claim.found.widest})" if claim.found.widest else ""
    return (
        f"{claim.explanation}; {shown(worst, claim.unit)} {claim.about} cannot be ruled out{where}, and "
        f"{shown(claim.tolerance, claim.unit)} is tolerated"
    )


def _more(claim: Claim, needed: int | None) -> str:
    if claim.unit == "ratio":
        return "Measure again on a machine that does nothing else."
    each = " a group" if claim.found.groups > 1 else " of this group" if claim.group else ""
    if needed is None:
        return f"What was measured lies at the tolerance: no number of original samples{each} is likely to decide."
    return (
        f"Evaluate on about {needed} original samples{each}: that decides in 8 of 10 cases if the truth is what was "
        "measured. A larger tolerance in the policy needs fewer."
    )


def samples_to_decide(claim: Claim, confidence: float) -> int | None:
    """About how many original samples (of each group) would decide, were the value what was measured.

    Bounds come closer with the root of the number of samples. What is added is the chance that the next draw lies less
    well, in any of the groups. Two digits; None beyond a million.
    """
    found, sign = claim.found, -1.0 if claim.floor else 1.0
    normal = NormalDist()
    z = normal.inv_cdf(confidence)
    numbers: list[float] = []
    for distance, groups in (
        (sign * (claim.tolerance - found.value), found.groups),
        (sign * (found.value - claim.limit), 1),
    ):
        if distance > 0:
            reach = found.spread * (1.0 + normal.inv_cdf(_DECIDED ** (1.0 / groups)) / z)
            numbers.append(found.sources * (reach / distance) ** 2)
    needed = min(numbers, default=math.inf)
    if not needed <= _MOST:
        return None
    unit: int = 10 ** max(0, len(str(int(needed))) - 2)
    return max(math.ceil(needed / unit) * unit, found.sources + 1)
