"""Latency as a ratio: FP32 and INT8 took turns on one machine, so the ratio travels better than seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules._common import not_judged
from onnxptq.gates.verdict import RuleResult, Verdict, at_most


def judge_latency(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """The median ratio of the rounds, with the order statistics that bound a median whatever the distribution."""
    rule = policy.latency
    if rule is None:
        return []
    if evidence.latency is None:
        why = "no latency was measured: predictions do not tell it"
        return [not_judged("latency", why, "Check the model itself, without --predictions.")]
    scale, than = 1.0, "FP32"
    if rule.against == "baseline":
        before = evidence.baseline.latency_ratio if evidence.baseline else None
        if before is None:
            step = "Give --baseline FILE, made with this rule in the policy."
            return [not_judged("latency", "the baseline holds no latency", step)]
        scale, than = before, "the baseline"
    ratios = [ratio / scale for ratio in evidence.latency.ratios]
    low, high = median_bounds(ratios, policy.confidence)
    value = statistics.median(ratios)
    verdict = at_most(value, low, high, rule.limit, rule.mode)
    return [
        RuleResult(
            "latency",
            verdict,
            f"on {evidence.latency.provider} the model takes {value:.2f} times as long as {than}",
            "`onnxptq providers` shows whether this CPU has INT8 instructions; `onnxptq lint` what is not fused."
            if verdict is Verdict.FAILED
            else "",
            None,
            value,
            low,
            high,
            rule.limit,
            rule.mode,
            n=len(ratios),
            unit="ratio",
        )
    ]


def median_bounds(values: Sequence[float], confidence: float) -> tuple[float, float]:
    """One-sided bounds of a median from order statistics (David and Nagaraja 2003, Order Statistics, 7.1).

    Of n values the k-th smallest is above the median with probability P(Binomial(n, 1/2) < k).

    Args:
        values: sorted. Too few for the confidence give infinite bounds.
        confidence: of each bound.
    """
    n = len(values)
    tail, k = 0.0, 0
    while k < n:
        tail += math.comb(n, k) / 2**n
        if tail > 1.0 - confidence:
            break
        k += 1
    return (values[k - 1], values[n - k]) if k else (-math.inf, math.inf)
