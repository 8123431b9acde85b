"""What commands print: results on stdout, everything else on stderr."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from onnxptq.errors import OutputError, UsageError
from onnxptq.files import check_writable, replacing
from onnxptq.foreign_text import json_text, unfiltered
from onnxptq.progress import Progress

json_option = click.option(
    "--json",
    "json_target",
    metavar="FILE|-",
    help="Write the result as JSON to a file; with - to stdout, which then carries nothing else.",
)


_REPORT = b'<meta name="generator" content="onnxptq report">'
"""Near the beginning of a report: what can be made again from a store may be replaced."""


def check_json_target(target: str | None) -> None:
    """Raises before any work is done where a file could not be written, or is an input of the same command.

    Raises:
        OutputError: it could not be written.
        UsageError: it is an input.
    """
    if target is None or target == "-":
        return
    _check_no_input(Path(target))
    check_writable(Path(target))


_OUTPUTS = frozenset({"json_target", "junit", "sarif_target", "markdown", "output", "csv", "csv_folder"})
"""Parameters of commands that name what is written; all others that name a file name an input."""


def _check_no_input(output: Path) -> None:
    context = click.get_current_context(silent=True)
    if context is None or not output.exists():
        return
    written = set(_OUTPUTS)
    if context.info_name in ("evaluate", "quantize"):
        written.add("predictions")
    if context.params.get("update_baseline"):
        written.add("baseline")
    for name, value in context.params.items():
        named = value if isinstance(value, tuple | list) else (value,)
        paths = [Path(one) for one in named if isinstance(one, str) and one and name not in written]
        # The specification beside a model is read with it.
        if any(_is(output, path) or _is(output, path.with_suffix(".json")) for path in paths if path.name):
            raise UsageError(f"{output} is read by this command; it is not replaced. Write to another file.")


def _is(output: Path, path: Path) -> bool:
    try:
        return path.is_file() and output.samefile(path)
    except (OSError, ValueError):  # What is no name of a file.
        return False


_INSTEAD = {
    ".md": "`onnxptq report --markdown FILE` writes Markdown.",
    ".csv": "`onnxptq report --csv DIR` writes tables.",
    ".json": "--json FILE writes JSON.",
    ".pdf": "Print the page into a PDF from a browser.",
}


def check_report(path: Path, force: bool) -> None:
    """Refuses the name of a report before any work is done for it.

    Raises:
        UsageError: the name is that of another format.
        OutputError: it could not be written, or is a file that is no report of ours, without --force.
    """
    if path.suffix.lower() not in (".html", ".htm"):
        instead = _INSTEAD.get(path.suffix.lower(), "")
        raise UsageError(
            f"-o {path} names the report, which is HTML: give a name that ends in .html. {instead}".rstrip()
        )
    check_writable(path)
    if not force and path.exists() and _REPORT not in _head(path):
        raise OutputError(
            f"{path} exists already and is no report of onnxptq. Replace it with --force, or write elsewhere."
        )


def check_same_study(path: Path, run: str | None, force: bool) -> None:
    """Raises OutputError when `path` is the report of another run than `run` (None: a new one), without --force."""
    if force or not path.exists():
        return
    found = _RUN.search(_head(path))
    if found is None or found[1].decode(errors="replace") != run:
        of = f"of the run {found[1].decode(errors='replace')}" if found else "of another study"
        raise OutputError(f"{path} is the report {of}. Replace it with --force, or write elsewhere with -o.")


_RUN = re.compile(rb'<meta name="onnxptq-run" content="([^"]*)">')


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(4096)
    except OSError:
        return b""


def check_different(*targets: str | None) -> None:
    """Raises UsageError when a command would write two things to one file."""
    files = [Path(target).resolve() for target in targets if target is not None and target != "-"]
    twice = next((file for file in files if files.count(file) > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named for two outputs. Give each its own file.")


def write_json(target: str | None, value: Any) -> None:
    """Writes `value` where --json said; nothing where it was not given."""
    if target is None:
        return
    text = json_text(value)
    if target == "-":
        sys.stdout.write(text)
        sys.stdout.flush()
        return
    with replacing(Path(target)) as temporary:
        temporary.write_text(text, encoding="utf-8")


def note(message: str) -> None:
    """One line on stderr."""
    click.echo(message, err=True)


def workflow_command(line: str) -> None:
    """A workflow command of ours on stderr; what names bring of them is no command there."""
    click.echo(line, file=unfiltered(sys.stderr))


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """`show(stage, done, total)` draws progress on stderr: a bar on a terminal, one line a stage elsewhere."""
    if not sys.stderr.isatty():
        seen: set[str] = set()

        def plain(stage: str, done: int, total: int) -> None:
            if stage not in seen:
                seen.add(stage)
                note(f"{stage} ...")

        yield plain
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bars(*columns, console=Console(file=unfiltered(sys.stderr)), transient=True) as bars:
        tasks: dict[str, Any] = {}

        def draw(stage: str, done: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total)
            bars.update(tasks[stage], completed=done, total=total)

        yield draw
