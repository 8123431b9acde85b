"""Tables on a terminal."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from onnxptq.foreign_text import printable, unfiltered

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table


PROSE_COLUMNS = 110
"""Fewer than these, and sentences beside each other are a word or two wide."""


def print_table(
    table: Table, *, whole: bool = False, prose: bool = False, blocks: bool = False, keep: Sequence[str] = ()
) -> None:
    """A table on stdout; as wide as the terminal, or 160 columns where there is none.

    Args:
        table: what to print.
        whole: as wide as it needs, on a narrow terminal too: for tables of numbers, which folded nobody can read.
        blocks: where a terminal is too narrow for the whole of it, a block for each row instead.
        keep: where a terminal is too narrow for the whole of it, these columns alone, in their order, and a
            line that names the others.
        prose: its cells are sentences: on a narrow terminal they stand below each other, a block for each row.
    """
    from rich.console import Console

    width = None if on_terminal() else 160
    for column in table.columns:
        column.overflow = "fold"  # Not "...": a name that is cut cannot be copied into a command.
        column._cells = [_harmless(cell) for cell in column._cells]
    # Names come from the user's data: "[b]" and ":cat:" are classes there, not markup.
    # On a terminal the filter would escape the colors of the table itself; its cells have passed it by now.
    stream = unfiltered(sys.stdout) if sys.stdout.isatty() else sys.stdout
    console = Console(width=width, markup=False, emoji=False, highlight=False, file=stream)
    needed = _needed(console, table)
    left_out = []
    if keep and width is None and console.width < needed:
        left_out = [str(column.header) for column in table.columns if column.header not in keep]
        table.columns = [column for column in table.columns if column.header in keep]
        needed, whole = _needed(console, table), False
        for column in table.columns:
            column.no_wrap = column.justify == "right"  # Names are folded where it is still too wide, numbers never.
    narrow = (prose and console.width < PROSE_COLUMNS) or (blocks and width is None and console.width < needed)
    if whole:
        console.width = max(console.width, needed)
    if narrow:
        _print_blocks(console, table)
    else:
        console.print(table)
    if left_out:
        console.print(f"A wider terminal shows {', '.join(left_out)} as well; --json has all.", soft_wrap=True)


def on_terminal() -> bool:
    """Whether tables go to a terminal, or to a width that $COLUMNS says."""
    return sys.stdout.isatty() or bool(os.environ.get("COLUMNS"))


def terminal_width() -> int:
    """Columns of the terminal that tables go to; 160 where there is none."""
    return shutil.get_terminal_size().columns if on_terminal() else 160


def _needed(console: Console, table: Table) -> int:
    return console.measure(table, options=console.options.update(width=1000)).maximum


def _harmless(cell: RenderableType) -> RenderableType:
    """A cell without control characters; its own line breaks stay."""
    from rich.text import Text

    if isinstance(cell, str):
        return printable(cell)
    if isinstance(cell, Text) and not cell.spans:
        return Text(printable(cell.plain), cell.style)
    return cell


def _print_blocks(console: Console, table: Table) -> None:
    from rich.table import Column, Table
    from rich.text import Text

    headings, columns = [column.header for column in table.columns], [list(column.cells) for column in table.columns]
    if table.title:
        console.print(table.title, style="italic")
    for first, *rest in zip(*columns, strict=True):
        console.print()
        if str(first):  # Left out where a row goes on with what the one before it is about.
            console.print(first, style="bold", overflow="fold")
        block = Table.grid(Column(no_wrap=True), Column(overflow="fold"), padding=(0, 2))
        for heading, cell in zip(headings[1:], rest, strict=True):
            if str(cell):
                block.add_row(Text(f"  {heading}"), cell)
        console.print(block)
