"""`onnxptq calibs`: the calibration sets that there are."""

from __future__ import annotations

from typing import Any

import click

from onnxptq.commands._output import json_option, write_json
from onnxptq.reports.tables import print_table

_OTHERS = (
    ("random", "noise from the model's input signature; needs no data", "data-free calibration"),
    (
        "synthetic",
        "images of coloured noise and of dead leaves, half and half; needs no data",
        "Lee et al. 2001; Baradad et al. 2021 (arXiv 2106.05963)",
    ),
    ("foreign:SOURCE", "another dataset through the model's preprocessing", "Yuan et al. 2023, out-of-distribution"),
)


@click.command()
@json_option
def calibs(json_target: str | None) -> None:
    """List the calibration sets.

    Sets combine with +: a sampling comes first, shifts and augmentations follow (imbalanced:ratio=100+dark@3+mixup).
    """
    rows = list(_rows())
    if json_target != "-":
        from rich.table import Table

        table = Table("set", "kind", "what it does", "from", title="Calibration sets")
        for row in rows:
            table.add_row(row["name"], row["kind"], row["summary"], row["source"])
        print_table(table, prose=True)
    write_json(json_target, rows)


def _rows() -> Any:
    from onnxptq.calibrators import PARTS, SAMPLERS
    from onnxptq.data.shifts import SHIFTS

    for sampler in SAMPLERS:
        shown = ",".join(f"{k}={v if v != '' else k.upper()}" for k, v in sampler.parameters.items())
        name = f"{sampler.name}:{shown}" if shown else sampler.name
        yield {"name": name, "kind": "sampling", "summary": sampler.summary, "source": sampler.source}
    for name, summary, source in _OTHERS:
        yield {"name": name, "kind": "source", "summary": summary, "source": source}
    for name, (first, *others) in PARTS.items():
        summary = f"the same as {first}; where the input is no image: {', '.join(others)}, the first that fits"
        yield {"name": name, "kind": "alias", "summary": summary, "source": "onnxptq"}
    for shift in SHIFTS:
        name = f"{shift.name}@{shift.default_severity}"
        kind = "augmentation" if shift.family == "augmentation" else f"shift ({shift.modality})"
        yield {"name": name, "kind": kind, "summary": shift.summary, "source": shift.source}
