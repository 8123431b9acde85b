"""Heads: what a model's outputs mean, and how good an answer is."""

from __future__ import annotations

from onnxptq.heads._base import (
    DEFINITIONS,
    HEADS,
    Answers,
    Head,
    HeadKind,
    Hints,
    Output,
    Scores,
    Specification,
    Total,
    Truths,
    rows_of,
)
from onnxptq.heads._choice import RAW, HeadChoice, choose_head
from onnxptq.heads._measure import Against, Measure

__all__ = [
    "DEFINITIONS",
    "HEADS",
    "RAW",
    "Against",
    "Answers",
    "Head",
    "HeadChoice",
    "HeadKind",
    "Hints",
    "Measure",
    "Output",
    "Scores",
    "Specification",
    "Total",
    "Truths",
    "choose_head",
    "rows_of",
]
