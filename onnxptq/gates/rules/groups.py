"""Rules about groups that the policy names. Several of one kind are corrected for their number."""

from __future__ import annotations

import numpy as np

from onnxptq.evaluation.statistics import exceedance_p_values, holm
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules._common import (
    drop_of,
    named_rows,
    no_labels,
    no_predictions,
    percent,
    points,
    share_of,
    too_few,
)
from onnxptq.gates.verdict import RuleResult, Verdict, at_least, at_most

_REPAIR = "`onnxptq evaluate --group` shows it beside the others. Put samples like these into the calibration set."


def judge_group_drop(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The drop of each named group.

    fail-if-likely fails where the p-value of "the drop is at most the limit", corrected for the number of named groups
    (Holm), is at most 1 - confidence; the bounds shown are Bonferroni's. fail-if-possible needs no correction: each
    group must pass.
    """
    if not policy.group_drop:
        return []
    pairing = evidence.pairing
    if pairing is None:
        return [no_predictions("group_drop")]
    if not pairing.labelled:
        return [no_labels("group_drop")]
    members = [named_rows(pairing, rule.group) for rule in policy.group_drop]
    drops = [pairing.over(rows, pairing.lost) for rows in members]
    corrected = holm(
        np.array(
            [exceedance_p_values(sums, rule.limit)[0] for sums, rule in zip(drops, policy.group_drop, strict=True)]
        )
    )
    results = []
    for rule, rows, p in zip(policy.group_drop, members, corrected.tolist(), strict=True):
        confidence = corrected_confidence(policy.confidence, len(members))
        possible = drop_of(pairing, rows, policy.confidence)
        found = possible if rule.mode == "fail-if-possible" else drop_of(pairing, rows, confidence)
        if found.sources < policy.samples.minimum:
            results.append(too_few("group_drop", rule.group, found, rule.limit, policy))
            continue
        verdict = at_most(found.value, found.low, found.high, rule.limit, rule.mode)
        if rule.mode == "fail-if-likely":
            verdict = Verdict.FAILED if p <= 1.0 - policy.confidence else Verdict.PASSED
        text = f"the group loses {points(found.value)} (p = {p:.2g} that it loses at most {points(rule.limit)}"
        text += f", corrected for {len(members)} groups)" if len(members) > 1 else ")"
        results.append(
            found.result("group_drop", verdict, text, _REPAIR, rule.limit, rule.mode, group=rule.group, unit="drop")
        )
    return results


def judge_group_accuracy(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The accuracy of each named group, with Wilson's bounds; fail-if-likely corrects them for their number."""
    if not policy.group_accuracy:
        return []
    pairing = evidence.pairing
    if pairing is None:
        return [no_predictions("group_accuracy")]
    if not pairing.labelled:
        return [no_labels("group_accuracy")]
    results = []
    for rule in policy.group_accuracy:
        tests = 1 if rule.mode == "fail-if-possible" else len(policy.group_accuracy)
        sums = pairing.over(named_rows(pairing, rule.group), pairing.after)
        found = share_of(sums, corrected_confidence(policy.confidence, tests))
        if found.sources < policy.samples.minimum:
            results.append(too_few("group_accuracy", rule.group, found, rule.limit, policy))
            continue
        verdict = at_least(found.value, found.low, found.high, rule.limit, rule.mode)
        text = f"the group's accuracy is {percent(found.value)}; the floor is {percent(rule.limit)}"
        results.append(found.result("group_accuracy", verdict, text, _REPAIR, rule.limit, rule.mode, group=rule.group))
    return results


def corrected_confidence(confidence: float, tests: int) -> float:
    """The confidence of one of `tests` bounds that shall all hold together (Bonferroni)."""
    return 1.0 - (1.0 - confidence) / tests
