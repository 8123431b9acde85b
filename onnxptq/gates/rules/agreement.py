"""Agreement between execution providers: does the model predict the same wherever it runs?"""

from __future__ import annotations

import numpy as np

from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy
from onnxptq.gates.rules._common import no_predictions, not_judged, percent, share_of, too_few
from onnxptq.gates.verdict import RuleResult, at_least

_REPAIR = "Deploy on the provider that was judged, or judge on the one that is deployed (--ep)."


def judge_provider_agreement(policy: Policy, evidence: Evidence) -> list[RuleResult]:
    """For each named provider the share of samples on which it predicts what the judged one does."""
    rule = policy.provider_agreement
    if rule is None:
        return []
    if evidence.predictions is None or evidence.pairing is None:
        return [no_predictions("provider_agreement")]
    own = evidence.predictions.runtime
    results = []
    for provider in rule.providers:
        if provider == own:
            continue
        other = evidence.by_provider.get(provider)
        if other is None:
            step = "Add a run on it to the file of predictions, or check the model itself."
            results.append(not_judged("provider_agreement", f"there are no predictions on {provider}", step))
            continue
        agree = (other.prediction == evidence.predictions.prediction).astype(np.float64)
        found = share_of(evidence.pairing.over(evidence.pairing.all_rows, agree), policy.confidence)
        if found.sources < policy.samples.minimum:
            results.append(too_few("provider_agreement", None, found, rule.limit, policy))
            continue
        verdict = at_least(found.value, found.low, found.high, rule.limit, rule.mode)
        text = f"{provider} predicts what {own} does on {percent(found.value)} of the samples"
        results.append(found.result("provider_agreement", verdict, text, _REPAIR, rule.limit, rule.mode))
    return results
