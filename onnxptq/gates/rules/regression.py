"""Regression: the drop of the average and of the worst group against the baseline's model, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, Regression
from onnxptq.gates.rules._common import no_predictions, not_judged
from onnxptq.gates.rules.drops import average_drop, worst_group_drop
from onnxptq.gates.verdict import RuleResult


def judge_regression(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """Two results, where there is a baseline; the rule's defaults hold where the policy does not name it.

    Without labels the outcome of a row is agreement with the reference.
    """
    if evidence.baseline is None:
        if policy.regression is None:
            return []
        return [not_judged("regression", "no baseline was given", "Give --baseline FILE.")]
    if evidence.pairing is None:
        return [no_predictions("regression")]
    rule = policy.regression or Regression()
    pairing = replace(evidence.pairing, before=evidence.baseline.outcomes.astype(np.float64))
    return [
        average_drop("regression (average)", pairing, policy, rule.limit, rule.mode),
        worst_group_drop("regression (worst group)", pairing, policy, rule.limit, rule.mode),
    ]
