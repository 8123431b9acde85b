"""The drop of totals: numbers of the whole data set that are no means of samples."""

from __future__ import annotations

from onnxptq.errors import did_you_mean
from onnxptq.gates.claims import Claim, Estimate
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, TotalDropRule, tolerated
from onnxptq.gates.rules._common import not_judged, too_few
from onnxptq.gates.rules._registry import Finding, rule

_REPAIR = (
    "`onnxptq evaluate` shows it beside the groups. Calibrate on data like that which is deployed (--calib clean), or "
    "with another --method (onnxptq methods)."
)


@rule("total_drop", "predictions", "reference")
def judge_total_drop(tables: tuple[TotalDropRule, ...], policy: Policy, evidence: Evidence) -> list[Finding]:
    """The drop of each named total, with the bounds of the jackknife."""
    results: list[Finding] = []
    for table in tables:
        total = evidence.totals.get(table.total)
        if total is None:
            known = did_you_mean(table.total, list(evidence.totals)) if evidence.totals else "The task has no totals."
            results.append(not_judged("total_drop", f"there is no total {table.total!r}", known))
            continue
        spread = total.bounds(policy.confidence)[1] - total.drop
        found = Estimate(total.drop, total.bounds, total.n, total.sources, spread)
        if found.sources < policy.samples.minimum:
            results.append(too_few("total_drop", None, found, table.limit, policy, "drop"))
            continue
        factor, places = (100, "1f") if total.share else (1, "4g")
        results.append(
            Claim(
                "total_drop",
                found,
                table.limit,
                tolerated(table),
                table.mode,
                f"{total.name} goes from {factor * total.before:.{places}} to {factor * total.after:.{places}}",
                _REPAIR,
                f"of {total.name}",
                unit="drop",
            )
        )
    return results
