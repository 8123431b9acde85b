"""What to do, by tables that a reader can check: `CLOSING` for the whole study, `METHODS` for the choice of a method.

No row advises to ship what has not passed, and none names a method or a strategy for what it makes fail.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnxptq.evaluation.statistics import sources_to_decide
from onnxptq.reports.study.phrases import are, context_factors, context_words, counted, level_count, listed, points
from onnxptq.reports.study.reproduce import quantize_command
from onnxptq.reports.study.summary import (
    FAILED,
    PASSED,
    UNDECIDED,
    Combination,
    CombinationKey,
    Summary,
    mean,
    place_of,
)
from onnxptq.reports.study.tally import Tally
from onnxptq.sweeps.study import Study

NONE, SOME, ANY = "none", "some", "any"


@dataclass(frozen=True)
class HeadlineRule:
    """A row of `CLOSING`: NONE, SOME or ANY of each, and what is said then.

    Attributes:
        judged: combinations with an estimate.
        passed, failed: combinations.
        open: combinations that are neither: undecided, not judged, failed, or without a result yet.
        says: one sentence or two.
    """

    judged: str
    passed: str
    failed: str
    open: str
    says: Callable[[Summary, Tally], str]

    def applies(self, found: Tally) -> bool:
        """All four columns hold."""
        columns = ((self.judged, found.judged), (self.passed, found.passed), (self.failed, found.failed))
        return all(_holds(wanted, count) for wanted, count in (*columns, (self.open, found.open)))


def _holds(wanted: str, count: int) -> bool:
    return wanted == ANY or (wanted == SOME) == (count > 0)


def _nothing_judged(summary: Summary, found: Tally) -> str:
    remedies = []
    if found.failed_cells:
        remedies.append(f"see why cells failed ({summary.study.show})")
    if found.unjudged_cells:
        remedies.append("judge on more samples, by coarser groups, or with a lower minimum_samples")
    if found.missing_cells:
        remedies.append("let the sweep end")
    return f"Nothing can be chosen by this study: {', and '.join(remedies)}."


def _nothing_decided(summary: Summary, found: Tally) -> str:
    return f"Nothing was shown to pass, and nothing to fail ({_open(found)}): do not choose by this study yet."


def _all_failed(summary: Summary, found: Tally) -> str:
    return (
        "Everything here failed. See in the group explorer who loses, then try a method for shifted sets "
        "(onnxptq methods), a strategy such as autocontrast, or leave the last layer in float."
    )


def _none_passed(summary: Summary, found: Tally) -> str:
    return (
        f"Nothing was shown to pass: {found.failed} of {counted(found.combinations, 'combination')} "
        f"failed, and the others may too ({_open(found)})."
    )


def _all_passed(summary: Summary, found: Tally) -> str:
    return "Everything passed: choose what is smallest or fastest, and gate it with onnxptq check." + _example(summary)


def _some_passed(summary: Summary, found: Tally) -> str:
    if found.passed == 1:
        start = "One combination passed: gate it with onnxptq check."
    else:
        start = f"Choose among the {found.passed} combinations that passed, the smallest or fastest of them, and gate "
        start += "it with onnxptq check."
    rest = f" What is open has not passed ({_open(found)})." if found.open else ""
    return f"{start}{rest}{_example(summary)}"


CLOSING = (
    # judged passed failed open
    HeadlineRule(NONE, NONE, NONE, SOME, _nothing_judged),
    HeadlineRule(SOME, NONE, NONE, SOME, _nothing_decided),
    HeadlineRule(SOME, NONE, SOME, NONE, _all_failed),
    HeadlineRule(SOME, NONE, SOME, SOME, _none_passed),
    HeadlineRule(SOME, SOME, NONE, NONE, _all_passed),
    HeadlineRule(SOME, SOME, NONE, SOME, _some_passed),
    HeadlineRule(SOME, SOME, SOME, ANY, _some_passed),
)
"""Exactly one row applies to any study."""


def advice(summary: Summary, found: Tally) -> list[str]:
    """What to do: strategies, the method, more samples, and what the whole study allows."""
    closing = [row.says(summary, found) for row in CLOSING if row.applies(found)]
    return [*_strategies(summary), *_method(summary, found), *_samples(summary), *closing]


def _open(found: Tally) -> str:
    """ "3 undecided, 2 failed" """
    rest = {
        "undecided": found.undecided,
        "not judged": found.unjudged,
        "broken": found.broken,
        "without a result yet": found.waiting,
    }
    return ", ".join(f"{count} {word}" for word, count in rest.items() if count)


def _example(summary: Summary) -> str:
    """The passed combination with the smallest mean drop, and the command that writes its model.

    What no reader can tell apart, a tenth of a point, is no difference: the first of the plan is named then.
    """
    best = min(summary.named(PASSED), key=lambda one: round(100 * (one.crossfit_drop or 0.0), 1))
    cells = (cell for cell in summary.study.cells if place_of(cell.key) == best.place)
    command = quantize_command(summary.study, next(cells).key)
    if command is None:
        return ""
    where = ", ".join(filter(None, (best.place.method, context_words(best, context_factors(summary)))))
    return (
        f" Among those that passed, {best.place.set_name} with {where} has the smallest mean drop "
        f"({points(best.crossfit_drop)}): {command}"
    )


@dataclass(frozen=True)
class Standing:
    """How a method does.

    Attributes:
        method: its name.
        failed: combinations, of those that every method has an estimate for; `shared`, how many these are.
        drop: mean cross-fitted drop over these.
        all_failed, all_passed, total: over all combinations of the method in the plan, whatever the others have.
    """

    failed: int
    drop: float
    method: str
    shared: int
    all_failed: int
    all_passed: int
    total: int


@dataclass(frozen=True)
class MethodRule:
    """A row of `METHODS`.

    Attributes:
        alike: the methods have as many failed combinations, and mean drops that differ by no more than the limit.
        failed: combinations of the best method; where they are alike, of those that every method has an estimate for.
        passed: combinations of the best method: ANY, or "all" of the plan's.
        says: the sentence.
    """

    alike: bool
    failed: str
    passed: str
    says: Callable[[Standing, Standing], str]

    def applies(self, alike: bool, best: Standing) -> bool:
        """All columns hold."""
        passed = best.all_passed == best.total if self.passed == "all" else _holds(self.passed, best.all_passed)
        failed = best.failed if alike else best.all_failed
        return self.alike == alike and _holds(self.failed, failed) and passed


def _alike_failed(best: Standing, last: Standing) -> str:
    return f"{_alike_in(best, last, str(best.failed))}: choose the calibration set with care, not the method."


def _alike(best: Standing, last: Standing) -> str:
    return f"{_alike_in(best, last, 'none')}: nothing here speaks for one of them."


def _alike_in(best: Standing, last: Standing, failed: str) -> str:
    where = "" if best.shared == best.total else " where each was judged"
    return (
        f"The methods are alike{where} ({failed} of {counted(best.shared, 'combination')} failed with each, "
        f"{points(best.drop)} to {points(last.drop)} on average)"
    )


def _take(best: Standing, last: Standing) -> str:
    return (
        f"If you cannot vouch for the calibration set, take {best.method}: all {best.total} of its combinations "
        f"passed, {points(best.drop)} on average ({_other(last)})."
    )


def _look_first(best: Standing, last: Standing) -> str:
    return (
        f"If you cannot vouch for the calibration set, look at {best.method} first: none of its {best.total} "
        f"combinations failed, {best.all_passed or 'none'} passed, "
        f"{points(best.drop)} on average ({_other(last)})."
    )


def _no_method(best: Standing, last: Standing) -> str:
    whole = best.shared == best.total
    failed = f"{best.all_failed} of {best.total}" if whole else f"{best.failed} of the {best.shared} judged with each"
    return (
        f"No method passed whatever the calibration set, so choose the set with care. {best.method} has the fewest "
        f"failed combinations: {failed}, {points(best.drop)} on average ({_other(last)})."
    )


def _other(last: Standing) -> str:
    over = f"over the {last.shared} that both have; " if last.shared < last.total else ""
    return f"{over}{last.method}: {last.failed or 'none'} failed, {points(last.drop)}"


METHODS = (
    # alike failed passed
    MethodRule(True, SOME, ANY, _alike_failed),
    MethodRule(True, NONE, ANY, _alike),
    MethodRule(False, SOME, ANY, _no_method),
    MethodRule(False, NONE, "all", _take),
    MethodRule(False, NONE, ANY, _look_first),
)
"""The first row that applies, of two and more methods that have an estimate for the same combinations."""


def _method(summary: Summary, found: Tally) -> list[str]:
    standings = _standings(summary, found)
    if len(standings) < 2:
        return []
    best, last = min(standings, key=_rank), max(standings, key=_rank)
    alike = best.failed == last.failed and last.drop - best.drop <= summary.limit
    return [next(row.says(best, last) for row in METHODS if row.applies(alike, best))]


def _rank(one: Standing) -> tuple[int, float, str]:
    return one.failed, one.drop, one.method


def _standings(summary: Summary, found: Tally) -> list[Standing]:
    """Of each method with an estimate, compared where all of these have one: a failure is no merit."""
    by_method: dict[str, dict[tuple[str, ...], Combination]] = {}
    for one in summary.combinations:
        by_method.setdefault(one.place.method, {})[_without(one.place, "method")] = one
    judged = {
        method: {place for place, one in ones.items() if one.crossfit_drop is not None}
        for method, ones in by_method.items()
    }
    shared = set.intersection(*filter(None, judged.values())) if any(judged.values()) else set()
    standings = []
    for method, ones in by_method.items():
        drop = mean(ones[place].crossfit_drop for place in shared if place in judged[method])
        if drop is not None and judged[method]:
            standings.append(
                Standing(
                    failed=sum(ones[place].verdict == FAILED for place in shared),
                    drop=drop,
                    method=method,
                    shared=len(shared),
                    all_failed=sum(one.verdict == FAILED for one in ones.values()),
                    all_passed=sum(one.verdict == PASSED for one in ones.values()),
                    total=max(len(ones), found.combinations // level_count(summary, "method")),
                )
            )
    return standings


def _strategies(summary: Summary) -> list[str]:
    """What each strategy repairs and what it makes fail.

    | repairs | makes fail | says |
    |---|---|---|
    | some, some of them to passed | none | add it |
    | some, none of them to passed | none | try it |
    | some | some | only for the sets that it repairs |
    | none | some | do without |
    | none | none | nothing |
    """
    plain = {_without(one.place, "strategy"): one for one in summary.combinations if not one.place.strategy}
    sentences = []
    for strategy in filter(None, summary.levels("strategy")):
        pairs = [
            (plain[place], one)
            for one in summary.combinations
            if one.place.strategy == strategy and (place := _without(one.place, "strategy")) in plain
        ]
        failed = [pair for pair in pairs if pair[0].verdict == FAILED]
        passed = [before for before, after in failed if after.verdict == PASSED]
        # What was not judged for every seed is not repaired: it is not known.
        undecided = [before for before, after in failed if after.verdict == UNDECIDED and after.whole]
        broken = [before for before, after in pairs if before.verdict != FAILED and after.verdict == FAILED]
        if repaired := [*passed, *undecided]:
            parts = {"pass": len(passed), "become": len(undecided)}
            into = " and ".join(f"{count} {_verb(count, verb)}" for verb, count in parts.items() if count)
            found = f"of {counted(len(failed), 'failed combination')} {into} ({_sets(repaired)})"
            if broken:
                sentences.append(
                    f"{strategy} is for some sets only: {found}, and {len(broken)} that had not failed "
                    f"{_verb(len(broken), 'fail')} ({_sets(broken)})."
                )
            else:
                start = "Add" if passed else "Try"
                sentences.append(f"{start} {strategy}: {found}; none that had not failed fails.")
        elif broken:
            made = counted(len(broken), "combination")
            sentences.append(f"Do without {strategy}: it makes {made} fail ({_sets(broken)}) and repairs none.")
    return sentences


def _sets(ones: Iterable[Combination]) -> str:
    return listed(list(dict.fromkeys(one.place.calibration for one in ones)))


def _verb(number: int, verb: str) -> str:
    """The verb that goes with a number of combinations; what becomes something becomes undecided."""
    plural = {"pass": "pass", "fail": "fail", "become": "become undecided"}[verb]
    singular = {"pass": "passes", "fail": "fails", "become": "becomes undecided"}[verb]
    return singular if number <= 1 else plural


def _samples(summary: Summary) -> list[str]:
    """How many times as many samples would decide what is undecided though within the limit."""
    # What a failed or missing seed leaves open is not for more samples to decide.
    near = [one for one in summary.named(UNDECIDED) if one.leans_within and one.whole]
    factors = [
        ((one.possible - one.crossfit_drop) / (summary.tolerance - one.crossfit_drop)) ** 2
        for one in near
        if one.possible is not None and one.crossfit_drop is not None and one.crossfit_drop < summary.tolerance
    ]
    start = f"{counted(len(near), 'undecided combination')} {are(len(near))} within the limit, but not surely"
    fewest = _fewest_judged(summary.study)
    needed = sources_to_decide(min(summary.tolerance, 0.99))
    if near and fewest is not None and fewest < needed:
        return [
            f"{start}, and with these groups cannot be: the smallest has {fewest} samples, and it takes {needed} to "
            f"rule out a drop of more than {points(summary.tolerance)} even where no prediction changes. Judge on more "
            'samples, or by coarser groups (groups = ["corruption"]).'
        ]
    if not factors:
        return []
    times = max(2, math.ceil(statistics.median(factors)))
    shown = "it" if len(factors) == 1 else "half of these"
    return [
        f"{start}: the samples are too few. Intervals shrink with the root of their number; about {times} times as "
        f"many would let {shown} pass, if the estimates hold."
    ]


def _fewest_judged(study: Study) -> int | None:
    """Original samples of the smallest judged group; every cell is judged on the same ones."""
    groups = next((cell.figures.groups for cell in study.cells if cell.figures.groups), ())
    return min((group.sources for group in groups if group.judged), default=None)


def _without(place: CombinationKey, left_out: str) -> tuple[str, ...]:
    """A place without one of its factors."""
    factors: Sequence[str] = ("model", "calibration", "strategy", "method", "target", "runtime")
    return tuple(getattr(place, name) for name in factors if name != left_out)
