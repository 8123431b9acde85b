"""What GitHub Actions shows: a summary in Markdown, and annotations on the run.

https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnxptq import foreign_text
from onnxptq.errors import OutputError
from onnxptq.gates.text import headline, numbers
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


def write_summary(result: CheckResult, environment: Mapping[str, str]) -> None:
    """Appends the Markdown to the file that $GITHUB_STEP_SUMMARY names, where it is set.

    Raises:
        OutputError: it cannot be written.
    """
    if not (named := environment.get("GITHUB_STEP_SUMMARY")):
        return
    try:
        with Path(named).open("a", encoding="utf-8") as file:
            file.write(markdown(result))
    except OSError as error:
        raise OutputError(f"cannot write $GITHUB_STEP_SUMMARY ({named}): {error.strerror}. Unset it.") from error


def workflow_commands(result: CheckResult, environment: Mapping[str, str]) -> list[str]:
    """Workflow commands, one for each rule that failed or is undecided; none outside GitHub Actions."""
    if environment.get("GITHUB_ACTIONS") != "true":
        return []
    return [
        f"::{'error' if verdict is Verdict.FAILED else 'warning'} title={_property(_title(rule))}::{_data(_said(rule))}"
        for verdict in (Verdict.FAILED, Verdict.UNDECIDED)
        for rule in result.named(verdict)
    ]


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
