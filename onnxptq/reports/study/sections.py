"""Parts of the page that need no script: tables, the three answers, providers side by side, how to make it again."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import Any

from onnxptq.evaluation.report import MINIMUM_SAMPLES
from onnxptq.reports.study.answers import answer_words, interval_text, share_text
from onnxptq.reports.study.phrases import points
from onnxptq.reports.study.providers import SideBySide, column_name, columns, side_by_side
from onnxptq.reports.study.questions import Answer, Answers
from onnxptq.reports.study.reproduce import (
    PLAN_FILE,
    command_again,
    command_rows,
    input_digests,
    plan_text,
    systems,
)
from onnxptq.reports.study.summary import Summary
from onnxptq.reports.study.words import StudyVerdict, definition, matrix_caption, matrix_rows
from onnxptq.sweeps.study import Study

_SHOWN_COMMANDS = 400
"""Lines of the list of commands."""

_SHOWN_PROVIDERS = 40
"""Rows of the table of providers; those with the largest differences. The CSV has all."""


def verdict_html(summary: Summary, words: StudyVerdict) -> str:
    """The verdict in words, and as a table that is folded away."""
    parts = [f'<p class="headline">{escaped(words.headline)}</p>', bullets(words.findings)]
    if words.advice:
        parts += ["<h3>What to do</h3>", bullets(words.advice)]
    if words.caveats:
        parts += ["<h3>What this cannot tell</h3>", bullets(words.caveats)]
    matrix = table_html(
        matrix_caption(summary),
        ["calibration set", *summary.levels("method")],
        matrix_rows(summary),
        identity="matrix",
    )
    parts.append(f"<details><summary>The verdict as a table</summary>{matrix}</details>")
    parts.append(f'<details><summary>What "passed" means</summary><p>{escaped(definition(summary))}</p></details>')
    return "\n".join(parts)


def questions_html(answers: Answers) -> str:
    """The three answers with their tables, and the table of variance."""
    parts = [_answer_html(answer, answers.seeds) for answer in answers.answers]
    rows = [
        [
            row.term,
            share_text(row.share),
            "-" if row.low is None else f"{share_text(row.low)} to {share_text(row.high)}",
            share_text(row.unbiased),
            "-" if row.degrees is None else str(row.degrees),
        ]
        for row in answers.variance
    ]
    if rows:
        caption = f"Variance of the cross-fitted worst-group drop over {answers.judged} of {answers.cells} cells"
        heads = ["explained by", "share (eta²)", "95 % interval", "omega²", "df"]
        parts.append("<h3>What explains the variance</h3>" + table_html(caption, heads, rows, numbers=True))
    parts.append(bullets(answers.notes))
    return "\n".join(parts)


def _answer_html(answer: Answer, seeds: int) -> str:
    parts = [f"<h3>{escaped(answer.question)}</h3><p>{escaped(' '.join(answer_words(answer, seeds)))}</p>"]
    if answer.levels:
        reference = answer.levels[0].name
        caption = f"Mean cross-fitted worst-group drop, points; difference to {reference}, paired"
        rows = [
            [
                level.name,
                points(level.mean).removesuffix(" points"),
                "reference" if not position else points(level.difference, signed=True).removesuffix(" points"),
                interval_text(level.low, level.high),
            ]
            for position, level in enumerate(answer.levels)
        ]
        heads = [answer.factor, "mean", f"difference to {reference}", "95 % interval"]
        parts.append(table_html(caption, heads, rows, numbers=True, identity=f"levels-{answer.factor}"))
    return "".join(parts)


def providers_html(summary: Summary) -> str:
    """Targets and runtimes side by side."""
    rows = side_by_side(summary)
    if not rows:
        only = escaped(column_name(summary, columns(summary)[0]))
        return f"<p>The study judged on one provider, {only}: there is nothing to compare.</p>"
    differ = sum(len(row.verdicts) > 1 for row in rows)
    words = f"The verdict depends on the provider in {differ} of {len(rows)} combinations."
    if rows[0].spread is not None:
        words += (
            f" The largest difference of the mean cross-fitted drop is {points(rows[0].spread)}: {rows[0].set_name}, "
            f"{rows[0].method}, {rows[0].model}."
        )
    caption = "Mean cross-fitted worst-group drop, points, and verdict; the largest difference first"
    if len(rows) > _SHOWN_PROVIDERS:
        caption += f"; {_SHOWN_PROVIDERS} of {len(rows)} rows, the CSV has all"
    heads = ["calibration set", "method", "model", *(column_name(summary, one) for one in columns(summary))]
    heads.append("difference")
    table = table_html(caption, heads, [_provider_row(row) for row in rows[:_SHOWN_PROVIDERS]], identity="side-by-side")
    return f"<p>{escaped(words)}</p>{table}"


def _provider_row(row: SideBySide) -> list[str]:
    found = [
        "-" if one is None else f"{points(one.crossfit_drop).removesuffix(' points')}, {one.verdict}"
        for one in row.found
    ]
    return [row.set_name, row.method, row.model, *found, points(row.spread).removesuffix(" points")]


def reproduce_html(study: Study) -> str:
    """Command, plan, the command of each INT8 model, versions, machine, models and data."""
    versions = table_html("Versions", ["what", "version"], [[k, str(v)] for k, v in study.versions.items()])
    kept = [[k, _plain(v)] for k, v in study.machine.items()]
    system = [["system", name] for name in systems(study)]
    machine = table_html("Machine", ["what", "value"], [*kept, *system])
    inputs = [[one.what, one.digest] for one in input_digests(study)]
    files = table_html("Models and data", ["what", "digest"], inputs) if inputs else ""
    return (
        f"<p>The same study again:</p>{_code(command_again(study))}"
        f"<p>Or from its plan, saved as {PLAN_FILE}: <code>onnxptq sweep {PLAN_FILE}</code>. Paths in it are relative "
        f"to the folder in which the command runs.</p>"
        f"<details><summary>The plan, complete</summary>{_code(plan_text(study))}</details>"
        f"{_models_html(study)}{files}"
        f'<div class="pair">{versions}{machine}</div>'
    )


def _models_html(study: Study) -> str:
    """The commands that write the INT8 models, of the first seed where there are many."""
    rows = command_rows(study)
    if not rows:
        return ""
    plan = study.plan
    said = "What writes the INT8 model of each cell, and judges it under the same corruptions"
    # What `quantize` has no options for.
    said += f", on all samples where the study took {plan['eval_size']}" if "eval_size" in plan else ""
    if "minimum_samples" in plan:
        said += f", groups from {MINIMUM_SAMPLES} samples on where the study asked for {plan['minimum_samples']}"
    if len(rows) > _SHOWN_COMMANDS:
        rows = [row for row in rows if row["seed"] == rows[0]["seed"]][:_SHOWN_COMMANDS]
        said += f" ({len(rows)} of {len(study.cells)}; another seed is another --seed, and the CSV has all)"
    lines = "\n".join(str(row["command"]) for row in rows)
    return f"<details><summary>{escaped(said)}</summary>{_code(lines)}</details>"


def _code(text: str) -> str:
    return f'<pre tabindex="0"><code>{escaped(text)}</code></pre>'


def table_html(
    caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, identity: str = "", numbers: bool = False
) -> str:
    """A table with a caption; the first column heads the rows. Everything is escaped.

    Args:
        caption: above the table.
        heads: of the columns.
        rows: texts.
        identity: its id.
        numbers: columns but the first are numbers, set to the right.
    """
    kind = ' class="number"' if numbers else ""
    head = "".join(f'<th scope="col"{kind if k else ""}>{escaped(text)}</th>' for k, text in enumerate(heads))
    body = "".join(
        f'<tr><th scope="row">{escaped(row[0])}</th>'
        + "".join(f"<td{kind}>{escaped(text)}</td>" for text in row[1:])
        + "</tr>"
        for row in rows
    )
    named = f' id="{identity}"' if identity else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escaped(caption)}"><table{named}>'
        f"<caption>{escaped(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def bullets(sentences: Iterable[str]) -> str:
    """A list."""
    return "<ul>" + "".join(f"<li>{escaped(one)}</li>" for one in sentences) + "</ul>"


def escaped(value: str) -> str:
    """Text that HTML does not read, in attributes neither."""
    return html.escape(value, quote=True)


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)
