"""`onnxptq tasks`: what a model can be judged for: inputs, heads, how data is stored, and which extras they need."""

from __future__ import annotations

from typing import Any

import click

from onnxptq.commands._output import check_json_target, json_option, write_json


@click.command()
@json_option
def tasks(json_target: str | None) -> None:
    """List inputs and heads. A task is one of each: image-classification, tensor-raw, ..."""
    check_json_target(json_target)
    inputs, heads = _inputs(), _heads()
    if json_target == "-":
        write_json(json_target, {"inputs": inputs, "heads": heads})
        return
    _print("A task is an input and a head, as in image-classification. Inputs:", inputs, ("name", "summary", "data"))
    _print("Heads:", heads, ("name", "summary", "judged by", "without truth", "totals", "truth"))
    write_json(json_target, {"inputs": inputs, "heads": heads})


def _inputs() -> list[dict[str, Any]]:
    from onnxptq.tasks import INPUTS

    return [
        {"name": kind.name, "summary": kind.summary, "data": list(kind.formats), "extra": kind.extra} for kind in INPUTS
    ]


def _heads() -> list[dict[str, Any]]:
    from onnxptq.heads import HEADS

    return [
        {
            "name": kind.name,
            "summary": kind.summary,
            "judged by": [measure.name for measure in kind.measures],
            "without truth": kind.agreement.name,
            "totals": [total.name for total in kind.totals],
            "truth": list(kind.formats),
            "extra": kind.extra,
        }
        for kind in HEADS
    ]


def _print(title: str, rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    from rich.table import Table

    from onnxptq.reports.tables import print_table

    table = Table(title=title, title_justify="left")
    shown = [*columns, *(["extra"] if any(row["extra"] for row in rows) else [])]
    for column in shown:
        table.add_column(column)
    for row in rows:
        cells = [row[column] for column in shown]
        table.add_row(*("; ".join(cell) if isinstance(cell, list) else cell for cell in cells))
    print_table(table, prose=True)
