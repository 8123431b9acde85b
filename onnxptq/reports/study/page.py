"""The page: a template, what can be read without a script, and the data that the scripts in `template/` draw from."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template

from onnxptq.files import replacing
from onnxptq.reports.study.payload import packed, payload
from onnxptq.reports.study.questions import Answers, answer_questions
from onnxptq.reports.study.sections import escaped, providers_html, questions_html, reproduce_html, verdict_html
from onnxptq.reports.study.summary import LIMIT, Summary, summarize
from onnxptq.reports.study.words import verdict
from onnxptq.sweeps.study import Study

_SCRIPTS = ("base.js", "maps.js", "heat.js", "groups.js", "scatter.js", "ranges.js", "filters.js")
"""In the order in which they need each other."""


def write_report(study: Study, output: Path, *, limit: float = LIMIT) -> None:
    """Writes the report of a study: one HTML file that asks nothing of any network.

    Args:
        study: from `onnxptq.sweeps.store.load_study`.
        output: the file.
        limit: largest cross-fitted worst-group drop that passes, a fraction.

    Raises:
        OutputError: it cannot be written.
    """
    text = report_html(summarize(study, limit), answer_questions(study))
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report_html(summary: Summary, answers: Answers) -> str:
    """The report as the text of an HTML file."""
    study = summary.study
    folder = files("onnxptq.reports.study") / "template"
    page = Template((folder / "report.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=escaped(study.name),
        run=escaped(study.run),
        subtitle=escaped(_subtitle(summary)),
        style=(folder / "report.css").read_text(encoding="utf-8"),
        script="\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        data=packed(payload(summary)),
        verdict=verdict_html(summary, verdict(summary)),
        providers=providers_html(summary),
        questions=questions_html(answers),
        reproduce=reproduce_html(study),
    )


def _subtitle(summary: Summary) -> str:
    study = summary.study
    nouns = {"calibration": "calibration set"}
    factors = ("model", "calibration", "strategy", "method", "target", "runtime", "seed")
    counts = [_count(len(summary.levels(name)), nouns.get(name, name)) for name in factors]
    return f"Run {study.run}, {study.created}: {len(study.cells)} cells of a grid of {', '.join(counts)}"


def _count(number: int, noun: str) -> str:
    plural = "strategies" if noun == "strategy" else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"
