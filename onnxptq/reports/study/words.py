"""The verdict of a study in words: what is safe, what the worst group is, what to do."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnxptq.evaluation.statistics import sources_to_decide
from onnxptq.reports.study.summary import (
    AVERAGE_LIMIT,
    BROKEN,
    SAFE,
    UNDECIDED,
    UNSAFE,
    Combination,
    Summary,
    mean,
    set_name,
)
from onnxptq.sweeps.study import FAILED, Study

_NAMED = 8
"""Names in a sentence before the rest is counted."""

_WITHIN, _ABOVE = "within the limit, not surely", "above the limit, not surely"

_RANK = (UNSAFE, BROKEN, _ABOVE, UNDECIDED, _WITHIN, SAFE)
"""From the worst to the best."""


@dataclass(frozen=True)
class Verdict:
    """A study in words.

    Attributes:
        headline: one sentence.
        findings: which methods are safe for which sets; what the worst group is; what the average hides.
        advice: what to do.
        caveats: what was not measured, or failed.
    """

    headline: str
    findings: tuple[str, ...]
    advice: tuple[str, ...]
    caveats: tuple[str, ...]


def verdict(summary: Summary) -> Verdict:
    """What a study says, in words."""
    findings = [*_by_set(summary), *_worst(summary), *_hidden(summary)]
    return Verdict(_headline(summary), tuple(findings), tuple(_advice(summary)), tuple(_caveats(summary)))


def _headline(summary: Summary) -> str:
    counts = Counter(one.verdict for one in summary.combinations)
    parts = [f"{counts[SAFE] or 'none'} safe", f"{counts[UNSAFE] or 'none'} unsafe"]
    parts += [f"{counts[word]} {word}" for word in (UNDECIDED, BROKEN) if counts[word]]
    return f"Of {sum(counts.values())} combinations: {', '.join(parts)}."


def points(value: float | None, signed: bool = False) -> str:
    """A drop in points, one decimal: "12.3 points"."""
    if value is None:
        return "not known"
    text = f"{100 * value:+.1f}" if signed else f"{100 * value:.1f}"
    return f"{'0.0' if text in ('-0.0', '+0.0') else text} points"


def listed(names: Sequence[str], most: int = _NAMED) -> str:
    """Names in a sentence, cut after a few."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else "none"


def group_words(name: str | None) -> str:
    """A group as a person says it: "cat, fog@3" for "label=cat*corruption=fog@3"."""
    if name is None:
        return "no group"
    parts = [part.partition("=") for part in name.split("*")]
    plain = {"label", "corruption"}
    return ", ".join(v if key in plain and not v.isdigit() else f"{key} {v}" for key, _, v in parts)


def _by_set(summary: Summary) -> list[str]:
    """One sentence for all sets with which the methods fare alike."""
    sets: dict[str, list[Combination]] = {}
    for one in summary.combinations:
        sets.setdefault(one.place.set_name, []).append(one)
    alike: dict[str, list[str]] = {}
    for name, ones in sets.items():
        alike.setdefault(_methods_of(ones), []).append(name)
    several = len(summary.levels("method")) > 1
    sentences = []
    for found, names in alike.items():
        if several and ";" not in found and found.endswith((f" {SAFE}", f" {UNSAFE}")):
            start = "Every method is safe" if found.endswith(f" {SAFE}") else "No method is safe"
            sentences.append(f"{start} with {listed(names)}.")
        else:
            sentences.append(f"With {listed(names)}: {found}.")
    return sentences


def _methods_of(ones: Sequence[Combination]) -> str:
    """ "minmax safe; entropy unsafe": a method is as good as the worst of its models, targets and runtimes."""
    by_method: dict[str, str] = {}
    for one in ones:
        before = by_method.get(one.place.method, SAFE)
        by_method[one.place.method] = min(before, _leaning(one), key=_RANK.index)
    grouped = {word: [method for method, found in by_method.items() if found == word] for word in reversed(_RANK)}
    return "; ".join(f"{listed(methods)} {word}" for word, methods in grouped.items() if methods)


def _leaning(one: Combination) -> str:
    """The verdict; where it is open, on which side of the limit the estimate lies."""
    if one.verdict != UNDECIDED or one.leans_safe is None:
        return one.verdict
    return _WITHIN if one.leans_safe else _ABOVE


def definition(summary: Summary) -> str:
    """What safe means, in words."""
    return (
        f"A combination is safe where the cross-fitted worst-group drop is at most {points(summary.limit)}, upper end "
        "of its 95 % interval, for every seed; unsafe where the lower end is above that for one seed; else undecided. "
        "The worst group is chosen on one half of the samples and measured on the other, so that choosing the "
        "unluckiest of many groups does not make it look worse than it is. Where several groups are equally bad the "
        "number lies below the worst of them: before you ship one model, let onnxptq check judge that model."
    )


def matrix_rows(summary: Summary) -> list[list[str]]:
    """Verdict by calibration set (rows) and method: the worst over models, targets and runtimes."""
    rows: dict[str, dict[str, list[Combination]]] = {}
    for one in summary.combinations:
        rows.setdefault(one.place.set_name, {}).setdefault(one.place.method, []).append(one)
    methods = summary.levels("method")
    return [[name, *(_worst_text(found.get(method, [])) for method in methods)] for name, found in rows.items()]


def _worst_text(ones: Sequence[Combination]) -> str:
    if not ones:
        return "not in the study"
    worst = min(ones, key=lambda one: (_RANK.index(_leaning(one)), -(one.crossfit_drop or 0.0)))
    return worst.verdict if worst.crossfit_drop is None else f"{worst.verdict}, {points(worst.crossfit_drop)}"


def _worst(summary: Summary) -> list[str]:
    judged = [one for one in summary.combinations if one.crossfit_drop is not None]
    if not judged:
        return ["No group has enough original samples to be judged, so nothing can be called safe."]
    worst = max(judged, key=lambda one: one.crossfit_drop or 0.0)
    sentences = [
        f"The largest cross-fitted worst-group drop is {points(worst.crossfit_drop)} ({worst.place.set_name}, "
        f"{worst.place.method}{_where(summary, worst)}); the group that loses most there is "
        f"{group_words(worst.hurt_group)}, {points(worst.hurt_drop)}."
    ]
    hurt = Counter(one.hurt_group for one in summary.named(UNSAFE) if one.hurt_group)
    if hurt and sum(hurt.values()) > 1:
        name, times = hurt.most_common(1)[0]
        sentences.append(
            f"Among the {sum(hurt.values())} unsafe combinations, {group_words(name)} is the group that loses most in "
            f"{times}."
        )
    return sentences


def _where(summary: Summary, one: Combination) -> str:
    """What else it takes to find a combination, in a study that varies it."""
    factors = ("model", "target", "runtime")
    return "".join(f", {getattr(one.place, name)}" for name in factors if len(summary.levels(name)) > 1)


def _hidden(summary: Summary) -> list[str]:
    hidden = [
        one for one in summary.named(UNSAFE) if one.average_drop is not None and one.average_drop <= AVERAGE_LIMIT
    ]
    if not hidden:
        return []
    most = max(hidden, key=lambda one: one.crossfit_drop or 0.0)
    return [
        f"The average hides {len(hidden)} of {len(summary.named(UNSAFE))} unsafe combinations: it drops by at most "
        f"{points(AVERAGE_LIMIT)} there. With {most.place.set_name} and {most.place.method} the average loses "
        f"{points(most.average_drop)}, the worst group {points(most.crossfit_drop)}."
    ]


def _advice(summary: Summary) -> list[str]:
    advice = [*_repairs(summary), *_method(summary), *_samples(summary)]
    if len(summary.named(UNSAFE)) == len(summary.combinations):
        advice.append(
            "Everything here is unsafe. See in the group explorer who loses, then try a method for shifted sets "
            "(onnxptq methods), a strategy such as autocontrast, or leave the last layer in float."
        )
    if not summary.named(UNSAFE, BROKEN):
        advice.append("Nothing is unsafe: choose what is smallest or fastest, and gate it with onnxptq check.")
    return advice


def _samples(summary: Summary) -> list[str]:
    """How many times as many samples would decide what is undecided though within the limit."""
    near = [one for one in summary.named(UNDECIDED) if one.leans_safe]
    factors = [
        ((one.high - one.crossfit_drop) / (summary.limit - one.crossfit_drop)) ** 2
        for one in near
        if one.high is not None and one.crossfit_drop is not None and one.crossfit_drop < summary.limit
    ]
    fewest = _fewest_judged(summary.study)
    if near and fewest is not None and summary.limit and fewest < (needed := sources_to_decide(summary.limit)):
        return [
            f"{len(near)} combinations are within the limit, but not surely, and with these groups they cannot be: the "
            f"smallest has {fewest} samples, and it takes {needed} to show a drop of at most {points(summary.limit)} "
            'even where no prediction changes. Judge on more samples, or by coarser groups (groups = ["corruption"]).'
        ]
    if not factors:
        return []
    times = max(2, math.ceil(statistics.median(factors)))
    return [
        f"{len(near)} combinations are within the limit, but not surely: the samples are too few. Intervals shrink "
        f"with the root of their number; about {times} times as many would show half of these safe, if the estimates "
        "hold."
    ]


def _fewest_judged(study: Study) -> int | None:
    """Original samples of the smallest judged group; every cell is judged on the same ones."""
    groups = next((cell.report["groups"] for cell in study.cells if cell.report.get("groups")), ())
    return min((group["sources"] for group in groups if group["judged"]), default=None)


def _repairs(summary: Summary) -> list[str]:
    """Strategies under which unsafe combinations are no longer unsafe, and whether they make others unsafe."""
    plain = {_without_strategy(one): one for one in summary.combinations if not one.place.strategy}
    sentences = []
    for strategy in filter(None, summary.levels("strategy")):
        pairs = [
            (plain[_without_strategy(one)], one)
            for one in summary.combinations
            if one.place.strategy == strategy and _without_strategy(one) in plain
        ]
        unsafe = [pair for pair in pairs if pair[0].verdict == UNSAFE]
        repaired = [before for before, after in unsafe if after.verdict in (SAFE, UNDECIDED)]
        broken = [before for before, after in pairs if before.verdict != UNSAFE and after.verdict == UNSAFE]
        if repaired:
            sets = list(dict.fromkeys(before.place.calibration for before in repaired))
            sentences.append(
                f"Add {strategy}: of {len(unsafe)} unsafe combinations {len(repaired)} are no longer unsafe "
                f"({listed(sets)}); {len(broken) or 'none'} that {'was' if len(broken) == 1 else 'were'} not unsafe "
                f"{'becomes' if len(broken) == 1 else 'become'} so."
            )
        elif broken:
            sentences.append(f"Do without {strategy}: it makes {len(broken)} combinations unsafe and repairs none.")
    return sentences


def _without_strategy(one: Combination) -> tuple[str, ...]:
    place = one.place
    return place.model, place.calibration, place.method, place.target, place.runtime


def _method(summary: Summary) -> list[str]:
    """The method with the fewest unsafe combinations, then the smallest mean drop; where they are alike, says so."""
    methods = summary.levels("method")
    ranks = []
    for method in methods:
        ones = [one for one in summary.combinations if one.place.method == method]
        drop = mean(one.crossfit_drop for one in ones)
        if drop is not None:
            ranks.append((sum(one.verdict == UNSAFE for one in ones), drop, len(ones), method))
    if len(ranks) < 2:
        return []
    (unsafe, drop, count, best), (most, largest, _, last) = min(ranks), max(ranks)
    if unsafe == most and largest - drop <= summary.limit:
        return [
            f"The methods are alike ({unsafe} of {count} combinations unsafe with each, {points(drop)} to "
            f"{points(largest)} on average): choose the calibration set with care, not the method."
        ]
    return [
        f"If you cannot vouch for the calibration set, take {best}: {unsafe or 'none'} of its {count} combinations "
        f"{'is' if unsafe <= 1 else 'are'} unsafe, {points(drop)} on average ({last}: {most}, {points(largest)})."
    ]


_AXES = ("models", "calibrations", "strategies", "methods", "targets", "runtimes", "seeds")


def _planned(study: Study) -> int | None:
    """Cells of the whole grid; None where the plan does not say."""
    if not all(isinstance(study.plan.get(name), list) for name in _AXES):
        return None
    return math.prod(len(study.plan[name]) for name in _AXES)


def _caveats(summary: Summary) -> list[str]:
    cells = summary.study.cells
    failed = [cell for cell in cells if cell.status == FAILED]
    caveats = []
    planned = _planned(summary.study)
    if planned is not None and planned > len(cells):
        caveats.append(
            f"The study is not finished: {len(cells)} of {planned} cells have a result. Go on: {summary.study.resume}"
        )
    if failed:
        first = failed[0]
        where = f"{set_name(first.key.calibration, first.key.strategy)}, {first.key.method}, seed {first.key.seed}"
        caveats.append(f"{len(failed)} of {len(cells)} cells failed. The first: {where}: {first.error}")
    if len(summary.levels("seed")) == 1:
        caveats.append(
            "One seed: every number is about one draw of the calibration samples. Another draw may differ; sweep with "
            "three seeds or more to know."
        )
    if any(cell.report.get("measure") == "agreement" for cell in cells):
        caveats.append("The data has no labels: accuracy here is agreement with FP32, and a drop is a flip.")
    return caveats
