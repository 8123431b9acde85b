"""The verdict of a study in words: what passed, what the worst group is, what to do.

Every figure is a mean over the seeds; the verdict of a combination is that of its worst seed.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from onnxptq.evaluation import Report
from onnxptq.reports.measured import reference_note
from onnxptq.reports.study.advice import advice
from onnxptq.reports.study.phrases import (
    CONTEXT,
    RANK,
    context_factors,
    context_words,
    counted,
    groups_listed,
    level_count,
    listed,
    points,
    standing,
)
from onnxptq.reports.study.summary import AVERAGE_LIMIT, FAILED, PASSED, Combination, Summary, set_name
from onnxptq.reports.study.tally import Tally, headline, tally, why_nothing_judged
from onnxptq.sweeps.study import FAILED as CELL_FAILED
from onnxptq.sweeps.study import Study

_PLACES = 4
"""Places in a sentence at which a method stands alike, before the rest is counted."""


@dataclass(frozen=True)
class StudyVerdict:
    """A study in words.

    Attributes:
        headline: one sentence.
        findings: which methods pass for which sets; what the worst group is; what the average hides.
        advice: what to do.
        caveats: what was not measured, or failed.
    """

    headline: str
    findings: tuple[str, ...]
    advice: tuple[str, ...]
    caveats: tuple[str, ...]


def verdict(summary: Summary) -> StudyVerdict:
    """What a study says, in words."""
    found = tally(summary)
    findings = [*before_blame(summary.study), *_by_set(summary), *_worst(summary, found), *_hidden(summary)]
    said = advice(summary, found)
    return StudyVerdict(headline(found), tuple(findings), tuple(said), tuple(_caveats(summary, found)))


def definition(summary: Summary) -> str:
    """What passed means, and every number, in words."""
    return (
        f"A combination failed where the cross-fitted worst-group drop is above {points(summary.limit)}, lower end of "
        "its 95 % interval, for one seed. It passed where, for every seed, no group can have lost more than "
        f"{points(summary.tolerance)}: the upper end of each group's own 95 % interval is at most that. Between the "
        "two it is undecided, and broken where no seed gave a result. These are the answers of onnxptq check. "
        "Drops are means over the seeds, those of a group too; which side of the limit a seed is on shows in the "
        "verdict alone. "
        "The worst group is chosen on one half of the samples and measured on the other, so that choosing the "
        "unluckiest of many groups does not make it look worse than it is. Where several groups are equally bad the "
        "number lies below the worst of them: before you ship one model, let onnxptq check judge that model."
    )


def matrix_caption(summary: Summary) -> str:
    """What `matrix_rows` shows."""
    caption = "Verdict and mean cross-fitted drop by calibration set and method"
    if factors := context_factors(summary):
        caption += f"; the worst over {listed([f'{name}s' for name in factors])}, which is named"
    return caption


def matrix_rows(summary: Summary) -> list[list[str]]:
    """Verdict by calibration set (rows) and method: the worst over models, targets and runtimes, and which that is."""
    methods = summary.levels("method")
    return [
        [name, *(_worst_text(summary, found.get(method, ())) for method in methods)]
        for name, found in _sets(summary).items()
    ]


def before_blame(study: Study) -> list[str]:
    """What is wrong with an FP32 model on the samples of a study, which is said before INT8 is judged."""
    said = (line for cell in study.cells for line in cell.origin.get("before_blame", ()))
    return [line[0].upper() + line[1:] for line in dict.fromkeys(said)]


def failures(study: Study) -> list[str]:
    """How many cells failed, and how the first of them did; nothing where none failed."""
    failed = [cell for cell in study.cells if cell.status == CELL_FAILED]
    if not failed:
        return []
    first = failed[0]
    where = f"{set_name(first.key.calibration, first.key.strategy)}, {first.key.method}, seed {first.key.seed}"
    return [f"{len(failed)} of {len(study.cells)} cells failed. The first: {where}: {first.error}"]


def _sets(summary: Summary) -> dict[str, dict[str, list[Combination]]]:
    """Combinations by set, then by method: one for each model, target and runtime."""
    rows: dict[str, dict[str, list[Combination]]] = {}
    for one in summary.combinations:
        rows.setdefault(one.place.set_name, {}).setdefault(one.place.method, []).append(one)
    return rows


def _worst_text(summary: Summary, ones: Sequence[Combination]) -> str:
    if not ones:
        return "no result"
    worst = min(ones, key=lambda one: (RANK.index(standing(one)), -(one.crossfit_drop or 0.0)))
    text = standing(worst) if worst.crossfit_drop is None else f"{worst.verdict}, {points(worst.crossfit_drop)}"
    where = context_words(worst, context_factors(summary)) if len({standing(one) for one in ones}) > 1 else ""
    return f"{text} ({where})" if where else text


def _by_set(summary: Summary) -> list[str]:
    """One sentence for all sets with which the methods fare alike."""
    methods = level_count(summary, "method")
    contexts = math.prod(level_count(summary, factor) for factor in CONTEXT)
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, found in _sets(summary).items():
        said = {method: _fares(summary, ones, contexts) for method, ones in found.items()}
        only = next(iter(said.values())) if len(set(said.values())) == 1 else ""
        start = {PASSED: "Every method passed", FAILED: "No method passed"}.get(only)
        complete = len(found) == methods > 1
        sentence = (start, "") if start and complete else ("", _methods_of(found, said))
        alike.setdefault(sentence, []).append(name)
    return [
        f"{start} with {listed(names)}." if start else f"With {listed(names)}: {said}."
        for (start, said), names in alike.items()
    ]


def _methods_of(found: Mapping[str, Sequence[Combination]], said: Mapping[str, str]) -> str:
    """ "robust passed; minmax failed on cpu, passed on cpu:exact": those that fare best first."""
    order = sorted(found, key=lambda method: -min(RANK.index(standing(one)) for one in found[method]))
    grouped: dict[str, list[str]] = {}
    for method in order:
        grouped.setdefault(said[method], []).append(method)
    return "; ".join(f"{listed(methods)} {words}" for words, methods in grouped.items())


def _fares(summary: Summary, ones: Sequence[Combination], contexts: int) -> str:
    """ "passed"; where it depends on model, target or runtime, the worst first: "failed on cpu, passed on x"."""
    # What has no result somewhere is said only of where it has one.
    everywhere = len(ones) == contexts
    factors = _deciding(summary, ones) if everywhere else context_factors(summary)
    if not factors:
        return standing(ones[0])
    grouped: dict[str, list[str]] = {}
    for one in sorted(ones, key=lambda one: RANK.index(standing(one))):
        names = grouped.setdefault(standing(one), [])
        if (name := context_words(one, factors)) not in names:
            names.append(name)
    parts = [f"{word} {_places(names)}" for word, names in grouped.items()]
    best = list(grouped)[-1]
    if everywhere and len(grouped[best]) > 2:
        parts[-1] = f"else {best}"
    return ", ".join(parts)


def _deciding(summary: Summary, ones: Sequence[Combination]) -> tuple[str, ...]:
    """Of model, target and runtime, the fewest that tell how these combinations stand; () where they stand alike."""
    if len({standing(one) for one in ones}) == 1:
        return ()
    factors = context_factors(summary)

    def decides(names: Sequence[str]) -> bool:
        found = {(context_words(one, names), standing(one)) for one in ones}
        return len(found) == len({place for place, _ in found})

    choices = (names for count in range(1, len(factors)) for names in itertools.combinations(factors, count))
    return next((names for names in choices if decides(names)), factors)


def _places(names: Sequence[str]) -> str:
    """Places that all begin alike say so once: "on cpu and cpu:exact"."""
    for start in ("for target ", "on "):
        if all(name.startswith(start) and " on " not in name for name in names):
            return start + listed([name.removeprefix(start) for name in names], _PLACES)
    return listed([name if name.startswith(("for ", "on ")) else f"for {name}" for name in names], _PLACES)


def _worst(summary: Summary, found: Tally) -> list[str]:
    judged = [one for one in summary.combinations if one.crossfit_drop is not None]
    if not judged:
        return [why_nothing_judged(summary, found)]
    worst = max(judged, key=lambda one: one.crossfit_drop or 0.0)
    where = ", ".join(filter(None, (worst.place.set_name, worst.place.method, *_context(summary, worst))))
    sentence = f"The largest cross-fitted worst-group drop is {points(worst.crossfit_drop)} ({where})"
    if names := worst.hurt_groups:
        loses = "the group that loses most there is" if len(names) == 1 else "the groups that lose most there are"
        sentence += f"; {loses} {groups_listed(names)}, {points(worst.hurt_drop)}{'' if len(names) == 1 else ' each'}"
    if worst.seeds > 1:
        sentence += f" (means over {worst.seeds} seeds)"
    return [f"{sentence}.", *_hurt_most(summary)]


def _context(summary: Summary, one: Combination) -> list[str]:
    words = context_words(one, context_factors(summary))
    return [words] if words else []


def _hurt_most(summary: Summary) -> list[str]:
    """The group, or the groups, that lose most in most of the failed combinations."""
    failed = [one for one in summary.named(FAILED) if one.hurt_groups]
    hurt = Counter(name for one in failed for name in one.hurt_groups)
    times = max(hurt.values(), default=0)
    if len(failed) < 2 or times < 2:
        return []
    names = [name for name, count in hurt.items() if count == times]
    said = groups_listed(names)
    if len(names) == 1:
        return [f"Among the {len(failed)} failed combinations, {said} is the group that loses most in {times}."]
    return [f"Among the {len(failed)} failed combinations, {said} are the groups that lose most, each in {times}."]


def _hidden(summary: Summary) -> list[str]:
    failed = summary.named(FAILED)
    hidden = [one for one in failed if one.average_drop is not None and one.average_drop <= AVERAGE_LIMIT]
    if not hidden:
        return []
    most = max(hidden, key=lambda one: one.crossfit_drop or 0.0)
    where = " and ".join((most.place.set_name, most.place.method))
    where = " ".join((where, *_context(summary, most)))
    return [
        f"The average hides {len(hidden)} of {counted(len(failed), 'failed combination')}: it drops by at most "
        f"{points(AVERAGE_LIMIT)} there. With {where} the average loses {points(most.average_drop)}, the worst group "
        f"{points(most.crossfit_drop)}."
    ]


def _caveats(summary: Summary, found: Tally) -> list[str]:
    study, caveats = summary.study, []
    if not found.finished:
        have = found.cells - found.missing_cells
        caveats.append(
            f"The study is not finished: {have} of {found.cells} cells {'has' if have == 1 else 'have'} a result, and "
            f"the words speak of those. Go on: {study.resume}"
        )
    caveats += failures(study)
    if found.judged and level_count(summary, "seed") == 1:
        caveats.append(
            "One seed: every number is about one draw of the calibration samples. Another draw may differ; sweep with "
            "three seeds or more to know."
        )
    judged = next((cell.figures for cell in study.cells if cell.figures.measure), Report.from_dict({}))
    if judged.measure == "agreement":
        caveats.append("The data has no labels: accuracy here is agreement with FP32, and a drop is a flip.")
    elif note := reference_note(judged.measure, judged.against):
        caveats.append(note)
    return caveats
