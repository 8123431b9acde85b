"""The lines that docs/sweep.md shows for pandas and DuckDB, run on a real store."""

from __future__ import annotations

import shutil
import textwrap
from pathlib import Path

import pytest
from click.testing import CliRunner

from onnxptq.commands.runs import runs

DOCUMENT = Path(__file__).resolve().parents[2] / "docs/sweep.md"


@pytest.mark.parametrize("library", ["pandas", "duckdb"])
def test_the_lines_of_the_documentation_print_every_method(
    library: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    shutil.copytree(finished / "v1/sweeps", "store/v1/sweeps")
    exported = CliRunner().invoke(runs, ["export", "last", "-o", "cells.parquet", "--store", "store"])
    assert exported.exit_code == 0, exported.output
    paragraphs = DOCUMENT.read_text(encoding="utf-8").split("\n\n")
    (lines,) = [one for one in paragraphs if one.startswith(f"    import {library}")]
    assert lines.count("\n") == 2, "three lines"
    capsys.readouterr()
    exec(compile(textwrap.dedent(lines), "docs/sweep.md", "exec"), {})
    said = capsys.readouterr().out
    assert "minmax" in said and "percentile:percentile=99.0" in said
