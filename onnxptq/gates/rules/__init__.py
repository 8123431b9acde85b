"""The rules, one family a file. A rule reads its table of the policy and the evidence, and says what it finds. No rule
runs a model. A new rule is a table with a field in `Policy`, and a module here that registers a function for it.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace

from onnxptq.gates.claims import Claim, judge_claims
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, Regression
from onnxptq.gates.rules._registry import RULES, Finding, Need, Rule, needs, rule, rules_on, unanswered
from onnxptq.gates.verdict import RuleResult

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["RULES", "Finding", "Need", "Rule", "judge", "needs", "rule"]


def judge(policy: Policy, evidence: Evidence) -> tuple[RuleResult, ...]:
    """The results of all rules of a policy, in the order of its fields. Claims about samples share one error rate.

    Raises:
        UsageError: the policy names a group or a provider that there is not.
    """
    if evidence.baseline is not None and policy.regression is None:
        policy = replace(policy, regression=Regression())
    found: list[Finding] = []
    for one, table in rules_on(policy):
        cannot = unanswered(one, table, evidence)
        found += [cannot] if cannot is not None else one.judge(table, policy, evidence)
    judged = iter(judge_claims([one for one in found if isinstance(one, Claim)], policy.confidence))
    return tuple(next(judged) if isinstance(one, Claim) else one for one in found)
