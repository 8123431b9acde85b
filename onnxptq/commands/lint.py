"""`onnxptq lint`: what an execution provider will reject, run in float or fail to fuse, without the hardware."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxptq.commands._models import SKIP_FLOAT_HELP, check_found, expand, is_pattern, without_float
from onnxptq.commands._output import check_different, check_json_target, json_option, note, write_json
from onnxptq.errors import EXIT_BAD_INPUT, EXIT_DONE, EXIT_FAILED, OnnxptqError, UsageError
from onnxptq.reports.tables import print_table

if TYPE_CHECKING:
    from onnxptq.lint import LintReport

_SHOWN_PLACES = 5


@click.command()
@click.argument("models", nargs=-1, metavar="[MODEL|PATTERN]...")
@click.option(
    "--target", metavar="NAME", help="cpu, cuda, tensorrt, tensorrt11 or openvino. [default: what onnxptq made it for]"
)
@click.option("--ignore", multiple=True, metavar="RULE", help="Leave this rule out. Repeatable.")
@click.option("--skip-float", is_flag=True, help=SKIP_FLOAT_HELP)
@click.option("--rules", "list_rules", is_flag=True, help="List the rules instead, with --target those of one target.")
@click.option("--sarif", "sarif_target", metavar="FILE|-", help="Write the findings as SARIF 2.1.0.")
@json_option
@click.pass_context
def lint(
    context: click.Context,
    models: tuple[str, ...],
    target: str | None,
    ignore: tuple[str, ...],
    skip_float: bool,
    list_rules: bool,
    sarif_target: str | None,
    json_target: str | None,
) -> None:
    """Read graphs for what a provider will reject, run in float or fail to fuse.

    Needs no provider and no hardware. Exits with 1 when an error is found.
    Example: onnxptq lint model.int8.onnx --target tensorrt
    """
    check_different(json_target, sarif_target)
    if json_target == sarif_target == "-":
        raise UsageError("--json - and --sarif - both want stdout. Write one of them to a file.")
    if list_rules:
        check_json_target(json_target)
        _list_rules(target, ignore, json_target)
        return
    if not models:
        raise UsageError("which model? Give an ONNX file, or --rules to see what is looked for.")
    from onnxptq.lint import summary_to_dict, to_dict, to_sarif

    several = len(models) > 1 or any(map(is_pattern, models))
    models = expand(models)
    for output in (json_target, sarif_target):
        check_json_target(output)
    check_found(models)
    try:
        reports, errors = _lint(without_float(models) if skip_float else models, target, ignore, several)
    except OnnxptqError as error:
        if sarif_target != "-":  # CI hands this file on whatever happened.
            write_json(sarif_target, to_sarif(errors=[str(error)]))
        raise
    write_json(json_target, summary_to_dict(reports, errors) if several or not reports else to_dict(reports[0]))
    write_json(sarif_target, to_sarif(*reports, errors=[f"{model}: {reason}" for model, reason in errors.items()]))
    for report in reports if "-" not in (json_target, sarif_target) else ():
        _print(report, ignore)
    for model, reason in errors.items():
        note(f"onnxptq: {model}: {reason}")
    verdict = EXIT_DONE if all(report.passed for report in reports) else EXIT_FAILED
    context.exit(EXIT_BAD_INPUT if errors else verdict)


def _lint(
    models: Sequence[str], target: str | None, ignore: Sequence[str], several: bool
) -> tuple[list[LintReport], dict[str, str]]:
    """Reports, and why a model has none; a single model that cannot be read is an error of its own."""
    from onnxptq.lint import lint as lint_model
    from onnxptq.lint import rules_of

    if target is not None:
        rules_of(target, ignore)  # A wrong name is no fault of a model.
    reports, errors = [], {}
    for model in models:
        try:
            reports.append(lint_model(model, target or _target_of(model), ignore=ignore))
        except OnnxptqError as error:
            if not several:
                raise
            errors[model] = str(error)
    return reports, errors


def _target_of(model: str) -> str:
    from onnxptq.graphs import load_model
    from onnxptq.graphs.provenance import PREFIX

    found = load_model(Path(model)).metadata.get(PREFIX + "target")
    if found is None:
        raise UsageError(
            f"{model} does not say what it was made for. Give --target cpu, cuda, tensorrt, tensorrt11 or openvino."
        )
    return found


def _print(report: LintReport, ignore: tuple[str, ...]) -> None:
    from rich.table import Table
    from rich.text import Text

    from onnxptq.lint import LEVELS, LINT_RULES

    numbers = {level: report.count(level) for level in LEVELS}
    counts = ", ".join(f"{number} {level}{'' if number == 1 else 's'}" for level, number in numbers.items())
    click.echo(f"{'PASSED' if report.passed else 'FAILED'}: {report.model} for {report.target}: {counts}")
    options = [word for name in ignore for word in ("--ignore", name)]
    click.echo(f"again: {shlex.join(['onnxptq', 'lint', report.model, '--target', report.target, *options])}")
    grouped: dict[str, list[Any]] = {}
    for finding in report.findings:
        grouped.setdefault(finding.rule, []).append(finding)
    if not grouped:
        return
    table = Table(show_lines=True)
    for heading in ("rule", "what is there", "why it matters", "remedy"):
        table.add_column(heading, overflow="fold")
    for name, findings in grouped.items():
        found = LINT_RULES.get(name)
        head = f"{name}\n{findings[0].level}"
        cells = (head, f"{found.title}\n{_places(findings)}", f"{found.why}\n[{found.source}]", found.remedy)
        table.add_row(*(Text(cell) for cell in cells))
    print_table(table, prose=True)


def _places(findings: list[Any]) -> str:
    lines = [f"- {f.where}: {f.message}" if f.where else f"- {f.message}" for f in findings[:_SHOWN_PLACES]]
    more = len(findings) - _SHOWN_PLACES
    return "\n".join(lines + ([f"and {more} more (--json)"] if more > 0 else []))


def _list_rules(target: str | None, ignore: tuple[str, ...], json_target: str | None) -> None:
    from onnxptq.lint import LINT_RULES, rule_to_dict, rules_of

    rules = rules_of(target, ignore) if target else sorted(LINT_RULES, key=lambda rule: rule.name)
    write_json(json_target, [rule_to_dict(rule) for rule in rules])
    if json_target == "-":
        return
    from rich.table import Table
    from rich.text import Text

    table = Table("rule", "what", "level", "why", "from", title="Lint rules")
    for rule in rules:
        levels = "\n".join(f"{name}: {level}" for name, level in rule.levels.items() if target in (None, name))
        table.add_row(*(Text(cell) for cell in (rule.name, rule.title, levels, rule.why, rule.source)))
    print_table(table, prose=True)
