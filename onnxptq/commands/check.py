"""`onnxptq check`: the gate that a deployed model must pass."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxptq.commands._options import (
    EP_HELP,
    FALLBACK_HELP,
    Repeatable,
    data_options,
    grouping_options,
    judged_data_options,
    reading_options,
)
from onnxptq.commands._output import (
    check_different,
    check_json_target,
    json_option,
    note,
    progress_bar,
    workflow_command,
    write_json,
)
from onnxptq.errors import OutputError, UsageError

if TYPE_CHECKING:
    from onnxptq.gates import CheckResult


@click.command(cls=Repeatable)
@click.argument("model", required=False)
@click.option("--reference", metavar="FP32.onnx", help="What to compare with. [default: the model it was made from]")
@judged_data_options
@click.option(
    "--policy", metavar="NAME|FILE", help="The rules: a name (onnxptq policy list) or TOML. [default: default]"
)
@click.option("--predictions", metavar="FILE", help="Judge these again (evaluate --predictions); runs nothing.")
@click.option(
    "--reference-predictions",
    metavar="FILE",
    help="FP32's predictions on the same data (evaluate --predictions): only INT8 is run.",
)
@click.option("--ep", "provider", metavar="RUNTIME", help=f"{EP_HELP} [default: cpu]")
@click.option("--allow-fallback", is_flag=True, help=FALLBACK_HELP)
@click.option("--baseline", metavar="FILE", help="The last accepted model: fail on a significant regression.")
@click.option("--update-baseline", is_flag=True, help="Write --baseline instead, unless the check fails.")
@grouping_options
@click.option(
    "--time-limit", type=float, metavar="SECONDS", help="For loading a model, and for a batch. [default: 120]"
)
@click.option("--memory-limit", type=float, metavar="GIB", help="For one model (Linux). [default: 4 and 8 x the model]")
@click.option("--init", is_flag=True, help="Print a commented policy for MODEL instead (with --policy: write it).")
@click.option("--schema", is_flag=True, help="Print the JSON schema of policies instead.")
@click.option("--junit", metavar="FILE", help="Write the verdict as JUnit XML.")
@reading_options
@json_option
def check(**values: Any) -> None:
    """Judge a model by a policy: PASSED (exit 0), FAILED (1) or UNDECIDED (3).

    Without --policy: the average may not drop by more than a point, the worst group not by more than two, for sure.
    """
    context = click.get_current_context()
    if values.pop("schema"):
        from onnxptq.gates.schema import schema_text

        click.echo(schema_text(), nl=False)
        return
    if values.pop("init"):
        _write_starter(values["model"], values["policy"])
        return
    result, json_target = _check(values, shlex.join(["onnxptq", "check", *context.meta["onnxptq.arguments"]]))
    _report(result, json_target)
    context.exit(result.exit_code)


def _check(values: dict[str, Any], command: str) -> tuple[CheckResult, str | None]:
    from onnxptq.gates import check as judge
    from onnxptq.gates.junit import write_junit
    from onnxptq.runtimes import stdout_to_stderr

    json_target, junit = values.pop("json_target"), values.pop("junit")
    baseline = values["baseline"] if values["update_baseline"] else None
    check_different(junit, json_target, baseline)
    for target in (junit, json_target, baseline):
        check_json_target(target)
    limits = _limits(values.pop("time_limit"), values.pop("memory_limit"))
    options = data_options(values, split=values.pop("split"))
    corruptions = values.pop("corruptions") or None
    with progress_bar() as progress, stdout_to_stderr():
        result = judge(
            **values, options=options, corruptions=corruptions, limits=limits, command=command, progress=progress
        )
        if junit:
            write_junit(Path(junit), result)
    return result, json_target


def _report(result: CheckResult, json_target: str | None) -> None:
    from onnxptq.gates.github import workflow_commands, write_summary
    from onnxptq.gates.text import full_text

    for warning in result.warnings:
        note(f"note: {warning}")
    # On stderr, which GitHub reads too: stdout may be JSON.
    for line in workflow_commands(result, os.environ):
        workflow_command(line)
    write_summary(result, os.environ)
    if json_target != "-":
        click.echo(full_text(result))
    write_json(json_target, result.to_dict())


def _limits(seconds: float | None, gibibytes: float | None) -> Any:
    from onnxptq.gates import Limits

    for option, value in (("--time-limit", seconds), ("--memory-limit", gibibytes)):
        if value is not None and not 0 < value < 1e6:
            raise UsageError(f"{option} must be more than 0 and less than a million, got {value:g}.")
    memory = None if gibibytes is None else int(gibibytes * 2**30)
    return Limits(memory_bytes=memory) if seconds is None else Limits(seconds, memory)


def _write_starter(model: str | None, policy: str | None) -> None:
    from onnxptq.files import replacing
    from onnxptq.gates.starter import starter_policy

    if model is None:
        raise UsageError("--init writes a policy for a model: onnxptq check MODEL --init --policy policy.toml")
    text = starter_policy(Path(model))
    if policy is None:
        click.echo(text, nl=False)
        return
    path = Path(policy)
    if path.exists():
        raise OutputError(f"{path} exists already; --init never replaces a policy. Write to another file.")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"wrote {path}")
