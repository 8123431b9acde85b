"""The study as Markdown, for a pull request: the verdict, the matrix, the three answers, command and plan."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from onnxptq.foreign_text import fenced, markdown
from onnxptq.reports.study.answers import answer_words
from onnxptq.reports.study.questions import Answers
from onnxptq.reports.study.reproduce import command_again, plan_text
from onnxptq.reports.study.summary import Summary
from onnxptq.reports.study.words import definition, matrix_caption, matrix_rows, verdict


def study_markdown(summary: Summary, answers: Answers) -> str:
    """A few screens of Markdown. Names come from the user's files, so what Markdown would read in them is escaped."""
    words = verdict(summary)
    study = summary.study
    lines = [f"## {markdown(study.name)}", "", f"**{markdown(words.headline)}**", "", *_list(words.findings)]
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
    lines += [f"<sub>{markdown(definition(summary))}</sub>", ""]
    for answer in answers.answers:
        lines += [f"**{answer.question}** {markdown(' '.join(answer_words(answer, answers.seeds)))}", ""]
    lines += [*_list(answers.notes), "", f"Run {markdown(study.run)}; again:", "", *fenced(command_again(study), "sh")]
    lines += ["", "<details><summary>The plan</summary>", "", *fenced(plan_text(study), "toml"), "", "</details>"]
    return "\n".join(lines) + "\n"


def _list(sentences: Iterable[str]) -> list[str]:
    return [f"- {markdown(one)}" for one in sentences]


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    made = [heads, ["---"] * len(heads), *rows]
    return ["| " + " | ".join(text if text == "---" else markdown(text) for text in row) + " |" for row in made]
