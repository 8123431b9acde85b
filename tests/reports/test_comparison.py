"""What a comparison means, in a sentence for each model and runtime."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from onnxptq.comparison.result import Comparison, ComparisonRow, Speed
from onnxptq.reports.comparison import meaning
from onnxptq.runtimes.latency import Latency


def speed(milliseconds: float) -> tuple[Speed, ...]:
    seconds = milliseconds / 1e3
    return (Speed(1, None, Latency(runs=10, mean=seconds, p50=seconds, p90=seconds, p99=seconds)),)


def report(drop: float, **changes: Any) -> Any:
    values = {
        "crossfit_drop": drop, "crossfit_drop_low": drop - 0.01, "crossfit_drop_high": drop + 0.01,
        "average_drop": 0.004, "largest_drop_group": "label=cat*corruption=fog@3",
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


FP32 = ComparisonRow("fp32.onnx", "cpu", False, "done", 4_000, report=report(0.0), speed=speed(3.0))
INT8 = ComparisonRow("int8.onnx", "cpu", True, "done", 1_000, report=report(0.003), speed=speed(2.0))


def said(row: ComparisonRow) -> list[str]:
    return meaning(Comparison("fp32.onnx", (), (FP32, row), (), ()))


def test_fast_small_and_a_little_worse() -> None:
    assert said(INT8) == [
        "int8.onnx on cpu is 1.5 times as fast, 4.0 times smaller and 0.3 points worse in its worst group (95 %: "
        "-0.7 to +1.3 points lost; most in cat · fog@3) compared with FP32."
    ]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"speed": speed(6.0)}, "is 2.0 times slower, "),
        ({"speed": speed(2.95)}, "is as fast, "),
        ({"speed": ()}, "is 4.0 times smaller and 0.3 points worse"),
        ({"file_bytes": 8_000}, "2.0 times larger"),
        ({"report": report(-0.012)}, "1.2 points better in its worst group (95 %: -2.2 to -0.2 points lost)"),
        ({"report": report(0.0004)}, "neither better nor worse in its worst group"),
        ({"report": report(float("nan"))}, "0.4 points worse on average (no group has enough samples)"),
    ],
)
def test_each_part_says_what_was_measured(change: dict[str, Any], words: str) -> None:
    (line,) = said(replace(INT8, **change))
    assert words in line


def test_what_did_not_run_has_no_sentence() -> None:
    assert said(replace(INT8, status="crashed", report=None)) == []
