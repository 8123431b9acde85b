"""The `onnxptq` command. Each subcommand is one file in `onnxptq/commands`, imported when it is called."""

from __future__ import annotations

import errno
import gc
import importlib
import io
import os
import signal
import sys
import traceback
from contextlib import suppress
from typing import NoReturn

import click

from onnxptq.commands.stop import Stop, orderly_stop
from onnxptq.errors import EXIT_BAD_INPUT, EXIT_BUG, EXIT_DONE, OnnxptqError
from onnxptq.foreign_text import filtered_output, one_line, printable

COMMANDS = {
    "inspect": "Say in one screen what a model is taken for, what INT8 can do with it, and what is missing.",
    "quantize": "Make an INT8 model from a chosen calibration set and show what it does to every group.",
    "tune": "Find an INT8 file that passes, and judge it on samples that no choice has seen.",
    "evaluate": "Judge models per group against their FP32 reference.",
    "sweep": "Run a whole study: every calibration set with every method, judged per group.",
    "report": "Write the report of a study: verdict, heat maps, groups, ranges, the research questions.",
    "runs": "List, show and export what sweeps have stored.",
    "compare": "Run models on several execution providers and versions, and show what differs.",
    "check": "Judge a model by a policy: the gate that it must pass before it is deployed.",
    "policy": "List the policies by name, and say in words what one asks for.",
    "audit": "Say whether a calibration set is dangerous, before any model is made from it.",
    "lint": "Read a graph for what a provider will reject, run in float or fail to fuse.",
    "diagnose": "Rank the tensors and nodes of an INT8 file by what they do to the worst group.",
    "calibrate": "Observe a calibration set in one pass and keep the statistics.",
    "merge-stats": "Join the statistics of shards.",
    "calibs": "List the calibration sets.",
    "shifts": "List the shifts, corruptions and augmentations.",
    "methods": "List the calibration methods.",
    "tasks": "List inputs and heads: what a model can be judged for, and how its data is stored.",
    "targets": "List what a graph can be made for, with the reason beside each choice.",
    "providers": "Show which execution providers really load here, and why the others do not.",
    "runtimes": "Add, list or remove ONNX Runtimes in other Python environments.",
    "schema": "Print the JSON schema of what --json of a command writes.",
    "cache": "Show, verify or clear the cache.",
}


class LazyGroup(click.Group):
    """A group that knows its subcommands by name and imports one when it is called or asked for help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which a new user meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the file of one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"onnxptq.commands.{cmd_name.replace('-', '_')}")
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a hint for a mistyped name."""
        from onnxptq.errors import did_you_mean

        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"No such command {args[0]!r}. {did_you_mean(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list in --help, without importing any subcommand."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from onnxptq.version import __version__

        click.echo(f"onnxptq {__version__}")
        ctx.exit()


@click.command("onnxptq", cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_print_version, help="Show the version."
)
@click.option("--debug", is_flag=True, help="Show the traceback of an error.")
@click.option("--no-cache", is_flag=True, help="Keep nothing after the command (a sweep needs --store then).")
@click.pass_context
def cli(context: click.Context, debug: bool, no_cache: bool) -> None:
    """What does INT8 do to the group of users that it treats worst, and can we ship this model?

    Exit codes: 0 done; 1 a verdict that failed; 2 wrong use or bad input; 3 undecided; 70 a bug of ours; 130 Ctrl-C.
    """
    if debug:
        os.environ["ONNXPTQ_DEBUG"] = "1"
    if no_cache:
        from onnxptq.cache import temporary_cache

        context.with_resource(temporary_cache())


def main(arguments: list[str] | None = None) -> NoReturn:
    """Runs the command and ends the process with an exit code of `onnxptq.errors`, whatever was raised.

    Python itself ends with 1 for what nobody catches, and 1 is a verdict.
    """
    code: object = EXIT_BUG
    try:
        with filtered_output(), orderly_stop() as stop:
            code = _run(arguments, stop)
            if code:
                # The error may have left a pyarrow reader in a cycle; its threads abort a process that ends first.
                gc.collect()
    except BaseException as error:  # Ctrl-C while it tidies up, for one.
        code = code or EXIT_BUG
        _say(f"onnxptq: while the command ended: {type(error).__name__}: {error}")
    if not _all_is_written():
        code = code or _EXIT_CLOSED_PIPE
    sys.exit(code if isinstance(code, int) else EXIT_DONE)


_EXIT_CLOSED_PIPE = 128 + 13
"""What a shell shows for a program that SIGPIPE ended."""


def _all_is_written() -> bool:
    """Whether what was printed has gone out; what nobody reads any more goes nowhere, and Python says nothing of it."""
    if sys.stdout is None:
        return True
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        return False
    return True


def _run(arguments: list[str] | None, stop: Stop) -> object:
    """What the command returned, or the exit code for what it raised."""
    try:
        return cli.main(args=arguments, prog_name="onnxptq", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except SystemExit as ended:
        # click ends so when it has completed a word for a shell, with 0, and when whoever reads our output closed it
        # (onnxptq calibs | head); its 1 would be a verdict.
        return EXIT_DONE if ended.code == 0 else _EXIT_CLOSED_PIPE
    # Not Exception: a panic of a library in Rust is a BaseException.
    except BaseException as error:
        stop.over()
        code, message = _explained(error, stop.signal)
        if os.environ.get("ONNXPTQ_DEBUG"):
            with suppress(OSError, ValueError):
                traceback.print_exc()
        _say(message)
        return code


def _explained(error: BaseException, stopped_by: int | None) -> tuple[int, str]:
    """The exit code, and why the command stopped."""
    # Whatever the error is: native modules that are being imported turn KeyboardInterrupt into an error of their own.
    if stopped_by is not None or isinstance(error, (KeyboardInterrupt, click.Abort)):
        code = 128 + (stopped_by or signal.SIGINT)
        return code, "onnxptq: interrupted; nothing half-made was left behind."
    if isinstance(error, click.ClickException):
        shown = io.StringIO()
        error.show(shown)
        return EXIT_BAD_INPUT, shown.getvalue().rstrip("\n")
    if isinstance(error, OnnxptqError):
        return EXIT_BAD_INPUT, f"onnxptq: {one_line(str(error))}"
    if isinstance(error, MemoryError):
        return EXIT_BAD_INPUT, "onnxptq: out of memory. Use fewer samples (--calib-size) or a smaller model."
    if isinstance(error, RecursionError):
        return EXIT_BAD_INPUT, "onnxptq: an input is nested more deeply than can be read. Give a flatter one."
    if isinstance(error, OSError) and error.filename is not None:
        return EXIT_BAD_INPUT, (
            f"onnxptq: {os.fsdecode(error.filename)} cannot be used: {error.strerror or error}. "
            "Give another file or folder, or the right to use it."
        )
    if isinstance(error, OSError) and error.errno in _SYSTEM_FULL:
        return EXIT_BAD_INPUT, f"onnxptq: the system refuses: {error.strerror}. Free some of it and run again."
    report = (
        "Please report it with the command line and the output of `onnxptq --debug ...` (see README, Reporting a bug)."
    )
    return EXIT_BUG, f"onnxptq: a bug of ours: {type(error).__name__}: {one_line(str(error))}\n{report}"


_SYSTEM_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
"""Nothing of these is a bug: no disk, no open files, no memory, no processes left."""


def _say(message: str) -> None:
    """One message on stderr; nothing where stderr is closed, so that the exit code stays what it is."""
    with suppress(OSError, ValueError):
        click.echo(printable(message), err=True)


if __name__ == "__main__":
    main()
