"""`onnxptq shifts`: the shifts, corruptions and augmentations that there are."""

from __future__ import annotations

import click

from onnxptq.commands._output import json_option, write_json
from onnxptq.reports.tables import print_table


@click.command()
@json_option
def shifts(json_target: str | None) -> None:
    """List the shifts, corruptions and augmentations.

    They serve calibration sets (--calib dark@3) and evaluation groups (--corruption fog@3) alike; severity is 1 to 5.
    """
    from onnxptq.data.shifts import SHIFTS

    rows = [
        {
            "name": shift.name,
            "default_severity": shift.default_severity,
            "family": shift.family,
            "modality": shift.modality,
            "min_size": shift.min_size,
            "summary": shift.summary,
            "source": shift.source,
        }
        for shift in SHIFTS
    ]
    if json_target != "-":
        from rich.table import Table

        table = Table("shift", "family", "for", "what it does", "from", title="Shifts")
        for row in rows:
            table.add_row(
                f"{row['name']}@{row['default_severity']}",
                *(str(row[k]) for k in ("family", "modality", "summary", "source")),
            )
        print_table(table, prose=True)
    write_json(json_target, rows)
