"""The registry of rules: each says which table of the policy turns it on, and what it needs to be known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from onnxptq.gates.claims import Claim
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.verdict import RuleResult, Verdict

Need = Literal["model", "reference", "predictions", "labels", "flips", "all groups", "latency", "placement"]
"""What a rule needs: the file that is judged; the FP32 model; predictions; labels; answers that are equal or
different; groups that are all judged; measured
latency; where the nodes of the graph were placed."""

Finding = Claim | RuleResult
"""What a rule says: a claim about samples, which is judged beside those of the other rules, or a result."""

Judge = Callable[[Any, Policy, Evidence], list[Finding]]
F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True)
class PolicyRule:
    """A rule.

    Attributes:
        name: the field of `Policy` that turns it on.
        needs: what it always needs.
        also: what it needs besides, told from its table.
        judge: what it finds, from its table (or tables), the policy and the evidence; it is only called where what it
            needs is known.
    """

    name: str
    needs: frozenset[Need]
    also: Callable[[Any], Iterable[Need]]
    judge: Judge

    def needs_of(self, table: Any) -> frozenset[Need]:
        """All that it needs."""
        return self.needs | frozenset(self.also(table))


RULES: dict[str, PolicyRule] = {}
"""By name, filled when the modules of rules are imported."""


def _nothing(table: Any) -> Iterable[Need]:
    return ()


def rule(name: str, *needs: Need, also: Callable[[Any], Iterable[Need]] = _nothing) -> Callable[[F], F]:
    """Registers a function as the rule of the field `name` of `Policy`."""

    def register(judge: F) -> F:
        RULES[name] = PolicyRule(name, frozenset(needs), also, judge)
        return judge

    return register


def rules_on(policy: Policy) -> Iterator[tuple[PolicyRule, Any]]:
    """The rules that a policy asks for, with their tables, in the order in which results are shown."""
    for field in fields(policy):
        table = getattr(policy, field.name)
        if field.name in RULES and table not in (None, ()):
            yield RULES[field.name], table


def needs(policy: Policy) -> frozenset[Need]:
    """What the rules of a policy need."""
    return frozenset[Need]().union(*(rule.needs_of(table) for rule, table in rules_on(policy)))


def unanswered(rule: PolicyRule, table: Any, evidence: Evidence) -> RuleResult | None:
    """What is said of a rule where something that it needs is not known; None where it can be judged."""
    wanted = rule.needs_of(table)
    for need, known, why, next_step in (
        ("predictions", evidence.pairing is not None, "there are no predictions", "Give --data or --predictions."),
        (
            "model",
            evidence.model is not None,
            "predictions do not hold the model file",
            "Give MODEL beside --predictions.",
        ),
        (
            "latency",
            evidence.latency is not None,
            "no latency was measured: predictions do not tell it",
            "Check the model itself, without --predictions.",
        ),
        (
            "placement",
            evidence.placement_known,
            "no session was opened: predictions do not tell where nodes ran",
            "Check the model itself, without --predictions.",
        ),
    ):
        if need in wanted and not known:
            return RuleResult(rule.name, Verdict.NOT_JUDGED, why, next_step)
    if "flips" in wanted and evidence.pairing is not None and evidence.pairing.changed is None:
        why = "the answers of this task cannot be called equal or different, so there are no flips"
        return RuleResult(rule.name, Verdict.NOT_JUDGED, why, "Use rules about the drop of the score.")
    if "labels" in wanted and evidence.pairing is not None and not evidence.pairing.labelled:
        return RuleResult(
            rule.name,
            Verdict.UNDECIDED,
            "the data has no labels, so accuracy is not known",
            "Give labelled data (--label-column), or use the rules flip_rate and worst_group_flip_rate.",
        )
    return None
