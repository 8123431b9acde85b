"""A study as flat tables: one row a cell, a group or a tensor, in CSV, Parquet or JSON."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from onnxptq.errors import DataError, UsageError
from onnxptq.files import check_writable, replacing
from onnxptq.foreign_text import csv_row, json_text
from onnxptq.sweeps.store import METRICS
from onnxptq.sweeps.study import Study

Table = Literal["cells", "groups", "ranges"]
Row = dict[str, Any]


def flat(study: Study) -> list[Row]:
    """One row a cell, without its groups and ranges: what `runs export` and `--json` write."""
    return [
        {
            **asdict(cell.key),
            "status": cell.status,
            "error": cell.error,
            **{name: cell.report.get(name) for name in METRICS},
            "int8_bytes": cell.int8_bytes,
            "recipe_digest": cell.recipe_digest,
            "model_digest": cell.model_digest,
            "predictions": cell.predictions,
            **{f"seconds_{part}": cell.seconds.get(part) for part in ("calibrate", "quantize", "evaluate")},
        }
        for cell in study.cells
    ]


def rows_of(study: Study, table: Table) -> list[Row]:
    """The rows of one table: "cells", "groups" (each group of each cell), or "ranges" (each tensor of each cell)."""
    if table == "cells":
        return [{"run": study.run, **row} for row in flat(study)]
    rows = []
    for cell in study.cells:
        place = {"run": study.run, **asdict(cell.key)}
        if table == "groups":
            rows += [{**place, **_renamed(group)} for group in cell.report.get("groups", ())]
        else:
            rows += [{**place, "tensor": name, "low": low, "high": high} for name, (low, high) in cell.ranges.items()]
    return rows


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Writes rows as the ending of the file's name says.

    Raises:
        UsageError: another ending.
        OutputError: it cannot be written.
        DataError: there are no rows.
    """
    writers: dict[str, Callable[[Sequence[Row], Path], None]] = {
        ".csv": _write_csv,
        ".parquet": _write_parquet,
        ".json": _write_json,
    }
    if path.suffix.lower() not in writers:
        raise UsageError(f"{path} must end in {', '.join(writers)}: the ending says what is written.")
    if not rows:
        raise DataError("the run has no such rows yet; see `onnxptq runs show`.")
    check_writable(path)
    with replacing(path) as temporary:
        writers[path.suffix.lower()](rows, temporary)


def _renamed(group: Mapping[str, Any]) -> Row:
    return {"group": group["name"], **{key: value for key, value in group.items() if key != "name"}}


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(map(csv_row, rows))


def _write_parquet(rows: Sequence[Row], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows)), path, compression="zstd")


def _write_json(rows: Sequence[Row], path: Path) -> None:
    path.write_text(json_text(list(rows)), encoding="utf-8")
