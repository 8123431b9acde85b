"""Agreement between execution providers: does the model predict the same wherever it runs?"""

from __future__ import annotations

from onnxptq.evaluation.measures import kind_of
from onnxptq.evaluation.paired import scores_of
from onnxptq.gates.claims import Claim
from onnxptq.gates.evidence import Evidence
from onnxptq.gates.policy import Policy, ProviderAgreement, tolerated
from onnxptq.gates.rules._common import not_judged, percent, share_of, too_few
from onnxptq.gates.rules._registry import Finding, rule

_REPAIR = "Deploy on the provider that was judged, or judge on the one that is deployed (--ep)."


@rule("provider_agreement", "predictions")
def judge_provider_agreement(table: ProviderAgreement, policy: Policy, evidence: Evidence) -> list[Finding]:
    """For each named provider the share of samples on which it predicts what the judged one does."""
    assert evidence.predictions is not None and evidence.pairing is not None
    own = evidence.predictions.runtime
    results: list[Finding] = []
    for provider in table.providers:
        if provider == own:
            continue
        other = evidence.by_provider.get(provider)
        if other is None:
            step = "Add a run on it to the file of predictions, or check the model itself."
            results.append(not_judged("provider_agreement", f"there are no predictions on {provider}", step))
            continue
        measure = kind_of(other).agreement
        agree = scores_of(other, evidence.predictions, measure)
        rows = evidence.pairing.all_rows
        found = share_of(evidence.pairing.over(rows, agree, binary=measure.binary), policy, floor=True)
        if found.sources < policy.samples.minimum:
            results.append(too_few("provider_agreement", None, found, table.limit, policy, "fraction"))
            continue
        results.append(
            Claim(
                "provider_agreement",
                found,
                table.limit,
                tolerated(table),
                table.mode,
                f"{provider} predicts what {own} does on {percent(found.value)} of the samples",
                _REPAIR,
                "equal predictions",
                floor=True,
            )
        )
    return results
