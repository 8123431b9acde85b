"""The answers to the research questions in words and as rows."""

from __future__ import annotations

from typing import Any

from onnxptq.reports.study.phrases import points
from onnxptq.reports.study.questions import Answer, Answers

ALPHA = 0.05

_NOUNS = {
    "calibration": "The calibration set",
    "method": "The method",
    "strategy": "Augmentation or sampling",
}


def answer_words(answer: Answer, seeds: int) -> list[str]:
    """An answer, in sentences: what was found, how large it is, how sure."""
    if answer.missing:
        return [answer.missing]
    sentences = [_conclusion(answer), *_size(answer, seeds), *_levels(answer)]
    if answer.dropped:
        sentences.append(f"Left out, without a single result: {', '.join(answer.dropped)}.")
    return sentences


def _conclusion(answer: Answer) -> str:
    if answer.p is None:
        return "Not tested: all cells share one draw of samples, and one draw cannot be compared with another."
    drawn = f"{answer.blocks} blocks of cells that share a draw"
    test = f"labels exchanged within {drawn}: p = {p_text(answer.p)}"
    if answer.p <= ALPHA:
        return f"Yes ({test})."
    limit = ""
    if answer.smallest is not None and answer.smallest > ALPHA:
        limit = f"; so few blocks cannot give less than {p_text(answer.smallest)}"
    return f"Not shown ({test}{limit})."


def _size(answer: Answer, seeds: int) -> list[str]:
    if answer.share is None:
        return ["Its share of the variance cannot be told from that of other factors: too many cells are missing."]
    text = f"{_NOUNS[answer.factor]} alone explains {share_text(answer.share)} of the variance of the worst-group drop"
    if answer.low is not None and answer.high is not None:
        text += f" (95 % interval {share_text(answer.low)} to {share_text(answer.high)} over {seeds} draws)"
    if answer.joint is not None and answer.joint > 0:
        text += f", and {share_text(answer.joint)} more in combination with the other two"
    return [text + "."]


def _levels(answer: Answer) -> list[str]:
    if len(answer.levels) < 2:
        return []
    best = min(answer.levels, key=lambda level: level.mean)
    worst = max(answer.levels, key=lambda level: level.mean)
    return [
        f"Best on average: {best.name}, {points(best.mean)}; worst: {worst.name}, {points(worst.mean)}; between them "
        f"{points(worst.mean - best.mean)}."
    ]


def share_text(value: float | None) -> str:
    """A share in percent."""
    return "-" if value is None else f"{100 * value:.1f} %".replace("-0.0", "0.0")


def p_text(value: float | None) -> str:
    """A p-value: three decimals, or four where it is small."""
    if value is None:
        return "-"
    return f"{value:.3f}" if value >= 0.001 else f"{value:.4f}"


def interval_text(low: float | None, high: float | None) -> str:
    """An interval of a difference, in points."""
    if low is None or high is None:
        return "-"
    return " to ".join(points(end, signed=True).removesuffix(" points") for end in (low, high))


def answer_rows(answers: Answers) -> list[dict[str, Any]]:
    """One flat row a question."""
    return [
        {
            "question": one.question,
            "factor": one.factor,
            "eta_squared": one.share,
            "eta_squared_low": one.low,
            "eta_squared_high": one.high,
            "eta_squared_joint": one.joint,
            "p": one.p,
            "blocks": one.blocks,
            "smallest_p": one.smallest,
            "missing": one.missing,
        }
        for one in answers.answers
    ]


def level_rows(answers: Answers) -> list[dict[str, Any]]:
    """One flat row a level of each factor."""
    return [
        {
            "factor": one.factor,
            "level": level.name,
            "mean": level.mean,
            "difference": level.difference,
            "difference_low": level.low,
            "difference_high": level.high,
        }
        for one in answers.answers
        for level in one.levels
    ]
