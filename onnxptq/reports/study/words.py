"""The verdict of a study in words: what is safe, what the worst group is, what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from onnxptq.reports.study.summary import (
    AVERAGE_LIMIT,
    BROKEN,
    SAFE,
    UNSAFE,
    Combination,
    Summary,
    set_name,
)
from onnxptq.sweeps.study import FAILED

_NAMED = 8
"""Names in a sentence before the rest is counted."""


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
    total, safe = len(summary.combinations), len(summary.named(SAFE))
    unsafe = len(summary.named(UNSAFE))
    open_ones = total - safe - unsafe
    headline = f"{safe} of {total} combinations are safe, {unsafe} are unsafe"
    headline += f", {open_ones} undecided or failed." if open_ones else "."
    findings = [*_by_set(summary), *_worst(summary), *_hidden(summary)]
    return Verdict(headline, tuple(findings), tuple(_advice(summary)), tuple(_caveats(summary)))


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
    return ", ".join(value if key in ("label", "corruption") else f"{key} {value}" for key, _, value in parts)


def _by_set(summary: Summary) -> list[str]:
    """One sentence for the sets on which all methods agree, one for each set on which they do not."""
    sets: dict[str, list[Combination]] = {}
    for one in summary.combinations:
        sets.setdefault(one.place.set_name, []).append(one)
    all_safe = [name for name, ones in sets.items() if all(one.verdict == SAFE for one in ones)]
    none_safe = [name for name, ones in sets.items() if all(one.verdict == UNSAFE for one in ones)]
    sentences = []
    if all_safe:
        sentences.append(f"Every method is safe with {listed(all_safe)}.")
    if none_safe:
        sentences.append(f"No method is safe with {listed(none_safe)}.")
    for name, ones in sets.items():
        if name not in all_safe and name not in none_safe:
            sentences.append(f"With {name}: {_methods_of(ones)}.")
    return sentences


def _methods_of(ones: Sequence[Combination]) -> str:
    """ "minmax safe; entropy unsafe": a method is as good as the worst of its models, targets and runtimes."""
    rank = (UNSAFE, BROKEN, "undecided", SAFE)
    by_method: dict[str, str] = {}
    for one in ones:
        before = by_method.get(one.place.method, SAFE)
        by_method[one.place.method] = min(before, one.verdict, key=rank.index)
    grouped = {word: [method for method, found in by_method.items() if found == word] for word in reversed(rank)}
    return "; ".join(f"{listed(methods)} {word}" for word, methods in grouped.items() if methods)


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
    if not summary.named(SAFE):
        return [
            "Nothing here is safe. Look at the group explorer for who loses, then try a method for shifted sets "
            "(onnxptq methods), more calibration samples, or leave the last layer in float."
        ]
    advice = [*_repairs(summary), *_robust_method(summary)]
    if not summary.named(UNSAFE):
        advice.append("No combination is unsafe: choose the smallest or the fastest, and gate it with onnxptq check.")
    return advice


def _repairs(summary: Summary) -> list[str]:
    """Strategies under which unsafe combinations become safe, and whether they harm where there was nothing to repair."""
    plain = {_without_strategy(one): one for one in summary.combinations if not one.place.strategy}
    sentences = []
    for strategy in filter(None, summary.levels("strategy")):
        pairs = [
            (plain[_without_strategy(one)], one)
            for one in summary.combinations
            if one.place.strategy == strategy and _without_strategy(one) in plain
        ]
        repaired = [before for before, after in pairs if before.verdict == UNSAFE and after.verdict == SAFE]
        unsafe = [before for before, _ in pairs if before.verdict == UNSAFE]
        broken = [before for before, after in pairs if before.verdict == SAFE and after.verdict == UNSAFE]
        if repaired:
            sets = list(dict.fromkeys(before.place.calibration for before in repaired))
            text = (
                f"Add {strategy}: it makes {len(repaired)} of {len(unsafe)} unsafe combinations safe ({listed(sets)})"
            )
            sentences.append(text + (f", but {len(broken)} safe ones unsafe." if broken else ", and none unsafe."))
        elif broken:
            sentences.append(
                f"Do without {strategy}: it makes {len(broken)} safe combinations unsafe and repairs none."
            )
    return sentences


def _without_strategy(one: Combination) -> tuple[str, ...]:
    place = one.place
    return place.model, place.calibration, place.method, place.target, place.runtime


def _robust_method(summary: Summary) -> list[str]:
    """The method with most safe combinations, where methods differ."""
    methods = summary.levels("method")
    if len(methods) < 2:
        return []
    counts = {method: 0 for method in methods}
    totals = Counter(one.place.method for one in summary.combinations)
    for one in summary.named(SAFE):
        counts[one.place.method] += 1
    best = max(counts.values())
    winners = [method for method, count in counts.items() if count == best]
    if len(winners) == len(methods):
        return ["The methods are safe equally often: choose the calibration set with care, not the method."]
    last = min(counts, key=lambda method: counts[method])
    return [
        f"If you cannot vouch for the calibration set, take {listed(winners)}: safe in {best} of "
        f"{totals[winners[0]]} combinations ({last}: {counts[last]})."
    ]


def _caveats(summary: Summary) -> list[str]:
    cells = summary.study.cells
    failed = [cell for cell in cells if cell.status == FAILED]
    caveats = []
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
