"""Minimum samples per group: what cannot be judged is not passed."""

from __future__ import annotations

from dataclasses import replace

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, Samples
from onnxptq.gates.rules._common import eligible_groups, listed
from onnxptq.gates.rules._registry import Finding, needs, rule
from onnxptq.gates.verdict import RuleResult, Verdict


@rule("samples")
def judge_samples(table: Samples, policy: Policy, evidence: Evidence) -> list[Finding]:
    """UNDECIDED where a group of the groupings has too few sources, unless the policy says to ignore such groups.

    Only where a rule looks at all groups: the rules of named groups look at theirs themselves.
    """
    pairing = evidence.pairing
    if evidence.baseline is None:  # Then the rule about the baseline judges no group.
        policy = replace(policy, regression=None)
    if pairing is None or "all groups" not in needs(policy):
        return []
    sums = pairing.by_group(pairing.after)
    eligible = eligible_groups(sums, policy)
    small = [name for name, enough in zip(pairing.names, eligible.tolist(), strict=True) if not enough]
    smallest = int(sums.group_sources.argmin())
    found = RuleResult(
        "samples",
        Verdict.PASSED,
        f"each of {len(pairing.names)} groups has at least {table.minimum} original samples",
        group=pairing.names[smallest],
        value=float(sums.group_sources[smallest]),
        limit=float(table.minimum),
        n=int(sums.group_rows[smallest]),
        sources=int(sums.group_sources[smallest]),
        unit="count",
    )
    if not small:
        return [found]
    text = (
        f"{len(small)} of {len(pairing.names)} groups have fewer than {table.minimum} original samples and "
        f"were not judged: {listed(small)}"
    )
    if table.small_groups == "ignore":
        return [replace(found, explanation=f"{text}; the policy ignores them")]
    step = (
        'Evaluate on more samples of them, group by fewer columns (group_by), or write small_groups = "ignore" in '
        "[samples] to judge the other groups only."
    )
    return [replace(found, verdict=Verdict.UNDECIDED, explanation=text, next_step=step)]
