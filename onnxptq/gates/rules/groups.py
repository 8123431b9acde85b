"""Rules about groups that the policy names. They share the policy's error rate like all others."""

from __future__ import annotations

from onnxptq.evaluation.paired import Paired, measure_named
from onnxptq.evaluation.statistics import exceedance_p_values
from onnxptq.gates.claims import Claim
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import GroupAccuracy, GroupDrop, GroupScore, Policy, tolerated
from onnxptq.gates.rules._common import drop_of, loses, named_rows, percent, points, scored, share_of, too_few
from onnxptq.gates.rules._registry import Finding, rule

_REPAIR = "`onnxptq evaluate --group` shows it beside the others. Put samples like these into the calibration set."


@rule("group_drop", "predictions", "reference", "labels")
def judge_group_drop(tables: tuple[GroupDrop, ...], policy: Policy, evidence: Evidence) -> list[Finding]:
    """The drop of each named group, with the exact p-value of "it loses at most the limit" and Tango's bounds."""
    pairing = evidence.pairing
    assert pairing is not None
    results: list[Finding] = []
    for table in tables:
        rows = named_rows(pairing, table.group)
        found = drop_of(pairing, rows, policy)
        if found.sources < policy.samples.minimum:
            results.append(too_few("group_drop", table.group, found, table.limit, policy, "drop"))
            continue
        p = float(exceedance_p_values(pairing.over(rows, pairing.lost), table.limit)[0])
        results.append(
            Claim(
                "group_drop",
                found,
                table.limit,
                tolerated(table),
                table.mode,
                f"the group {loses(found.value)} (p = {p:.2g} that it loses at most {points(table.limit)})",
                _REPAIR,
                "in this group",
                group=table.group,
                unit="drop",
                p_value=p,
            )
        )
    return results


@rule("group_accuracy", "predictions", "labels")
def judge_group_accuracy(tables: tuple[GroupAccuracy, ...], policy: Policy, evidence: Evidence) -> list[Finding]:
    """The accuracy of each named group, with Wilson's bounds."""
    assert evidence.pairing is not None
    return [_floor("group_accuracy", table, evidence.pairing, policy) for table in tables]


@rule("group_score", "predictions", "labels")
def judge_group_score(tables: tuple[GroupScore, ...], policy: Policy, evidence: Evidence) -> list[Finding]:
    """The mean score of each named group, of any measure of the task."""
    assert evidence.predictions is not None
    results = []
    for table in tables:
        measure = measure_named(evidence.predictions, table.score or policy.score)
        results.append(_floor("group_score", table, scored(evidence, measure), policy))
    return results


def _floor(name: str, table: GroupAccuracy | GroupScore, pairing: Paired, policy: Policy) -> Finding:
    """That the mean score of a named group is at least the limit."""
    found = share_of(pairing.over(named_rows(pairing, table.group), pairing.after), policy, floor=True)
    if found.sources < policy.samples.minimum:
        return too_few(name, table.group, found, table.limit, policy, "fraction")
    measure = pairing.measure.name
    return Claim(
        name,
        found,
        table.limit,
        tolerated(table),
        table.mode,
        f"the group's {measure} is {percent(found.value)}; the floor is {percent(table.limit)}",
        _REPAIR,
        f"{measure} in this group",
        group=table.group,
        floor=True,
    )
