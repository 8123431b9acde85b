"""What rules share: estimates, words for numbers, and results for what cannot be judged."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from onnxptq.errors import UsageError, did_you_mean
from onnxptq.evaluation.measures import Measure
from onnxptq.evaluation.paired import Paired, Rows, paired
from onnxptq.evaluation.statistics import (
    CrossfitDrop,
    SourceSums,
    crossfit_drop,
    drop_interval,
    mean_interval,
)
from onnxptq.gates.claims import Estimate
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.verdict import RuleResult, Unit, Verdict, shown

_NAMED = 5
"""Groups that a sentence names before it says how many more there are."""


def both_sides(confidence: float) -> float:
    """The two-sided confidence of an interval, each end of which holds alone with `confidence`."""
    return 2.0 * confidence - 1.0


def scored(evidence: Evidence, measure: Measure) -> Paired:
    """Both models by another measure than the policy's, over the same rows and groups."""
    assert evidence.pairing is not None
    if measure == evidence.pairing.measure:
        return evidence.pairing
    assert evidence.reference_predictions is not None and evidence.predictions is not None
    return paired(evidence.reference_predictions, evidence.predictions, measure, layout=evidence.pairing.groups)


def drop_of(pairing: Paired, rows: Rows, policy: Policy) -> Estimate:
    """The mean of `lost` over rows, with the bounds of `drop_interval`."""
    sums = pairing.over(rows, pairing.lost)

    def bounds(confidence: float) -> tuple[float, float]:
        low, high = drop_interval(sums, both_sides(confidence))
        return float(low[0]), float(high[0])

    value = float(sums.group_means[0])
    spread = bounds(policy.confidence)[1] - value
    return Estimate(value, bounds, int(sums.group_rows[0]), int(sums.group_sources[0]), spread)


def share_of(sums: SourceSums, policy: Policy, *, floor: bool = False) -> Estimate:
    """The mean of a value from 0 to 1 over the only group of `sums`, with the bounds of `mean_interval`.

    Args:
        sums: of one group.
        policy: its confidence.
        floor: the value has to be large, so that its lower bound is the one that a pass is about.
    """

    def bounds(confidence: float) -> tuple[float, float]:
        low, high = mean_interval(sums, both_sides(confidence))
        return float(low[0]), float(high[0])

    value = float(sums.group_means[0])
    low, high = bounds(policy.confidence)
    spread = value - low if floor else high - value
    return Estimate(value, bounds, int(sums.group_rows[0]), int(sums.group_sources[0]), spread)


def eligible_groups(sums: SourceSums, policy: Policy) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """bool, (G,): groups with the sources that it takes to be judged."""
    return sums.group_sources >= policy.samples.minimum


def worst_group(
    pairing: Paired, sums: SourceSums, policy: Policy, *, share: bool = False
) -> tuple[Estimate, str] | None:
    """The worst group and what it loses, or None where no group can be judged.

    The lower bound is that of the cross-fitted value. The upper bound is the largest upper bound of a group: it bounds
    the worst group whatever their number, because the worst group is one of them (docs/statistics.md).

    Args:
        pairing: names the groups.
        sums: drops or flips of each group.
        policy: confidence and minimum samples.
        share: the value is a share (flips), never below 0.
    """
    eligible = eligible_groups(sums, policy)
    fitted: CrossfitDrop = crossfit_drop(sums, eligible=eligible)
    if not eligible.any() or np.isnan(fitted.value):
        return None
    interval = mean_interval if share else drop_interval

    def bounds(confidence: float) -> tuple[float, float]:
        low = fitted.lower_bound(confidence)
        return max(low, 0.0) if share else low, float(interval(sums, both_sides(confidence))[1][eligible].max())

    upper = np.where(eligible, interval(sums, both_sides(policy.confidence))[1], -np.inf)
    number, widest = int(fitted.chosen.argmax()), int(upper.argmax())
    found = Estimate(
        fitted.value,
        bounds,
        int(sums.group_rows[number]),
        int(sums.group_sources[number]),
        float(upper[widest] - sums.group_means[widest]),
        int(eligible.sum()),
        pairing.names[widest],
    )
    return found, pairing.names[number]


def no_group(name: str, policy: Policy, limit: float, unit: Unit) -> RuleResult:
    """A rule about the worst group where no group can be judged."""
    return RuleResult(
        name,
        Verdict.UNDECIDED,
        f"no group has the {policy.samples.minimum} original samples that it takes to be judged",
        "Evaluate on more samples, or group by fewer columns (group_by).",
        limit=limit,
        unit=unit,
        samples_to_decide=policy.samples.minimum,
    )


def too_few(rule: str, group: str | None, found: Estimate, limit: float, policy: Policy, unit: Unit) -> RuleResult:
    """Fewer sources than the policy asks for."""
    low, high = found.bounds(policy.confidence)
    return RuleResult(
        rule,
        Verdict.UNDECIDED,
        f"{found.sources} original samples are too few to judge; the policy asks for {policy.samples.minimum}",
        "Evaluate on more samples of this group." if group else "Evaluate on more samples.",
        group,
        found.value,
        low,
        high,
        limit,
        None,
        found.n,
        found.sources,
        unit,
        samples_to_decide=policy.samples.minimum,
    )


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


def points(value: float) -> str:
    """A difference of fractions in points: "8.5 points"."""
    return shown(value, "drop")


def loses(value: float) -> str:
    """A drop as a verb: "loses 8.5 points", "gains 0.4 points"."""
    text = points(value)
    return f"gains {text[1:]}" if text.startswith("-") else f"loses {text}"


def percent(value: float) -> str:
    """A fraction in percent."""
    return shown(value, "fraction")


def listed(names: Sequence[str]) -> str:
    """Names in a sentence, cut after a few."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
