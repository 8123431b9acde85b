"""The report: what INT8 did to each group, computed from two runs of predictions and nothing else."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.evaluation.measures import ACCURACY, AGREEMENT, Against
from onnxptq.evaluation.paired import GroupLayout, Paired, paired
from onnxptq.evaluation.predictions import Predictions
from onnxptq.evaluation.statistics import (
    SourceSums,
    bootstrap_mean,
    crossfit_drop,
    cvar_drop,
    drop_interval,
    equality_p_values,
    holm,
    mean_interval,
    percentile_interval,
)
from onnxptq.evaluation.totals import TotalDrop, totals_of

MINIMUM_SAMPLES = 20
"""Sources below which a group is shown but never called worst: a Wilson interval is then wider than 40 points."""

REPORT_VERSION = 1


@dataclass(frozen=True)
class GroupResult:
    """One group under FP32 and INT8. Scores, drops and rates are fractions.

    Attributes:
        name: "label=cat*corruption=fog@3".
        n: samples.
        sources: original samples behind them.
        fp32: mean score of the reference (a classifier's accuracy).
        int8: mean score of the model.
        drop: fp32 - int8.
        drop_low, drop_high: 95 % interval of the drop, by source.
        int8_low, int8_high: 95 % interval of the mean score, by source.
        flips: share of samples whose answer differs from the reference's; NaN where answers are continuous.
        p_value: test of equal scores (McNemar's, or sign flips of graded scores), corrected for the number of judged
            groups (Holm); None where the group is not judged or there is no truth (agreement can only fall).
        judged: the group has enough sources to be called worst.
    """

    name: str
    n: int
    sources: int
    fp32: float
    int8: float
    drop: float
    drop_low: float
    drop_high: float
    int8_low: float
    int8_high: float
    flips: float
    p_value: float | None
    judged: bool


@dataclass(frozen=True)
class Report:
    """What INT8 did. Scores, drops and rates are fractions; they are NaN where no group can be judged.

    Attributes:
        measure: what scores are: "accuracy", "F1 at IoU 0.5", ...; "agreement" with the reference, or another
            fidelity, where the data has no truth (then fp32 is 1 everywhere).
        model, reference: names of the two files.
        provider: what the model ran on.
        n, sources: samples and original samples.
        fp32_average, int8_average: over all samples.
        average_drop, average_drop_low, average_drop_high: with its 95 % bootstrap interval by source.
        worst_group: the judged group with the lowest score under INT8.
        worst_accuracy: that score.
        largest_drop_group, largest_drop: the judged group that lost most. Biased upward: noise alone makes some group
            lose (docs/statistics.md).
        crossfit_drop: the worst group's drop, chosen on one half of the sources and measured on the other.
        crossfit_drop_low, crossfit_drop_high: its 95 % interval.
        cvar10_drop: mean drop of the worst tenth of the judged groups.
        flip_rate: share of samples whose answer changed; NaN where answers are continuous.
        sqnr_db: 10 log10(signal / error) of the outputs against the reference, in decibel; None where it is not known
            or the outputs are equal.
        groups: from the lowest score under INT8 to the highest.
        binary: every score is 0 or 1.
        against: answers were judged by the "truth", or by those of the "reference".
        task: name of the task that the models were judged by; "" in predictions of old files.
        judged: names of the outputs that were judged; () in predictions of old files.
        totals: numbers of the whole data set under both models (mAP, WER), where the task has any and they were asked
            for.
        sqnr_db_by_output: the same ratio of every output of numbers, by its name.
    """

    measure: str
    model: str
    reference: str
    provider: str
    n: int
    sources: int
    fp32_average: float
    int8_average: float
    average_drop: float
    average_drop_low: float
    average_drop_high: float
    worst_group: str | None
    worst_accuracy: float
    largest_drop_group: str | None
    largest_drop: float
    crossfit_drop: float
    crossfit_drop_low: float
    crossfit_drop_high: float
    cvar10_drop: float
    flip_rate: float
    sqnr_db: float | None
    minimum_samples: int
    groups: tuple[GroupResult, ...]
    binary: bool = True
    against: Against = "truth"
    task: str = ""
    judged: tuple[str, ...] = ()
    sqnr_db_by_output: Mapping[str, float | None] = field(default_factory=dict)
    totals: tuple[TotalDrop, ...] = ()

    @property
    def possible_drop(self) -> float:
        """What the worst judged group may lose: the largest upper end of a judged group's 95 % interval; NaN without.

        However many groups there are, the worst one is one of them (Berger 1982, Technometrics 24:295).
        """
        return max((group.drop_high for group in self.groups if group.judged), default=math.nan)

    def to_dict(self) -> dict[str, Any]:
        """The report as JSON types; NaN becomes None. Keys are stable (docs/formats.md)."""
        # All fields but `groups` are flat, so the deep copies of `dataclasses.asdict` would be of no use.
        groups = [_finite(vars(group)) for group in self.groups]
        mine = {**vars(self), "judged": list(self.judged), "sqnr_db_by_output": dict(self.sqnr_db_by_output)}
        values = _finite({"report_version": REPORT_VERSION, **mine, "groups": groups})
        values["totals"] = [total.to_dict() for total in self.totals]
        if not self.totals:
            del values["totals"]
        if self.measure in (ACCURACY.name, AGREEMENT.name):
            # A classifier's report is what it was before there were other measures.
            del values["binary"], values["against"]
        return values

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> Report:
        """The report that `to_dict` wrote. What it lacks, as reports of before do, is NaN, 0, "" or nothing."""
        known = _fields(Report, values)
        if known["measure"] == AGREEMENT.name:
            known["against"] = AGREEMENT.against
        known["groups"] = tuple(GroupResult(**_fields(GroupResult, one)) for one in values.get("groups", ()))
        known["totals"] = tuple(TotalDrop(**_fields(TotalDrop, one)) for one in values.get("totals", ()))
        known["judged"] = tuple(values.get("judged", ()))
        return Report(**known)


_NOTHING: dict[Any, Any] = {"float": math.nan, "int": 0, "str": "", "bool": False}


def _fields(kind: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a dataclass of a report from JSON types, in which NaN is None."""
    found = {}
    for one in fields(kind):
        value = values.get(one.name)
        if value is not None:
            found[one.name] = value
        elif one.default is MISSING and one.default_factory is MISSING:
            found[one.name] = _NOTHING.get(one.type)
    return found


def compare(
    reference: Predictions,
    model: Predictions,
    groupings: Sequence[str] = (),
    *,
    layout: GroupLayout | None = None,
    minimum_samples: int = MINIMUM_SAMPLES,
    seed: int = 0,
    totals: bool = False,
) -> Report:
    """Compares a model with its reference, group by group.

    Args:
        reference: predictions of the FP32 model.
        model: predictions of the INT8 model on the same samples.
        groupings: as a user writes them; none is `label*corruption`, or `corruption` without labels.
        layout: what `lay_out` gives for these groupings and another run on the same samples, where that was done.
        minimum_samples: sources below which a group is never called worst.
        seed: of the bootstrap and the cross-fitting.
        totals: with the totals of the task, each of which is computed 42 times.

    Raises:
        DataError: the two runs are not over the same samples.
        UsageError: an unknown group column.
    """
    rows = paired(reference, model, groupings=groupings, layout=layout)
    drops = rows.by_group(rows.lost)
    judged = drops.group_sources >= minimum_samples
    groups = _group_results(rows, drops, judged)
    fitted = crossfit_drop(drops, eligible=judged, seed=seed)
    low, high = fitted.interval()
    average_low, average_high = percentile_interval(bootstrap_mean(drops, seed))
    eligible = [group for group in groups if group.judged]
    worst = min(eligible, key=lambda g: (g.int8, g.name), default=None)
    hurt = min(eligible, key=lambda g: (-g.drop, g.name), default=None)
    return Report(
        measure=rows.measure.name,
        model=model.identity["model"]["name"],
        reference=reference.identity["model"]["name"],
        provider=model.runtime,
        n=len(model),
        sources=int(drops.n_sources),
        fp32_average=float(rows.before.mean()),
        int8_average=float(rows.after.mean()),
        average_drop=float(rows.lost.mean()),
        average_drop_low=float(average_low),
        average_drop_high=float(average_high),
        worst_group=worst.name if worst else None,
        worst_accuracy=worst.int8 if worst else math.nan,
        largest_drop_group=hurt.name if hurt else None,
        largest_drop=hurt.drop if hurt else math.nan,
        crossfit_drop=fitted.value,
        crossfit_drop_low=low,
        crossfit_drop_high=high,
        cvar10_drop=cvar_drop(drops.group_means[judged]) if judged.any() else math.nan,
        flip_rate=math.nan if rows.changed is None else float(rows.changed.mean()),
        sqnr_db=sqnr_db(model),
        minimum_samples=minimum_samples,
        groups=tuple(sorted(groups, key=lambda g: (g.int8, g.name))),
        binary=rows.measure.binary,
        against=rows.measure.against,
        task=str(model.identity.get("task") or ""),
        judged=model.judged,
        sqnr_db_by_output={name: signal_to_noise_db(*energies) for name, energies in model.energies.items()},
        totals=totals_of(reference, model) if totals else (),
    )


def sqnr_db(run: Predictions) -> float | None:
    """Signal to quantization-noise ratio of the outputs against the reference, in decibel; None where not defined."""
    return signal_to_noise_db(run.signal_energy, run.error_energy)


def signal_to_noise_db(signal_energy: npt.NDArray[np.float64], error_energy: npt.NDArray[np.float64]) -> float | None:
    """10 log10(signal / error) of summed energies, in decibel; None where either is 0 or not finite."""
    signal, error = float(signal_energy.sum()), float(error_energy.sum())
    if not (math.isfinite(signal) and math.isfinite(error)) or error == 0.0 or signal == 0.0:
        return None
    return 10.0 * math.log10(signal / error)


def _group_results(rows: Paired, drops: SourceSums, judged: npt.NDArray[np.bool_]) -> list[GroupResult]:
    scores = rows.by_group(rows.after)
    drop_low, drop_high = drop_interval(drops)
    int8_low, int8_high = mean_interval(scores)
    p_values: list[float | None] = [None] * len(rows.names)
    if rows.labelled and judged.any():
        corrected = holm(equality_p_values(drops)[judged])
        for index, p in zip(np.flatnonzero(judged).tolist(), corrected.tolist(), strict=True):
            p_values[index] = p
    # Counts of rows that are right or wrong are whole numbers, so these means are exact to the last bit.
    before = (drops.by_group(drops.total) + scores.by_group(scores.total)) / drops.group_rows
    changed = [math.nan] * len(rows.names)
    if rows.changed is not None:
        changed = [float(rows.changed[members].mean()) for members in rows.members]
    columns = {
        "name": rows.names,
        "n": [len(members) for members in rows.members],
        "sources": drops.group_sources.tolist(),
        "fp32": before.tolist(),
        "int8": scores.group_means.tolist(),
        "drop": drops.group_means.tolist(),
        "drop_low": drop_low.tolist(),
        "drop_high": drop_high.tolist(),
        "int8_low": int8_low.tolist(),
        "int8_high": int8_high.tolist(),
        "flips": changed,
        "p_value": p_values,
        "judged": judged.tolist(),
    }
    return [GroupResult(**dict(zip(columns, values, strict=True))) for values in zip(*columns.values(), strict=True)]


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in values.items()}
