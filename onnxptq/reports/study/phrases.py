"""How the words of a study say a number, a list of names, a group, and where a combination stands."""

from __future__ import annotations

from collections.abc import Sequence

from onnxptq.reports.study.summary import BROKEN, FAILED, PASSED, UNDECIDED, Combination, Summary

_NAMED = 8
"""Names in a sentence before the rest is counted."""

WITHIN, ABOVE = "undecided (within the limit)", "undecided (above the limit)"
PARTLY = "undecided (not every seed was judged)"
NOT_JUDGED = "not judged"

RANK = (FAILED, BROKEN, ABOVE, NOT_JUDGED, PARTLY, UNDECIDED, WITHIN, PASSED)
"""Standings from the worst to the best."""

CONTEXT = ("model", "target", "runtime")
"""What a method is judged for, beside the calibration set."""


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


def counted(number: int, noun: str) -> str:
    """ "1 combination", "24 combinations"."""
    return f"{number} {noun if number == 1 else f'{noun}s'}"


def are(number: int | str) -> str:
    """The verb that goes with a number; "none" is one."""
    return "is" if number in (1, "none") else "are"


def group_words(name: str) -> str:
    """A group as a person says it: "cat, fog@3" for "label=cat*corruption=fog@3"."""
    parts = [part.partition("=") for part in name.split("*")]
    plain = {"label", "corruption"}
    return ", ".join(v if key in plain and not v.isdigit() else f"{key} {v}" for key, _, v in parts)


def groups_listed(names: Sequence[str]) -> str:
    """Groups in a sentence; several whose words hold a comma are set in quotes."""
    said = [group_words(name) for name in names]
    if len(said) > 1 and any("," in name for name in said):
        said = [f'"{name}"' for name in said]
    return listed(said, 4)


def standing(one: Combination) -> str:
    """The verdict; where it is open, on which side of the limit the estimate lies, or why there is none."""
    if one.verdict != UNDECIDED:
        return one.verdict
    if not one.seeds:
        return NOT_JUDGED
    if one.leans_within is False:
        return ABOVE
    return WITHIN if one.whole else PARTLY


def context_factors(summary: Summary) -> tuple[str, ...]:
    """Of model, target and runtime, those of which the plan has several, be there cells of all of them yet or not."""
    return tuple(name for name in CONTEXT if level_count(summary, name) > 1)


def level_count(summary: Summary, factor: str) -> int:
    """How many levels of a factor the plan has; those of the cells where the plan does not say."""
    planned = summary.study.plan.get("strategies" if factor == "strategy" else f"{factor}s")
    return max(len(summary.levels(factor)), len(planned) if isinstance(planned, list) else 0)


def context_words(one: Combination, factors: Sequence[str]) -> str:
    """What a combination was judged for: "net.onnx for target tensorrt on cpu"; "" without factors."""
    said = {"model": "{}", "target": "for target {}", "runtime": "on {}"}
    return " ".join(said[name].format(getattr(one.place, name)) for name in factors)
