"""`onnxptq check`: the gate that a deployed model must pass."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from onnxptq.commands._models import SKIP_FLOAT_HELP, check_found, expand, is_pattern, without_float
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
from onnxptq.errors import OnnxptqError, OutputError, UsageError

if TYPE_CHECKING:
    from onnxptq.gates.several import Checked


class _Reporting(Repeatable):
    """Writes the files for CI also where the command line itself is wrong."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does."""
        given = list(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            junit = _value(given, "--junit", b'<testsuites name="onnxptq check"')
            files = {"junit": junit, "sarif_target": _value(given, "--sarif", b"sarif-schema")}
            _write_error(files, "onnxptq check", error.format_message())
            raise


def _value(arguments: Sequence[str], option: str, mark: bytes) -> str | None:
    """The file that an option names in arguments that cannot be parsed.

    None where there is a file of that name which has not the mark of an earlier report: it may be an input.
    """
    pairs = zip(arguments, [*arguments[1:], ""], strict=True)
    found = [word[len(option) + 1 :] or after for word, after in pairs if word.partition("=")[0] == option]
    value = found[-1] if found else ""
    if not value or value.startswith("-"):
        return None
    path = Path(value)
    return value if not path.exists() or (path.is_file() and mark in path.read_bytes()[:400]) else None


@click.command(cls=_Reporting)
@click.argument("models", nargs=-1, metavar="[MODEL|PATTERN]...")
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
@click.option("--skip-float", is_flag=True, help=SKIP_FLOAT_HELP)
@click.option("--init", is_flag=True, help="Print a commented policy for MODEL instead (with --policy: write it).")
@click.option("--schema", is_flag=True, help="Print the JSON schema of policies instead.")
@click.option("--junit", metavar="FILE", help="Write the verdict as JUnit XML, also where the input is bad.")
@click.option(
    "--sarif", "sarif_target", metavar="FILE", help="Write the verdict as SARIF, also where the input is bad."
)
@reading_options
@json_option
def check(**values: Any) -> None:
    """Judge models by a policy: PASSED (exit 0), FAILED (1) or UNDECIDED (3).

    Without --policy: the average may not drop by more than a point, the worst group not by more than two, for sure.
    With several models, or a pattern such as 'out/*.onnx', every model is judged, and the exit code is the first of
    2 (bad input), 1, 3 and 0 that one of them has.
    """
    context = click.get_current_context()
    if values.pop("schema"):
        from onnxptq.gates.schema import schema_text

        click.echo(schema_text(), nl=False)
        return
    if values.pop("init"):
        _write_starter(values["models"], values["policy"])
        return
    context.exit(_check(values, context.meta["onnxptq.arguments"]))


def _check(values: dict[str, Any], arguments: Sequence[str]) -> int:
    """Judges, writes everything that was asked for, and returns the exit code."""
    from onnxptq.gates.several import worst

    json_target, files = values.pop("json_target"), {key: values.pop(key) for key in ("junit", "sarif_target")}
    names = values.pop("models")
    several = len(names) > 1 or any(map(is_pattern, names))
    models = expand(names)
    _check_targets(json_target, *files.values(), baseline=values["baseline"] if values["update_baseline"] else None)
    judged: list[Checked] = []
    try:
        kept = _kept(models, skip_float=values.pop("skip_float"))
        _judge(kept, values, _Command(arguments, names), several, judged)
    except Exception as error:
        name = Path(names[0]).name if len(names) == 1 else "onnxptq check"
        _write_error(files, name, str(error) or type(error).__name__, judged)
        raise
    _write(files, judged)
    _report(judged, shlex.join(["onnxptq", "check", *arguments]), several, json_target)
    return worst(judged).exit_code


class _Command(NamedTuple):
    """The arguments as they were given, and those of them that name models."""

    arguments: Sequence[str]
    names: Sequence[str]

    def again(self, model: str | None) -> str:
        """The command that judges one model again; that for all where it is not clear which words name models."""
        words = list(self.arguments)
        alike = all(words.count(name) == self.names.count(name) for name in self.names)
        if model is not None and len(words) and list(self.names) != [model] and alike:
            first = min(words.index(name) for name in self.names)
            words[first] = model
            words = [word for place, word in enumerate(words) if place == first or word not in self.names]
        return shlex.join(["onnxptq", "check", *words])


def _check_targets(*targets: str | None, baseline: str | None = None) -> None:
    check_different(*targets, baseline)
    for target in (*targets, baseline):
        check_json_target(target)


def _kept(models: Sequence[str], *, skip_float: bool) -> tuple[str | None, ...]:
    check_found(models)
    if skip_float and models and not (models := without_float(models)):
        raise UsageError("nothing was judged: no model is quantized. Give INT8 models, or leave --skip-float out.")
    return tuple(models) or (None,)


def _judge(
    models: Sequence[str | None], values: dict[str, Any], command: _Command, several: bool, judged: list[Checked]
) -> None:
    """Judges one model after another, and adds to `judged`; with several, one that cannot be judged stops no other."""
    from onnxptq.gates import check as judge
    from onnxptq.gates.named_policies import find_policy
    from onnxptq.gates.several import Checked
    from onnxptq.runtimes import stdout_to_stderr

    if several and values["baseline"]:
        raise UsageError("--baseline is of one model. Check one model at a time with it.")
    limits = _limits(values.pop("time_limit"), values.pop("memory_limit"))
    options = data_options(values, split=values.pop("split"))
    corruptions = values.pop("corruptions") or None
    if values["policy"] is not None:
        values["policy"] = find_policy(values["policy"])
    with progress_bar() as progress, stdout_to_stderr():
        for model in models:
            try:
                result = judge(
                    model,
                    **values,
                    options=options,
                    corruptions=corruptions,
                    limits=limits,
                    command=command.again(model),
                    progress=progress,
                )
            except OnnxptqError as error:
                if not several:
                    raise
                judged.append(Checked(str(model), None, str(error)))
                continue
            name = result.subject.get("model", {}).get("name", "predictions")
            judged.append(Checked(str(model) if several else str(name), result))


def _write_error(files: dict[str, str | None], name: str, message: str, judged: Sequence[Checked] = ()) -> None:
    """CI reads these files: without them a job that could not judge looks as if nothing was asked for."""
    from onnxptq.gates.several import Checked

    _write(files, [*judged, Checked(name, None, message)])


def _write(files: dict[str, str | None], judged: Sequence[Checked]) -> None:
    from onnxptq.gates.junit import write_junit
    from onnxptq.gates.sarif import to_sarif

    if junit := files["junit"]:
        write_junit(Path(junit), judged)
    if sarif := files["sarif_target"]:
        write_json(sarif, to_sarif(judged))


def _report(judged: Sequence[Checked], command: str, several: bool, json_target: str | None) -> None:
    from onnxptq.gates.github import workflow_commands, write_summary
    from onnxptq.gates.several import summary_to_dict
    from onnxptq.gates.text import full_text, several_text

    for warning in dict.fromkeys(w for one in judged if one.result is not None for w in one.result.warnings):
        note(f"note: {warning}")
    # On stderr, which GitHub reads too: stdout may be JSON.
    for line in workflow_commands(judged, os.environ):
        workflow_command(line)
    write_summary(judged, os.environ)
    only = None if several else judged[0].result
    if json_target != "-":
        click.echo(several_text(judged) if only is None else full_text(only))
    write_json(json_target, summary_to_dict(tuple(judged), command) if only is None else only.to_dict())


def _limits(seconds: float | None, gibibytes: float | None) -> Any:
    from onnxptq.gates import Limits

    for option, value in (("--time-limit", seconds), ("--memory-limit", gibibytes)):
        if value is not None and not 0 < value < 1e6:
            raise UsageError(f"{option} must be more than 0 and less than a million, got {value:g}.")
    memory = None if gibibytes is None else int(gibibytes * 2**30)
    return Limits(memory_bytes=memory) if seconds is None else Limits(seconds, memory)


def _write_starter(models: Sequence[str], policy: str | None) -> None:
    from onnxptq.files import replacing
    from onnxptq.gates.starter import starter_policy

    if len(models) != 1:
        raise UsageError("--init writes a policy for one model: onnxptq check MODEL --init --policy policy.toml")
    text = starter_policy(Path(models[0]))
    if policy is None:
        click.echo(text, nl=False)
        return
    path = Path(policy)
    if path.exists():
        raise OutputError(f"{path} exists already; --init never replaces a policy. Write to another file.")
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    click.echo(f"wrote {path}")
