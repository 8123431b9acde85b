"""A check in words: the lines that the terminal, JUnit, GitHub and pytest show alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from onnxptq.gates.several import BAD_INPUT, WORST_FIRST, Checked, worst
from onnxptq.gates.verdict import CheckResult, RuleResult, Verdict, shown


def headline(result: CheckResult) -> str:
    """The verdict and what it is about, in one line that begins with the verdict."""
    subject = result.subject
    name = subject.get("model", {}).get("name", "the predictions")
    parts = [f"{result.verdict.value} {name}"]
    if "reference" in subject:
        parts.append(f"against {subject['reference']['name']}")
    if "runtime" in subject:
        parts.append(f"on {subject['runtime']['provider']}")
    counts = [
        f"{len(rules)} {verdict.value.lower()}"
        for verdict in (Verdict.FAILED, Verdict.UNDECIDED, Verdict.PASSED, Verdict.NOT_JUDGED)
        if (rules := result.named(verdict))
    ]
    samples = f"; {subject['n']} samples" if "n" in subject else ""
    return f"{' '.join(parts)}: {', '.join(counts) or 'no rule to judge'}{samples}"


def numbers(rule: RuleResult) -> str:
    """Value, interval, limit, mode and n, as far as the rule has them."""
    parts = []
    if rule.value is not None and rule.value == rule.value:
        interval = ""
        if rule.low is not None and rule.high is not None:
            interval = f" [{_number(rule, rule.low)} to {_number(rule, rule.high)}]"
        parts.append(f"{shown(rule.value, rule.unit)}{interval}")
    if rule.limit is not None:
        parts.append(f"limit {shown(rule.limit, rule.unit)}")
    if rule.tolerance is not None and rule.mode != "fail-if-possible":
        parts.append(f"tolerance {shown(rule.tolerance, rule.unit)}")
    if rule.mode is not None:
        parts.append(rule.mode)
    if rule.n is not None:
        originals = f" from {rule.sources} original samples" if rule.sources not in (None, rule.n) else ""
        parts.append(f"n = {rule.n}{originals}")
    return ", ".join(parts)


def describe(rule: RuleResult) -> list[str]:
    """A rule in a few lines: verdict, rule and group; numbers; what was found; what to do."""
    group = f" in {rule.group}" if rule.group else ""
    lines = [f"{rule.verdict.value} {rule.rule}{group}"]
    lines += [f"  {text}" for text in (rule.ruled_out, numbers(rule), f"{rule.explanation}.") if text]
    return lines + ([f"  -> {rule.next_step}"] if rule.next_step else [])


def full_text(result: CheckResult) -> str:
    """The whole check: verdict, what failed, what is undecided, the rest by name, and the command that repeats it."""
    lines = [headline(result)]
    if judged := result.subject.get("judged"):
        lines.append(f"judged: {', '.join(judged)} ({result.subject.get('task')})")
    for rule in result.named(Verdict.FAILED) + result.named(Verdict.UNDECIDED) + result.named(Verdict.NOT_JUDGED):
        lines += ["", *describe(rule)]
    if passed := result.named(Verdict.PASSED):
        lines += ["", *(f"PASSED {rule.rule}: {_passed(rule)}" for rule in passed)]
    return "\n".join([*lines, "", f"again: {result.command}"])


def summary_lines(models: Sequence[Checked]) -> list[str]:
    """The verdict on several models, which begins the first line, then a line for each, the worst first."""
    counts = Counter(one.verdict for one in models)
    order = (BAD_INPUT, *(verdict.value for verdict in (Verdict.FAILED, Verdict.UNDECIDED, Verdict.PASSED)))
    told = ", ".join(f"{counts[verdict]} {verdict.lower()}" for verdict in order if counts[verdict])
    lines = [f"{worst(models).verdict} {len(models)} models: {told}"]
    for one in sorted(models, key=lambda one: WORST_FIRST.index(one.exit_code)):
        lines.append(f"  {one.verdict:<9}  {one.name}" + (f": {one.error}" if one.error else ""))
    return lines


def several_text(models: Sequence[Checked]) -> str:
    """The summary of several models, then the check of each one that was judged."""
    texts = ["\n".join(summary_lines(models)), *(full_text(one.result) for one in models if one.result is not None)]
    return "\n\n".join(texts)


def _passed(rule: RuleResult) -> str:
    """What a pass rules out, then the numbers behind it."""
    group = f" {rule.group}" if rule.group and rule.rule.startswith("group_") else ""
    said = f"{rule.ruled_out}{group} ({numbers(rule)})" if rule.ruled_out else numbers(rule)
    return said or rule.explanation


def _number(rule: RuleResult, value: float) -> str:
    return shown(value, rule.unit).partition(" ")[0]
