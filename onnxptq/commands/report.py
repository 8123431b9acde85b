"""`onnxptq report`: what a sweep found, as one HTML file, CSV tables and Markdown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from onnxptq.commands._output import (
    check_different,
    check_json_target,
    check_report,
    check_same_study,
    json_option,
    note,
    write_json,
)
from onnxptq.errors import OutputError


@click.command()
@click.argument("run", default="last")
@click.option("-o", "--output", metavar="FILE", help="The HTML file. [default: RUN.html]")
@click.option("--csv", "csv_folder", metavar="DIR", help="Also every table as CSV, into this folder.")
@click.option("--markdown", metavar="FILE", help="Also as Markdown, for a pull request.")
@click.option(
    "--limit",
    type=click.FloatRange(0.0, 1.0, max_open=True),
    metavar="DROP",
    help="Largest cross-fitted worst-group drop that passes, a fraction. [default: 0.02, that of `onnxptq check`]",
)
@click.option("--force", is_flag=True, help="Replace a file that is no report, or another study's.")
@click.option("--store", metavar="DIR", help="The store of the sweep. [default: the cache]")
@json_option
def report(
    run: str,
    output: str | None,
    csv_folder: str | None,
    markdown: str | None,
    limit: float | None,
    force: bool,
    store: str | None,
    json_target: str | None,
) -> None:
    """Write the report of a study: which methods pass for which calibration sets, for whom not, and why.

    RUN is a run's name, the beginning of it, or "last". The HTML file needs no network and nothing beside it.
    """
    from onnxptq.files import check_writable, replacing
    from onnxptq.reports.study import (
        LIMIT,
        answer_questions,
        report_html,
        study_markdown,
        summarize,
        verdict,
        write_csv,
    )
    from onnxptq.sweeps.store import load_study

    if output:
        check_report(Path(output), force)
    if markdown:
        check_writable(Path(markdown))
    check_json_target(json_target)
    if csv_folder and Path(csv_folder).exists() and not Path(csv_folder).is_dir():
        raise OutputError(f"--csv {csv_folder} is a file; give the name of a folder.")
    study = load_study(run, Path(store) if store else None)
    _check_cells(study)
    html = Path(output or f"{study.run}.html")
    check_report(html, force)
    check_different(str(html), markdown, json_target)
    check_same_study(html, study.run, force)
    note(f"the run {study.run}: {study.name}")
    summary, answers = summarize(study, LIMIT if limit is None else limit), answer_questions(study)
    with replacing(html) as temporary:
        temporary.write_text(report_html(summary, answers), encoding="utf-8")
    if markdown:
        with replacing(Path(markdown)) as temporary:
            temporary.write_text(study_markdown(summary, answers), encoding="utf-8")
    tables = write_csv(summary, answers, Path(csv_folder)) if csv_folder else []
    words = verdict(summary)
    if json_target != "-":
        for line in (words.headline, *words.findings, *words.advice):
            click.echo(line)
    for line in words.caveats:
        note(f"note: {line}")
    note(f"wrote {', '.join(map(str, filter(None, (html, markdown, *tables))))}")
    write_json(json_target, _to_dict(summary, answers, words))


def _check_cells(study: Any) -> None:
    from onnxptq.errors import DataError

    if not study.cells:
        raise DataError(f"the run {study.run} has no result yet. Go on with it: {study.resume}")


def _to_dict(summary: Any, answers: Any, words: Any) -> dict[str, Any]:
    from dataclasses import asdict

    from onnxptq.reports.study.answers import answer_rows, level_rows

    return {
        "study_report_version": 1,
        "run": summary.study.run,
        "name": summary.study.name,
        "limit": summary.limit,
        "verdict": {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(words).items()},
        "combinations": [one.to_dict() for one in summary.combinations],
        "questions": answer_rows(answers),
        "levels": level_rows(answers),
        "variance": [asdict(row) for row in answers.variance],
    }
