"""What every input does with raw rows."""

from __future__ import annotations

from onnxptq.tasks._base import Row


def row_name(row: Row) -> str:
    """What messages call a sample."""
    return str(row.get("_name", "a sample"))


def input_columns(row: Row) -> list[str]:
    """The columns of a row that hold inputs."""
    return [name for name in row if not name.startswith("_")]
