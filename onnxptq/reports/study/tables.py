"""Every table of the report as a CSV file."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from onnxptq.errors import OutputError
from onnxptq.reports.study.answers import answer_rows, level_rows
from onnxptq.reports.study.providers import provider_rows, side_by_side
from onnxptq.reports.study.questions import Answers
from onnxptq.reports.study.summary import Summary
from onnxptq.sweeps.export import rows_of, write_table


def study_tables(summary: Summary, answers: Answers) -> dict[str, list[dict[str, Any]]]:
    """Rows by name of the table: "cells", "groups", "ranges", "combinations", "providers", "questions", "levels", and
    "variance". Fractions, not points."""
    return {
        "cells": rows_of(summary.study, "cells"),
        "groups": rows_of(summary.study, "groups"),
        "ranges": rows_of(summary.study, "ranges"),
        "combinations": [one.to_dict() for one in summary.combinations],
        "providers": provider_rows(summary, side_by_side(summary)),
        "questions": answer_rows(answers),
        "levels": level_rows(answers),
        "variance": [asdict(row) for row in answers.variance],
    }


def write_csv(summary: Summary, answers: Answers, folder: Path) -> list[Path]:
    """Writes each table that has rows as NAME.csv into a folder, which is made where there is none.

    Raises:
        OutputError: the folder or a file cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another place.") from error
    written = []
    for name, rows in study_tables(summary, answers).items():
        if rows:
            write_table(rows, folder / f"{name}.csv")
            written.append(folder / f"{name}.csv")
    return written
