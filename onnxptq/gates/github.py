"""What GitHub Actions shows: a summary in Markdown, and annotations on the run.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnxptq import foreign_text
from onnxptq.errors import OutputError
from onnxptq.gates.several import Checked
from onnxptq.gates.text import headline, numbers, summary_lines
from onnxptq.gates.verdict import CheckResult, RuleResult, Verdict

_SIGNS = {
    Verdict.FAILED: "❌ FAILED",
    Verdict.UNDECIDED: "❔ UNDECIDED",
    Verdict.PASSED: "✅ PASSED",
    Verdict.NOT_JUDGED: "➖ NOT JUDGED",
}
_ORDER = (Verdict.FAILED, Verdict.UNDECIDED, Verdict.NOT_JUDGED, Verdict.PASSED)


def markdown(result: CheckResult) -> str:
    """The check as Markdown: verdict, a table of rules with those that failed first, the command."""
    lines = [
        f"## onnxptq check: {_SIGNS[result.verdict]}",
        "",
        foreign_text.markdown(headline(result)),
        "",
        "| verdict | rule | group | measured | found | what to do |",
        "|---|---|---|---|---|---|",
    ]
    for verdict in _ORDER:
        for rule in result.named(verdict):
            found = f"{rule.ruled_out}: {rule.explanation}" if rule.ruled_out else rule.explanation
            cells = (_SIGNS[verdict], rule.rule, rule.group or "", numbers(rule), found, rule.next_step)
            lines.append(f"| {' | '.join(foreign_text.markdown(cell) for cell in cells)} |")
    return "\n".join([*lines, "", "Again:", "", *foreign_text.fenced(result.command, "sh"), ""])


def several_markdown(models: Sequence[Checked]) -> str:
    """Several models as Markdown: a table of verdicts, the worst first, then the check of each that was judged."""
    first, *lines = summary_lines(models)
    named = [foreign_text.markdown(line.strip()) for line in lines]
    parts = [f"## onnxptq check: {foreign_text.markdown(first)}", "", *(f"- {line}" for line in named), ""]
    return "\n".join([*parts, *(markdown(one.result) for one in models if one.result is not None)])


def write_summary(models: Sequence[Checked], environment: Mapping[str, str]) -> None:
    """Appends the Markdown to the file that $GITHUB_STEP_SUMMARY names, where it is set.

    Raises:
        OutputError: it cannot be written.
    """
    if not (named := environment.get("GITHUB_STEP_SUMMARY")):
        return
    only = models[0].result if len(models) == 1 else None
    try:
        with Path(named).open("a", encoding="utf-8") as file:
            file.write(several_markdown(models) if only is None else markdown(only))
    except OSError as error:
        raise OutputError(f"cannot write $GITHUB_STEP_SUMMARY ({named}): {error.strerror}. Unset it.") from error


def workflow_commands(models: Sequence[Checked], environment: Mapping[str, str]) -> list[str]:
    """Workflow commands, one for each rule that failed or is undecided; none outside GitHub Actions.

    With several models each names its own, and one that could not be judged is an error.
    """
    if environment.get("GITHUB_ACTIONS") != "true":
        return []
    lines = []
    for one in models:
        about = "" if len(models) == 1 else f"{one.name}: "
        if one.result is None:
            lines.append(_command("error", f"onnxptq check: {one.verdict}", f"{about}{one.error}"))
            continue
        for verdict, level in ((Verdict.FAILED, "error"), (Verdict.UNDECIDED, "warning")):
            lines += [_command(level, _title(rule), f"{about}{_said(rule)}") for rule in one.result.named(verdict)]
    return lines


def _command(level: str, title: str, text: str) -> str:
    return f"::{level} title={_property(title)}::{_data(text)}"


def _title(rule: RuleResult) -> str:
    return f"onnxptq check: {rule.verdict.value} {rule.rule}"


def _said(rule: RuleResult) -> str:
    group = f"{rule.group}: " if rule.group else ""
    return f"{group}{numbers(rule)}\n{rule.explanation}.\n{rule.next_step}".strip()


def _data(text: str) -> str:
    text = "\n".join(map(foreign_text.one_line, text.split("\n")))
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
