"""What to do, by tables that a reader can check: `CLOSING` for the whole study, `METHODS` for the choice of a method.

No row advises to ship what was not shown to be safe, and none names a method or a strategy for what it makes unsafe.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from onnxptq.evaluation.statistics import sources_to_decide
from onnxptq.reports.study.phrases import are, context_factors, context_words, counted, level_count, listed, points
from onnxptq.reports.study.reproduce import quantize_command
from onnxptq.reports.study.summary import SAFE, UNDECIDED, UNSAFE, Combination, Place, Summary, mean, place_of
from onnxptq.reports.study.tally import Tally
from onnxptq.sweeps.study import Study

NONE, SOME, ANY = "none", "some", "any"


@dataclass(frozen=True)
class Row:
    """A row of `CLOSING`: NONE, SOME or ANY of each, and what is said then.

    Attributes:
        judged: combinations with an estimate.
        safe, unsafe: combinations.
        open: combinations that are neither: undecided, not judged, failed, or without a result yet.
        says: one sentence or two.
    """

    judged: str
    safe: str
    unsafe: str
    open: str
    says: Callable[[Summary, Tally], str]

    def applies(self, found: Tally) -> bool:
        """All four columns hold."""
        columns = ((self.judged, found.judged), (self.safe, found.safe), (self.unsafe, found.unsafe))
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
    return f"Nothing was shown to be safe, and nothing to be unsafe ({_open(found)}): do not choose by this study yet."


def _all_unsafe(summary: Summary, found: Tally) -> str:
    return (
        "Everything here is unsafe. See in the group explorer who loses, then try a method for shifted sets "
        "(onnxptq methods), a strategy such as autocontrast, or leave the last layer in float."
    )


def _none_safe(summary: Summary, found: Tally) -> str:
    return (
        f"Nothing was shown to be safe: {found.unsafe} of {counted(found.combinations, 'combination')} "
        f"{are(found.unsafe)} unsafe, and the others may be too ({_open(found)})."
    )


def _all_safe(summary: Summary, found: Tally) -> str:
    return "Everything is safe: choose what is smallest or fastest, and gate it with onnxptq check." + _example(summary)


def _some_safe(summary: Summary, found: Tally) -> str:
    if found.safe == 1:
        start = "One combination was shown to be safe: gate it with onnxptq check."
    else:
        start = f"Choose among the {found.safe} safe combinations, the smallest or fastest of them, and gate it with "
        start += "onnxptq check."
    rest = f" What is open is not shown to be safe ({_open(found)})." if found.open else ""
    return f"{start}{rest}{_example(summary)}"


CLOSING = (
    # judged safe unsafe open
    Row(NONE, NONE, NONE, SOME, _nothing_judged),
    Row(SOME, NONE, NONE, SOME, _nothing_decided),
    Row(SOME, NONE, SOME, NONE, _all_unsafe),
    Row(SOME, NONE, SOME, SOME, _none_safe),
    Row(SOME, SOME, NONE, NONE, _all_safe),
    Row(SOME, SOME, NONE, SOME, _some_safe),
    Row(SOME, SOME, SOME, ANY, _some_safe),
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
        "failed": found.failed,
        "without a result yet": found.waiting,
    }
    return ", ".join(f"{count} {word}" for word, count in rest.items() if count)


def _example(summary: Summary) -> str:
    """The safe combination with the smallest mean drop, and the command that writes its model.

    What no reader can tell apart, a tenth of a point, is no difference: the first of the plan is named then.
    """
    best = min(summary.named(SAFE), key=lambda one: round(100 * (one.crossfit_drop or 0.0), 1))
    cells = (cell for cell in summary.study.cells if place_of(cell.key) == best.place)
    command = quantize_command(summary.study, next(cells).key)
    if command is None:
        return ""
    where = ", ".join(filter(None, (best.place.method, context_words(best, context_factors(summary)))))
    return (
        f" Among the safe, {best.place.set_name} with {where} has the smallest mean drop "
        f"({points(best.crossfit_drop)}): {command}"
    )


@dataclass(frozen=True)
class Standing:
    """How a method does.

    Attributes:
        method: its name.
        unsafe: combinations, of those that every method has an estimate for; `shared`, how many these are.
        drop: mean cross-fitted drop over these.
        all_unsafe, all_safe, total: over all combinations of the method in the plan, whatever the others have.
    """

    unsafe: int
    drop: float
    method: str
    shared: int
    all_unsafe: int
    all_safe: int
    total: int


@dataclass(frozen=True)
class Choice:
    """A row of `METHODS`.

    Attributes:
        alike: the methods have as many unsafe combinations, and mean drops that differ by no more than the limit.
        unsafe: combinations of the best method; where they are alike, of those that every method has an estimate for.
        safe: combinations of the best method: ANY, or "all" of the plan's.
        says: the sentence.
    """

    alike: bool
    unsafe: str
    safe: str
    says: Callable[[Standing, Standing], str]

    def applies(self, alike: bool, best: Standing) -> bool:
        """All columns hold."""
        safe = best.all_safe == best.total if self.safe == "all" else _holds(self.safe, best.all_safe)
        unsafe = best.unsafe if alike else best.all_unsafe
        return self.alike == alike and _holds(self.unsafe, unsafe) and safe


def _alike_unsafe(best: Standing, last: Standing) -> str:
    return f"{_alike_in(best, last, str(best.unsafe))}: choose the calibration set with care, not the method."


def _alike(best: Standing, last: Standing) -> str:
    return f"{_alike_in(best, last, 'none')}: nothing here speaks for one of them."


def _alike_in(best: Standing, last: Standing, unsafe: str) -> str:
    where = "" if best.shared == best.total else " where each was judged"
    return (
        f"The methods are alike{where} ({unsafe} of {counted(best.shared, 'combination')} unsafe with each, "
        f"{points(best.drop)} to {points(last.drop)} on average)"
    )


def _take(best: Standing, last: Standing) -> str:
    return (
        f"If you cannot vouch for the calibration set, take {best.method}: all {best.total} of its combinations are "
        f"safe, {points(best.drop)} on average ({_other(last)})."
    )


def _look_first(best: Standing, last: Standing) -> str:
    return (
        f"If you cannot vouch for the calibration set, look at {best.method} first: none of its {best.total} "
        f"combinations is unsafe, {best.all_safe or 'none'} {are(best.all_safe or 'none')} shown to be safe, "
        f"{points(best.drop)} on average ({_other(last)})."
    )


def _no_method(best: Standing, last: Standing) -> str:
    whole = best.shared == best.total
    unsafe = f"{best.all_unsafe} of {best.total}" if whole else f"{best.unsafe} of the {best.shared} judged with each"
    return (
        f"No method is safe whatever the calibration set, so choose the set with care. {best.method} has the fewest "
        f"unsafe combinations: {unsafe}, {points(best.drop)} on average ({_other(last)})."
    )


def _other(last: Standing) -> str:
    over = f"over the {last.shared} that both have; " if last.shared < last.total else ""
    return f"{over}{last.method}: {last.unsafe or 'none'} unsafe, {points(last.drop)}"


METHODS = (
    # alike unsafe safe
    Choice(True, SOME, ANY, _alike_unsafe),
    Choice(True, NONE, ANY, _alike),
    Choice(False, SOME, ANY, _no_method),
    Choice(False, NONE, "all", _take),
    Choice(False, NONE, ANY, _look_first),
)
"""The first row that applies, of two and more methods that have an estimate for the same combinations."""


def _method(summary: Summary, found: Tally) -> list[str]:
    standings = _standings(summary, found)
    if len(standings) < 2:
        return []
    best, last = min(standings, key=_rank), max(standings, key=_rank)
    alike = best.unsafe == last.unsafe and last.drop - best.drop <= summary.limit
    return [next(row.says(best, last) for row in METHODS if row.applies(alike, best))]


def _rank(one: Standing) -> tuple[int, float, str]:
    return one.unsafe, one.drop, one.method


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
                    unsafe=sum(ones[place].verdict == UNSAFE for place in shared),
                    drop=drop,
                    method=method,
                    shared=len(shared),
                    all_unsafe=sum(one.verdict == UNSAFE for one in ones.values()),
                    all_safe=sum(one.verdict == SAFE for one in ones.values()),
                    total=max(len(ones), found.combinations // level_count(summary, "method")),
                )
            )
    return standings


def _strategies(summary: Summary) -> list[str]:
    """What each strategy repairs and what it makes unsafe.

    | repairs | makes unsafe | says |
    |---|---|---|
    | some, some of them to safe | none | add it |
    | some, none of them to safe | none | try it |
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
        unsafe = [pair for pair in pairs if pair[0].verdict == UNSAFE]
        safe = [before for before, after in unsafe if after.verdict == SAFE]
        # What was not judged for every seed is not repaired: it is not known.
        undecided = [before for before, after in unsafe if after.verdict == UNDECIDED and after.whole]
        broken = [before for before, after in pairs if before.verdict != UNSAFE and after.verdict == UNSAFE]
        if repaired := [*safe, *undecided]:
            parts = {"safe": len(safe), "undecided": len(undecided)}
            into = " and ".join(f"{count} {_becomes(count)} {word}" for word, count in parts.items() if count)
            found = f"of {counted(len(unsafe), 'unsafe combination')} {into} ({_sets(repaired)})"
            if broken:
                sentences.append(
                    f"{strategy} is for some sets only: {found}, and {len(broken)} that {_was(len(broken))} not unsafe "
                    f"{_becomes(len(broken))} so ({_sets(broken)})."
                )
            else:
                start = "Add" if safe else "Try"
                sentences.append(f"{start} {strategy}: {found}; none that was not unsafe becomes so.")
        elif broken:
            made = counted(len(broken), "combination")
            sentences.append(f"Do without {strategy}: it makes {made} unsafe ({_sets(broken)}) and repairs none.")
    return sentences


def _sets(ones: Iterable[Combination]) -> str:
    return listed(list(dict.fromkeys(one.place.calibration for one in ones)))


def _becomes(number: int) -> str:
    return "becomes" if number <= 1 else "become"


def _was(number: int) -> str:
    return "was" if number == 1 else "were"


def _samples(summary: Summary) -> list[str]:
    """How many times as many samples would decide what is undecided though within the limit."""
    # What a failed or missing seed leaves open is not for more samples to decide.
    near = [one for one in summary.named(UNDECIDED) if one.leans_safe and one.whole]
    factors = [
        ((one.high - one.crossfit_drop) / (summary.limit - one.crossfit_drop)) ** 2
        for one in near
        if one.high is not None and one.crossfit_drop is not None and one.crossfit_drop < summary.limit
    ]
    start = f"{counted(len(near), 'undecided combination')} {are(len(near))} within the limit, but not surely"
    fewest = _fewest_judged(summary.study)
    if near and fewest is not None and summary.limit and fewest < (needed := sources_to_decide(summary.limit)):
        return [
            f"{start}, and with these groups cannot be: the smallest has {fewest} samples, and it takes {needed} to "
            f"show a drop of at most {points(summary.limit)} even where no prediction changes. Judge on more samples, "
            'or by coarser groups (groups = ["corruption"]).'
        ]
    if not factors:
        return []
    times = max(2, math.ceil(statistics.median(factors)))
    shown = "it" if len(factors) == 1 else "half of these"
    return [
        f"{start}: the samples are too few. Intervals shrink with the root of their number; about {times} times as "
        f"many would show {shown} safe, if the estimates hold."
    ]


def _fewest_judged(study: Study) -> int | None:
    """Original samples of the smallest judged group; every cell is judged on the same ones."""
    groups = next((cell.report["groups"] for cell in study.cells if cell.report.get("groups")), ())
    return min((group["sources"] for group in groups if group["judged"]), default=None)


def _without(place: Place, left_out: str) -> tuple[str, ...]:
    """A place without one of its factors."""
    factors: Sequence[str] = ("model", "calibration", "strategy", "method", "target", "runtime")
    return tuple(getattr(place, name) for name in factors if name != left_out)
