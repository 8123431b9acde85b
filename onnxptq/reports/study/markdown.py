"""The study as Markdown, for a pull request: the verdict, the matrix, the three answers, command and plan."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from onnxptq.reports.study.answers import answer_words
from onnxptq.reports.study.questions import Answers
from onnxptq.reports.study.reproduce import command_again, plan_text
from onnxptq.reports.study.summary import Summary
from onnxptq.reports.study.words import definition, matrix_caption, matrix_rows, verdict


def study_markdown(summary: Summary, answers: Answers) -> str:
    """A few screens of Markdown. Names come from the user's files, so what Markdown would read in them is escaped."""
    words = verdict(summary)
    study = summary.study
    lines = [f"## {_text(study.name)}", "", f"**{_text(words.headline)}**", "", *_list(words.findings)]
    if words.advice:
        lines += ["", "**What to do**", "", *_list(words.advice)]
    if words.caveats:
        lines += ["", "**What this cannot tell**", "", *_list(words.caveats)]
    lines += [
        "",
        f"{matrix_caption(summary)}:",
        "",
        *_table(["calibration set", *summary.levels("method")], matrix_rows(summary)),
        "",
    ]
    lines += [f"<sub>{_text(definition(summary))}</sub>", ""]
    for answer in answers.answers:
        lines += [f"**{answer.question}** {_text(' '.join(answer_words(answer, answers.seeds)))}", ""]
    lines += [*_list(answers.notes), "", f"Run {_text(study.run)}; again:", "", *_fenced(command_again(study), "sh")]
    lines += ["", "<details><summary>The plan</summary>", "", *_fenced(plan_text(study), "toml"), "", "</details>"]
    return "\n".join(lines) + "\n"


def _fenced(text: str, language: str) -> list[str]:
    """A block of code: Markdown reads nothing in it up to a fence as long as its own."""
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))
    return [f"{fence}{language}", text.rstrip("\n"), fence]


def _list(sentences: Iterable[str]) -> list[str]:
    return [f"- {_text(one)}" for one in sentences]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    made = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(text if text == "---" else _text(text) for text in row) + " |" for row in made]


def _text(value: str) -> str:
    r"""Escapes what Markdown or HTML would read, and keeps it on one line."""
    one_line = " ".join(value.split())
    escaped = "".join(f"\\{c}" if c in "\\`*_[]<>|#~" else c for c in one_line)
    # "dark@3" is no mention, "@3" would be one.
    return re.sub(r"(?<!\w)@", "@<!-- -->", escaped)
