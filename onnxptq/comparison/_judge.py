"""What predictions say about a model on a runtime: reports, flips between runtimes, causes, verdicts that differ."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.comparison.numerics import difference
from onnxptq.comparison.result import Cause, ComparisonRow, DependentGroup, ProviderFlips
from onnxptq.evaluation import GroupResult, Predictions, compare
from onnxptq.evaluation.paired import paired, scores_of
from onnxptq.evaluation.statistics import equality_p_values

SIGNIFICANT = 0.05
"""p-value, corrected for the number of groups, below which two accuracies are called different."""


def provider_flips(base: Predictions, run: Predictions, groups: Sequence[str]) -> ProviderFlips:
    """What changes between two runtimes for the same model.

    Args:
        base: the model on the reference runtime.
        run: the model on another one.
        groups: groupings.
    """
    report = compare(base, run, groups)
    rows = paired(base, run, groupings=groups)
    p_value = float(equality_p_values(rows.over(rows.all_rows, rows.lost))[0]) if rows.labelled else None
    differing = sorted(group.name for group in report.groups if _different(group))
    return ProviderFlips(report.flip_rate, p_value, tuple(differing))


def cause(reference: Predictions, unfused: Predictions, run: Predictions, step: float | None) -> Cause:
    """Separates what quantization does from what the runtime's kernels add.

    Args:
        reference: FP32 on the reference runtime.
        unfused: the quantized model computed as its graph is written.
        run: the quantized model on a runtime.
        step: the quantization step of its outputs, or None.
    """
    before, as_written, as_run = (float(scores_of(one, reference).mean()) for one in (reference, unfused, run))
    return Cause(
        quantization=difference(reference, unfused),
        kernels=difference(unfused, run, step),
        quantization_drop=before - as_written,
        kernels_drop=as_written - as_run,
    )


def dependent_groups(rows: Sequence[ComparisonRow]) -> tuple[DependentGroup, ...]:
    """The judged groups of each model whose verdict against FP32 is not the same on every runtime that ran."""
    found = []
    for model in dict.fromkeys(row.model for row in rows):
        verdicts: dict[str, dict[str, str]] = {}
        for row in rows:
            if row.model == model and row.report is not None:
                for group in row.report.groups:
                    if group.judged:
                        verdicts.setdefault(group.name, {})[row.runtime] = verdict(group)
        found += [DependentGroup(model, name, of) for name, of in sorted(verdicts.items()) if len(set(of.values())) > 1]
    return tuple(found)


def verdict(group: GroupResult) -> str:
    """ "worse", "better" or "no difference" against FP32 (McNemar, corrected for the number of groups, p < 0.05)."""
    if not _different(group):
        return "no difference"
    return "worse" if group.drop > 0 else "better"


def _different(group: GroupResult) -> bool:
    return group.judged and group.p_value is not None and group.p_value < SIGNIFICANT
