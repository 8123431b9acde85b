"""What tables say of the measure that answers were judged by."""

from __future__ import annotations

CLASSIFIERS = ("accuracy", "agreement")
"""Measures of classifiers: without labels, their agreement with FP32 stands where accuracy would."""


def score_name(measure: str) -> str:
    """What a column of scores is called: "accuracy" for a classifier with or without labels."""
    return "accuracy" if measure in CLASSIFIERS else measure


def reference_note(measure: str, against: str) -> str | None:
    """What a reader must know where answers were compared with FP32's, for want of a truth."""
    if measure == "agreement":
        return "No labels: accuracy here is agreement with FP32, and a drop is a flip."
    if against == "reference":
        return f"No truth: {measure} says how near the answers are to those of FP32."
    return None


def test_name(binary: bool) -> str:
    """The test behind the p-values of "no difference"."""
    return "McNemar" if binary else "sign flips of original samples"
