"""Tables on a narrow terminal: a block for each row, so that names stay whole and columns side by side."""

from __future__ import annotations

import pytest
from rich.table import Table

from onnxptq.reports.tables import print_table


def grid(columns):
    table = Table("calibration set", *(f"percentile:percentile=99.{n}" for n in range(columns)))
    table.add_row("dark@3", *(f"+{n}.5 !" for n in range(columns)))
    return table


@pytest.mark.parametrize(("width", "columns", "blocks"), [("80", 1, False), ("80", 5, True), ("200", 5, False)])
def test_a_grid_stands_in_blocks_where_it_does_not_fit(monkeypatch, capsys, width, columns, blocks):
    monkeypatch.setenv("COLUMNS", width)
    print_table(grid(columns), whole=True, blocks=True)
    lines = capsys.readouterr().out.splitlines()
    assert all(len(line) <= int(width) for line in lines)
    assert (lines[1] == "dark@3") == blocks
    assert not blocks or lines[2].split() == ["percentile:percentile=99.0", "+0.5", "!"]


def test_where_there_is_no_terminal_a_grid_is_as_wide_as_it_is(monkeypatch, capsys):
    monkeypatch.delenv("COLUMNS", raising=False)
    print_table(grid(9), whole=True, blocks=True)
    assert max(map(len, capsys.readouterr().out.splitlines())) > 160


@pytest.mark.parametrize(("width", "left_out"), [("50", True), ("200", False)])
def test_columns_that_may_go_go_where_they_do_not_fit_and_are_named(monkeypatch, capsys, width, left_out):
    monkeypatch.setenv("COLUMNS", width)
    table = Table("group", "drop", "a long heading", "another long heading")
    table.add_row("cat", "+1.0", "1", "2")
    print_table(table, whole=True, keep=("group", "drop"))
    said = capsys.readouterr().out
    assert ("a long heading ┃" in said) != left_out
    assert ("shows a long heading, another long heading as well" in said) == left_out
    assert all(len(line) <= int(width) for line in said.splitlines() if line[0] in "│┃┏└")
