"""The rules, one family a file. A rule reads the policy and the evidence and says what it thinks, for each of its
parts: a list of results, empty where the policy does not ask for it. No rule runs a model.
"""

from __future__ import annotations

from collections.abc import Callable

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules.agreement import judge_provider_agreement
from onnxptq.gates.rules.drops import judge_average_drop, judge_worst_group_drop
from onnxptq.gates.rules.flips import judge_flip_rate, judge_worst_group_flip_rate
from onnxptq.gates.rules.graph import judge_graph
from onnxptq.gates.rules.groups import judge_group_accuracy, judge_group_drop
from onnxptq.gates.rules.latency import judge_latency
from onnxptq.gates.rules.lint import judge_lint
from onnxptq.gates.rules.placement import judge_placement
from onnxptq.gates.rules.provenance import judge_provenance
from onnxptq.gates.rules.regression import judge_regression
from onnxptq.gates.rules.samples import judge_samples
from onnxptq.gates.rules.size import judge_size
from onnxptq.gates.verdict import RuleResult

Rule = Callable[[Policy, Evidence], list[RuleResult]]

RULES: tuple[Rule, ...] = (
    judge_samples,
    judge_average_drop,
    judge_worst_group_drop,
    judge_group_drop,
    judge_group_accuracy,
    judge_flip_rate,
    judge_worst_group_flip_rate,
    judge_provider_agreement,
    judge_regression,
    judge_latency,
    judge_size,
    judge_placement,
    judge_lint,
    judge_provenance,
    judge_graph,
)
"""In the order in which results are shown."""

__all__ = ["RULES", "Rule", "judge"]


def judge(policy: Policy, evidence: Evidence) -> tuple[RuleResult, ...]:
    """The results of all rules of a policy.

    Raises:
        UsageError: the policy names a group or a provider that there is not.
    """
    return tuple(result for rule in RULES for result in rule(policy, evidence))
