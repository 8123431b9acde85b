"""What rules share: bounds, words for numbers, and results for what cannot be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from onnxptq.errors import UsageError, did_you_mean
from onnxptq.evaluation.paired import Paired, Rows
from onnxptq.evaluation.statistics import (
    CrossfitDrop,
    SourceSums,
    crossfit_drop,
    drop_interval,
    proportion_interval,
)
from onnxptq.gates.policy import Mode, Policy
from onnxptq.gates.verdict import RuleResult, Unit, Verdict

_NAMED = 5
"""Groups that a sentence names before it says how many more there are."""


def both_sides(confidence: float) -> float:
    """The two-sided confidence of an interval, each end of which holds alone with `confidence`."""
    return 2.0 * confidence - 1.0


@dataclass(frozen=True)
class Estimate:
    """A value of some samples and its one-sided bounds."""

    value: float
    low: float
    high: float
    n: int
    sources: int

    def result(
        self,
        rule: str,
        verdict: Verdict,
        explanation: str,
        repair: str,
        limit: float,
        mode: Mode,
        group: str | None = None,
        unit: Unit = "fraction",
    ) -> RuleResult:
        """What a rule says of it; `repair` is what to do where it failed."""
        next_step = repair if verdict is Verdict.FAILED else ""
        measured = (self.value, self.low, self.high, limit, mode, self.n, self.sources, unit)
        return RuleResult(rule, verdict, explanation, next_step, group, *measured)


def drop_of(pairing: Paired, rows: Rows, confidence: float) -> Estimate:
    """The mean of `lost` over rows, with Tango's bounds."""
    sums = pairing.over(rows, pairing.lost)
    low, high = drop_interval(sums, both_sides(confidence))
    return _estimate(sums, float(low[0]), float(high[0]))


def share_of(sums: SourceSums, confidence: float) -> Estimate:
    """The mean of a value that is 0 or 1 over the only group of `sums`, with Wilson's bounds."""
    low, high = proportion_interval(sums, both_sides(confidence))
    return _estimate(sums, float(low[0]), float(high[0]))


def _estimate(sums: SourceSums, low: float, high: float) -> Estimate:
    value = float(sums.group_means[0])
    return Estimate(value, low, high, int(sums.group_rows[0]), int(sums.group_sources[0]))


def eligible_groups(sums: SourceSums, policy: Policy) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """bool, (G,): groups with the sources that it takes to be judged."""
    return sums.group_sources >= policy.samples.minimum


@dataclass(frozen=True)
class Worst:
    """The worst group.

    Attributes:
        estimate: cross-fitted value; its lower bound; the largest upper bound of a group.
        group: the one that was chosen most often.
        number: of that group.
    """

    estimate: Estimate
    group: str
    number: int


def worst_group(pairing: Paired, sums: SourceSums, upper: Sequence[float], policy: Policy) -> Worst | None:
    """The worst group of `sums`, or None where no group can be judged.

    Args:
        pairing: names the groups.
        sums: drops or flips of each group.
        upper: the upper bound of each group. The largest one bounds the worst group whatever their number, because
            the worst group is one of them (docs/statistics.md).
        policy: confidence and minimum samples.
    """
    eligible = eligible_groups(sums, policy)
    fitted: CrossfitDrop = crossfit_drop(sums, eligible=eligible)
    if not eligible.any() or np.isnan(fitted.value):
        return None
    number = int(fitted.chosen.argmax())
    estimate = Estimate(
        fitted.value,
        fitted.lower_bound(policy.confidence),
        float(np.asarray(upper)[eligible].max()),
        int(sums.group_rows[number]),
        int(sums.group_sources[number]),
    )
    return Worst(estimate, pairing.names[number], number)


def named_rows(pairing: Paired, group: str) -> Rows:
    """The rows of a group that a policy names, "label=cat*corruption=fog@3".

    Raises:
        UsageError: no such column or value in the data, with the closest ones.
    """
    columns = pairing.groups.columns
    chosen = np.ones(len(pairing), dtype=np.bool_)
    for part in group.split("*"):
        column, equals, value = (text.strip() for text in part.partition("="))
        if not equals:
            raise UsageError(f'the policy names the group {group!r}; expected column=value, as in "label=cat".')
        if column not in columns:
            raise UsageError(
                f"the policy names the group {group!r}, but the data has no column {column!r}. "
                f"{did_you_mean(column, columns)}"
            )
        if not (matching := columns[column] == value).any():
            values = np.unique(columns[column]).tolist()
            raise UsageError(
                f"the policy names the group {group!r}, but no sample has {column}={value}. "
                f"{did_you_mean(value, values)}"
            )
        chosen &= matching
    if not chosen.any():
        raise UsageError(f"the policy names the group {group!r}, but no sample is in it. Leave the rule out.")
    return np.flatnonzero(chosen)


def not_judged(rule: str, why: str, next_step: str) -> RuleResult:
    """A rule that what was given cannot answer."""
    return RuleResult(rule, Verdict.NOT_JUDGED, why, next_step)


def no_predictions(rule: str) -> RuleResult:
    """A rule about predictions where there are none."""
    return not_judged(rule, "there are no predictions", "Give --data or --predictions.")


def no_flips(rule: str) -> RuleResult:
    """A rule about flips where answers are numbers, vectors or images, which differ in every last bit."""
    why = "the answers of this task cannot be called equal or different, so there are no flips"
    return not_judged(rule, why, "Use rules about the drop of the score.")


def no_labels(rule: str) -> RuleResult:
    """A rule about accuracy where the data has no labels."""
    return RuleResult(
        rule,
        Verdict.UNDECIDED,
        "the data has no labels, so accuracy is not known",
        "Give labelled data (--label-column), or use the rules flip_rate and worst_group_flip_rate.",
    )


def too_few(rule: str, group: str | None, found: Estimate, limit: float, policy: Policy) -> RuleResult:
    """A group with fewer sources than the policy asks for."""
    return RuleResult(
        rule,
        Verdict.UNDECIDED,
        f"{found.sources} original samples are too few to judge; the policy asks for {policy.samples.minimum}",
        "Evaluate on more samples of this group.",
        group,
        found.value,
        found.low,
        found.high,
        limit,
        None,
        found.n,
        found.sources,
    )


def points(value: float) -> str:
    """A difference of fractions in points: "8.5 points"."""
    return f"{_rounded(100 * value)} points"


def percent(value: float) -> str:
    """A fraction in percent."""
    return f"{_rounded(100 * value)} %"


def _rounded(value: float) -> str:
    """One decimal; what rounds to nothing has no sign."""
    text = f"{value:.1f}"
    return "0.0" if text == "-0.0" else text


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, cut after a few."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
