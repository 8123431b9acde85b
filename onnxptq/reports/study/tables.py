"""Every table of the report as a CSV file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxptq.errors import OutputError
from onnxptq.reports.study.answers import answer_rows, level_rows
from onnxptq.reports.study.providers import provider_rows, side_by_side
from onnxptq.reports.study.questions import Answers
from onnxptq.reports.study.reproduce import command_rows
from onnxptq.reports.study.summary import Summary
from onnxptq.sweeps.export import rows_of, write_table


def study_tables(summary: Summary, answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """Rows by name of the table: "cells", "groups", "ranges", "combinations", "providers", "questions", "levels",
    "variance" and "commands". Fractions, not points."""
    return {
        "cells": rows_of(summary.study, "cells"),
        "groups": rows_of(summary.study, "groups"),
        "ranges": rows_of(summary.study, "ranges"),
        "combinations": [one.to_dict() for one in summary.combinations],
        "providers": provider_rows(summary, side_by_side(summary)),
        "questions": answer_rows(answers),
        "levels": level_rows(answers),
        "variance": [asdict(row) for row in answers.variance],
        "commands": command_rows(summary.study),
    }


def write_csv(summary: Summary, answers: Answers, folder: Path) -> list[Path]:
    """Writes each table that has rows as NAME.csv into a folder, which is made where there is none.

    A table without rows leaves no file: one of an earlier run by its name is removed.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another place.") from error
    written = []
    for name, rows in study_tables(summary, answers).items():
        path = folder / f"{name}.csv"
        if rows:
            write_table(rows, path)
            written.append(path)
        else:
            _remove(path)
    return written


def _remove(path: Path) -> None:
    """Removes the table of an earlier run. Raises OutputError where it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path} is of an earlier run and cannot be removed: {error.strerror}. Remove it, or choose another folder."
        ) from error
