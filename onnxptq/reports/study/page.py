"""The page: what can be read without a script is written here, what is drawn comes from the scripts in `template/`."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

from onnxptq.files import replacing
from onnxptq.reports.study.payload import packed, payload
from onnxptq.reports.study.summary import LIMIT, Combination, Summary, summarize
from onnxptq.reports.study.words import Verdict, points, verdict
from onnxptq.sweeps.study import Study

_SCRIPTS = ("base.js", "heat.js", "filters.js")
"""In the order in which they need each other."""


def write_report(study: Study, output: Path, *, limit: float = LIMIT) -> None:
    """Writes the report of a study: one HTML file that asks nothing of any network.

    Args:
        study: from `onnxptq.sweeps.store.load_study`.
        output: the file.
        limit: largest cross-fitted worst-group drop that is safe, a fraction.

    Raises:
        OutputError: it cannot be written.
    """
    text = report_html(summarize(study, limit))
    with replacing(output) as temporary:
        temporary.write_text(text, encoding="utf-8")


def report_html(summary: Summary) -> str:
    """The report as the text of an HTML file."""
    study = summary.study
    folder = files("onnxptq.reports.study") / "template"
    page = Template((folder / "report.html").read_text(encoding="utf-8"))
    return page.substitute(
        title=_text(study.name),
        subtitle=_text(_subtitle(summary)),
        style=(folder / "report.css").read_text(encoding="utf-8"),
        script="\n".join((folder / name).read_text(encoding="utf-8") for name in _SCRIPTS),
        data=packed(payload(summary)),
        verdict=_verdict_html(verdict(summary)),
        definition=_text(_definition(summary)),
        matrix=_matrix(summary),
        reproduce=_reproduce(study),
    )


def table_html(caption: str, heads: Sequence[str], rows: Iterable[Sequence[str]], *, id_: str = "") -> str:
    """A table with a caption; the first column heads the rows. Everything is escaped."""
    head = "".join(f'<th scope="col">{_text(text)}</th>' for text in heads)
    body = "".join(
        f'<tr><th scope="row">{_text(row[0])}</th>' + "".join(f"<td>{_text(text)}</td>" for text in row[1:]) + "</tr>"
        for row in rows
    )
    identity = f' id="{id_}"' if id_ else ""
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{_text(caption)}"><table{identity}>'
        f"<caption>{_text(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _verdict_html(words: Verdict) -> str:
    parts = [f'<p class="headline">{_text(words.headline)}</p>', _list(words.findings)]
    if words.advice:
        parts += ["<h3>What to do</h3>", _list(words.advice)]
    if words.caveats:
        parts += ["<h3>What this cannot tell</h3>", _list(words.caveats)]
    return "\n".join(parts)


def _definition(summary: Summary) -> str:
    return (
        f"A combination is safe where the cross-fitted worst-group drop is at most {points(summary.limit)}, upper end of "
        "its 95 % interval, for every seed; unsafe where the lower end is above that for one; else undecided. The drop "
        "is cross-fitted: the worst group is chosen on one half of the samples and measured on the other, so that "
        "choosing the unluckiest of many groups does not make it look worse than it is. Where several groups are "
        "equally bad it lies below the worst of them: before you ship one model, onnxptq check judges that model."
    )


def _matrix(summary: Summary) -> str:
    """Verdict of each set and method, without a script: the worst over models, targets and runtimes."""
    methods = summary.levels("method")
    rows: dict[str, dict[str, list[Combination]]] = {}
    for one in summary.combinations:
        rows.setdefault(one.place.set_name, {}).setdefault(one.place.method, []).append(one)
    body = [[name, *(_cell_text(by_method.get(method, [])) for method in methods)] for name, by_method in rows.items()]
    return table_html("Verdict by calibration set and method", ["calibration set", *methods], body, id_="matrix")


def _cell_text(ones: Sequence[Combination]) -> str:
    if not ones:
        return "not in the study"
    rank = ("unsafe", "failed", "undecided", "safe")
    worst = min(ones, key=lambda one: (rank.index(one.verdict), -(one.crossfit_drop or 0.0)))
    if worst.crossfit_drop is None:
        return worst.verdict
    return f"{worst.verdict}, {points(worst.crossfit_drop)}"


def _subtitle(summary: Summary) -> str:
    study = summary.study
    counts = [
        (len(summary.levels("model")), "model"),
        (len(summary.levels("calibration")), "calibration set"),
        (len(summary.levels("strategy")), "strategy"),
        (len(summary.levels("method")), "method"),
        (len(summary.levels("target")), "target"),
        (len(summary.levels("runtime")), "runtime"),
        (len(summary.levels("seed")), "seed"),
    ]
    return f"Run {study.run}, {study.created}: {len(study.cells)} cells = " + " × ".join(_count(*one) for one in counts)


def _count(number: int, noun: str) -> str:
    plural = "strategies" if noun == "strategy" else f"{noun}s"
    return f"{number} {noun if number == 1 else plural}"


def _reproduce(study: Study) -> str:
    versions = table_html("Versions", ["what", "version"], [[k, str(v)] for k, v in study.versions.items()])
    machine = table_html("Machine", ["what", "value"], [[k, _plain(v)] for k, v in study.machine.items()])
    plan = json.dumps(study.plan, indent=2, ensure_ascii=False, sort_keys=True)
    return (
        f"<p>The same study again:</p><pre><code>{_text(study.command)}</code></pre>"
        f"<details><summary>The plan, complete</summary><pre><code>{_text(plan)}</code></pre></details>"
        f'<div class="pair">{versions}{machine}</div>'
    )


def _plain(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else str(value)


def _list(sentences: Iterable[str]) -> str:
    return "<ul>" + "".join(f"<li>{_text(one)}</li>" for one in sentences) + "</ul>"


def _text(value: str) -> str:
    return html.escape(value, quote=True)
