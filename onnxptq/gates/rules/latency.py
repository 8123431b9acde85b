"""Latency as a ratio: FP32 and INT8 took turns on one machine, so the ratio travels better than seconds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from onnxptq.gates.claims import Claim, Estimate
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import LatencyRule, Policy, tolerated
from onnxptq.gates.rules._common import not_judged
from onnxptq.gates.rules._registry import Finding, rule

_REPAIR = "`onnxptq providers` shows whether this CPU has INT8 instructions; `onnxptq lint` what is not fused."


# The baseline's latency is a ratio to FP32 itself: seconds of another machine say nothing.
@rule("latency", "latency", "reference")
def judge_latency(table: LatencyRule, policy: Policy, evidence: Evidence) -> list[Finding]:
    """The median ratio of the rounds, with the order statistics that bound a median whatever the distribution."""
    assert evidence.latency is not None
    scale, than = 1.0, "FP32"
    if table.against == "baseline":
        before = evidence.baseline.latency_ratio if evidence.baseline else None
        if before is None:
            step = "Give --baseline FILE, made with this rule in the policy."
            return [not_judged("latency", "the baseline holds no latency", step)]
        scale, than = before, "the baseline"
    ratios = [ratio / scale for ratio in evidence.latency.ratios]
    value = statistics.median(ratios)

    def bounds(confidence: float) -> tuple[float, float]:
        return median_bounds(ratios, confidence)

    spread = bounds(policy.confidence)[1] - value
    found = Estimate(value, bounds, len(ratios), len(ratios), spread)
    text = f"on {evidence.latency.provider} the model takes {value:.2f} times as long as {than}"
    tolerance = tolerated(table)
    about = f"as long as {than}"
    return [Claim("latency", found, table.limit, tolerance, table.mode, text, _REPAIR, about, unit="ratio")]


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
