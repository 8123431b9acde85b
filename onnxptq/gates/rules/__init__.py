"""The rules, one family a file. A rule reads its table of the policy and the evidence, and says what it finds. No rule
runs a model. A new rule is a table with a field in `Policy`, and a module here that registers a function for it.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace

from onnxptq.evaluation.sanity import why_not_worth_judging
from onnxptq.gates.claims import Claim, judge_claims
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, RegressionRule
from onnxptq.gates.rules._registry import RULES, Finding, Need, PolicyRule, needs, rule, rules_on, unanswered
from onnxptq.gates.verdict import RuleResult, Verdict

for _module in pkgutil.iter_modules(__path__):
    if not _module.name.startswith("_"):
        importlib.import_module(f"{__name__}.{_module.name}")

__all__ = ["RULES", "Finding", "Need", "PolicyRule", "judge", "needs", "rule", "rules_on"]


_BETTER_DATA = "Check the data and how it is read; what INT8 does cannot be told from it."


def judge(policy: Policy, evidence: Evidence) -> tuple[RuleResult, ...]:
    """The results of all rules of a policy, in the order of its fields. Claims about samples share one error rate.

    Raises:
        UsageError: the policy names a group or a provider that there is not.
    """
    if evidence.baseline is not None and policy.regression is None:
        policy = replace(policy, regression=RegressionRule())
    found: list[Finding] = []
    why_not = _why_not_judged_on(evidence)
    for one, table in rules_on(policy):
        if (cannot := unanswered(one, table, evidence)) is not None:
            found.append(cannot)
            continue
        judged_by_it = one.judge(table, policy, evidence)  # A name that there is not is refused whatever the data is.
        if why_not and "predictions" in one.needs_of(table):
            judged_by_it = [RuleResult(one.name, Verdict.UNDECIDED, why_not, _BETTER_DATA)]
        found += judged_by_it
    judged = iter(judge_claims([one for one in found if isinstance(one, Claim)], policy.confidence))
    return tuple(next(judged) if isinstance(one, Claim) else one for one in found)


def _why_not_judged_on(evidence: Evidence) -> str | None:
    """Why no rule can be judged on these samples: what the reference says of them tells nothing."""
    reference, judged = evidence.reference_predictions, evidence.predictions
    if reference is None or judged is None or reference.identity["model"] == judged.identity["model"]:
        return None
    return why_not_worth_judging(reference)
