"""Regression: the drop of the average and of the worst group against the baseline's model, row by row."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, RegressionRule
from onnxptq.gates.rules._common import not_judged
from onnxptq.gates.rules._registry import Finding, rule
from onnxptq.gates.rules.drops import average_drop, worst_group_drop


@rule("regression", "predictions", "all groups")
def judge_regression(table: RegressionRule, policy: Policy, evidence: Evidence) -> list[Finding]:
    """Two results, where there is a baseline. Without labels the outcome of a row is agreement with the reference."""
    assert evidence.pairing is not None
    if evidence.baseline is None:
        return [not_judged("regression", "no baseline was given", "Give --baseline FILE.")]
    pairing = replace(evidence.pairing, before=evidence.baseline.scores.astype(np.float64))
    return [
        average_drop("regression (average)", pairing, policy, table),
        worst_group_drop("regression (worst group)", pairing, policy, table),
    ]
