"""Tables on a terminal."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table


def print_table(table: Table, *, whole: bool = False) -> None:
    """A table on stdout; as wide as the terminal, or 160 columns where there is none.

    Args:
        table: what to print.
        whole: as wide as it needs, on a narrow terminal too: for tables of numbers, which folded nobody can read.
    """
    from rich.console import Console

    width = None if sys.stdout.isatty() or os.environ.get("COLUMNS") else 160
    for column in table.columns:
        column.overflow = "fold"  # Not "...": a name that is cut cannot be copied into a command.
    # Names come from the user's data: "[b]" and ":cat:" are classes there, not markup.
    console = Console(width=width, markup=False, emoji=False, highlight=False)
    if whole:
        console.width = max(console.width, console.measure(table, options=console.options.update(width=1000)).maximum)
    console.print(table)
