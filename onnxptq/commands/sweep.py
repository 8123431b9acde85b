"""`onnxptq sweep`: a whole study, calibration set x method x strategy x target x runtime x seed, in one command."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from onnxptq.commands._options import Repeatable, check_not_given, reading_options
from onnxptq.commands._output import (
    check_different,
    check_json_target,
    check_report,
    check_same_study,
    json_option,
    note,
    progress_bar,
    write_json,
)
from onnxptq.errors import EXIT_DONE, EXIT_FAILED, RuntimeUnavailableError, UsageError, did_you_mean

if TYPE_CHECKING:
    from onnxptq.cache import Cache
    from onnxptq.sweeps.engine import Engine
    from onnxptq.sweeps.plan import Plan
    from onnxptq.sweeps.run import State
    from onnxptq.sweeps.store import Store

_GIVEN = click.core.ParameterSource.COMMANDLINE

_IN_A_PLAN = (
    *("data", "calib_data", "eval_data", "image_column", "label_column", "skip_bad", "task", "preprocessing"),
    *("trust_data", "size", "mean", "std", "preset"),
)

_OF_A_RESULT = ("output", "json_target", "dry_run", "resume", "force")

_LINE_SECONDS, _LINE_SHARE = 10.0, 0.05
"""Where there is no terminal, a line of progress comes with the first results after either: seconds, or share of the
cells."""


@click.command(cls=Repeatable)
@click.argument("what", nargs=-1, metavar="[PLAN.toml | MODEL...]")
@click.option("--data", metavar="SOURCE", help="Data for calibration and evaluation; the samples are split.")
@click.option("--calib-data", metavar="SOURCE", help="Data for calibration, with --eval-data.")
@click.option("--eval-data", metavar="SOURCE", help="Data for evaluation, with --calib-data.")
@click.option("--preset", metavar="NAME", help="Without a plan: quick, paper or full. [default: quick]")
@click.option("--init", is_flag=True, help="Print the plan instead, to be changed and given to sweep.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of plans instead.")
@click.option("--dry-run", is_flag=True, help="Show the grid, what is known already, and how long the rest takes.")
@click.option("--resume", is_flag=True, help="Go on with the last run that did not finish.")
@click.option("-o", "--output", metavar="FILE", help="The report. [default: RUN.html in the current folder]")
@click.option("--force", is_flag=True, help="Replace an existing file that is no report.")
@click.option("--jobs", type=int, metavar="N", help="Workers. [default: one a core]")
@click.option("--engine", default="local", show_default=True, help="local (processes of this machine) or ray.")
@click.option("--ray-address", metavar="HOST:PORT", help="An existing Ray cluster. [default: one on this machine]")
@click.option("--store", metavar="DIR", help="Where results are kept. [default: the cache]")
@reading_options
@json_option
def sweep(**values: Any) -> None:
    """Judge every calibration set with every method, and say which of them pass.

    Without PLAN and MODEL: a small study of the built-in model. What is known already is not computed again, so a sweep
    that was stopped goes on when it is started again.
    """
    context = click.get_current_context()
    for option in ("schema", "init"):
        if values[option]:
            _check_prints(f"--{option}")
    if values.pop("schema"):
        from onnxptq.sweeps.plan import schema_text

        click.echo(schema_text(), nl=False)
        return
    json_target = values.pop("json_target")
    check_json_target(json_target)
    check_different(values["output"], json_target)
    check_report(Path(values["output"] or "study.html"), force=values["force"] or values["output"] is None)
    command = shlex.join(["onnxptq", "sweep", *context.meta["onnxptq.arguments"]])
    context.exit(_sweep(values, command, json_target))


def _sweep(values: dict[str, Any], command: str, json_target: str | None) -> int:
    from onnxptq.reports.study import write_report
    from onnxptq.reports.sweep import print_dry_run, print_study
    from onnxptq.runtimes import stdout_to_stderr
    from onnxptq.sweeps.ahead import look_ahead
    from onnxptq.sweeps.export import flat
    from onnxptq.sweeps.presets import plan_toml
    from onnxptq.sweeps.run import open_grid
    from onnxptq.sweeps.run import sweep as run_sweep
    from onnxptq.sweeps.store import Store, cache_of
    from onnxptq.sweeps.study import DONE

    init, dry_run, output = values.pop("init"), values.pop("dry_run"), values.pop("output")
    force = values.pop("force")
    cache = cache_of(values.pop("store"))
    plan_file = next((name for name in values["what"] if name.endswith(".toml")), None)
    engine = _engine(values.pop("engine"), values.pop("jobs"), values.pop("ray_address"), cache)
    with stdout_to_stderr(), Store(cache) as store, ExitStack() as stack:
        plan = _plan(values, store)
        if not init:
            stack.enter_context(engine)
            with _naming(plan_file):
                grid = open_grid(plan, store, engine)
            for warning in grid.warnings:
                note(f"note: {warning}")
            if output and not dry_run:
                check_same_study(Path(output), store.run_of(grid.digest), force)
            if dry_run:
                ahead = look_ahead(grid, store, engine)
                for model, why in ahead.not_measured.items():
                    note(f"note: the estimate leaves out the cells of {model}: {why}")
            else:
                with _progress() as progress:
                    progress = _saying_how_long(progress, values["preset"], plan_file)
                    run = run_sweep(grid, store, engine, command=command, progress=progress)
                study = store.study(run)
    if init:
        click.echo(plan_toml(plan), nl=False)
        return EXIT_DONE
    if dry_run:
        if json_target != "-":
            print_dry_run(plan, ahead)
        if (ahead.seconds or 0.0) > _LONG_SECONDS:
            note(f"note: {_quicker(values['preset'], plan_file)}")
        write_json(json_target, ahead.to_dict())
        return EXIT_DONE
    report = Path(output or f"{study.run}.html")
    write_report(study, report)
    if json_target != "-":
        print_study(study)
    note(f"wrote {report}; tables: {cache.command(f'onnxptq report {study.run}')}")
    write_json(json_target, {"run": study.run, "name": study.name, "cells": flat(study)})
    return EXIT_FAILED if any(cell.status != DONE for cell in study.cells) else EXIT_DONE


def _engine(name: str, jobs: int | None, address: str | None, cache: Cache) -> Engine:
    from onnxptq.sweeps.local import LocalEngine, cores

    if jobs is not None and jobs < 1:
        raise UsageError(f"--jobs must be 1 or more, got {jobs}.")
    if name == "ray":
        from onnxptq.sweeps.ray_engine import RayEngine

        return RayEngine(cache, address, jobs)
    if name != "local":
        raise UsageError(f"unknown engine {name!r}. {did_you_mean(name, ('local', 'ray'))}")
    if address is not None:
        raise UsageError("--ray-address is for --engine ray. Give both, or leave it out.")
    return LocalEngine(jobs or cores())


def _plan(values: dict[str, Any], store: Store) -> Plan:
    """The plan that a user named, or one made of a preset and her models; with --resume it must have been begun."""
    from onnxptq.sweeps.plan import BUILTIN, Plan, load_plan
    from onnxptq.sweeps.presets import preset_plan

    what, resume = values.pop("what"), values.pop("resume")
    plans = [name for name in what if name.endswith(".toml")]
    if len(what) > 1 and plans:
        raise UsageError(f"give one plan, or models; got {', '.join(what)}. A plan names its models itself.")
    if plans:
        check_not_given(f"the plan {plans[0]}", _IN_A_PLAN)
        plan = load_plan(Path(plans[0]))
    elif resume and not what:
        check_not_given("--resume without a plan", _IN_A_PLAN)
        return store.unfinished(None)
    else:
        sources = {name: values[name] for name in ("data", "calib_data", "eval_data")}
        plan = Plan(models=what or (BUILTIN,), reading=_reading(values), **sources)
        plan = preset_plan(values["preset"] or "quick", plan, store.cache)
    return store.unfinished(plan) if resume else plan


def _reading(values: dict[str, Any]) -> Any:
    from onnxptq.flags import parse_numbers, parse_size
    from onnxptq.sweeps.plan import Reading

    names = ("image_column", "label_column", "skip_bad", "trust_data", "task", "preprocessing")
    texts = {name: values[name] for name in names}
    return Reading(
        **texts,
        size=tuple(parse_size(values["size"])) if values["size"] else (),
        mean=tuple(parse_numbers("--mean", values["mean"])) if values["mean"] else (),
        std=tuple(parse_numbers("--std", values["std"])) if values["std"] else (),
    )


def _check_prints(option: str) -> None:
    """Raises UsageError when --init or --schema was given beside an option that is about a study's result."""
    context = click.get_current_context()
    for parameter in context.command.params:
        if parameter.name in _OF_A_RESULT and context.get_parameter_source(parameter.name) == _GIVEN:
            raise UsageError(
                f"{option} prints to stdout and makes no study, so {parameter.opts[0]} has no use. Leave one out."
            )


@contextmanager
def _naming(plan_file: str | None) -> Iterator[None]:
    """Puts the name of a plan's file before what is wrong with a name in it."""
    try:
        yield
    except (UsageError, RuntimeUnavailableError) as error:
        if plan_file is None:
            raise
        raise type(error)(f"{plan_file}: {error}") from error


@contextmanager
def _progress() -> Iterator[Callable[[State], None]]:
    """Shows how far a sweep is on stderr: a bar on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        with progress_bar() as draw:
            yield lambda state: draw(_label(state), state.done, state.cells)
        return
    shown, told = -_LINE_SECONDS, 0

    def line(state: State) -> None:
        nonlocal shown, told
        now = time.monotonic()
        further = state.done - told >= _LINE_SHARE * state.cells
        if now - shown >= _LINE_SECONDS or further or state.done == state.cells:
            shown, told = now, state.done
            note(f"{state.done} of {state.cells} cells{_label(state).removeprefix('cells')}")

    yield line


_LONG_SECONDS = 600.0
"""A sweep that takes longer says so, once it can tell, and how to make it shorter."""


def _saying_how_long(
    progress: Callable[[State], None], preset: str | None, plan_file: str | None
) -> Callable[[State], None]:
    said = False

    def watch(state: State) -> None:
        nonlocal said
        if not said and (state.seconds_left or 0.0) > _LONG_SECONDS:
            from onnxptq.reports.sweep import duration

            said = True
            note(f"note: about {duration(state.seconds_left or 0.0)} to go. {_quicker(preset, plan_file)}")
        progress(state)

    return watch


def _quicker(preset: str | None, plan_file: str | None) -> str:
    """How to get a result sooner, and that nothing is lost by stopping."""
    kept = "Ctrl-C loses nothing that is done: --resume goes on."
    if plan_file is not None:
        return f"Fewer calibrations, methods or seeds in {plan_file} take less. {kept}"
    if preset not in (None, "quick"):
        return f"--preset quick takes a fraction of it. {kept}"
    return f"--init prints the plan: with fewer calibrations or methods in it, it takes less. {kept}"


def _label(state: State) -> str:
    from onnxptq.reports.sweep import duration

    parts = [f"{state.known} known before"] if state.known else []
    parts += [f"{state.failed} failed"] if state.failed else []
    if state.seconds_left:
        parts.append(f"about {duration(state.seconds_left)} left")
    return "cells" + "".join(f", {part}" for part in parts)
