"""What a source holds, told by its beginning alone: for proposing how a model may read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from onnxptq.data._columns import LABEL_NAMES, Kind
from onnxptq.data._folder import read_file
from onnxptq.data._raw import SPLIT_NAMES
from onnxptq.data._sounds import decode_sound, is_sound
from onnxptq.data._tables import FORMATS, read_tables, table_files
from onnxptq.data.arrow_table import ArrowTable
from onnxptq.data.isolated import DecodeError
from onnxptq.errors import DataError

_MOST_CATEGORIES = 64
"""More different texts than this are no categories."""

_ROWS = 10_000
"""Rows that are looked at."""


@dataclass(frozen=True)
class Preview:
    """What a source holds.

    Attributes:
        columns: of a table, by name what each holds, in order; {} where the source is no table.
        categories: the different texts of each column of text that has few, sorted; of recordings their "folder".
        missing: by name of columns with empty cells the mean of the others, None where they are no numbers.
        label: the column that looks like the label, or None.
        sample_rate: samples a second of the first recording, or None where there is none.
    """

    columns: Mapping[str, Kind] = field(default_factory=dict)
    categories: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    missing: Mapping[str, float | None] = field(default_factory=dict)
    label: str | None = None
    sample_rate: int | None = None


def preview(source: str, cache: Path, label: str | None = None) -> Preview:
    """Looks at the first rows of a table, or at the first recording of a folder.

    Args:
        source: as `open_source` takes it; of other kinds nothing is told.
        cache: as for `open_source`.
        label: the label column, where the user named it.

    Raises:
        DataError: the table or the recording cannot be read.
    """
    path = Path(source)
    if path.is_dir():
        files = table_files(path)
        if files is None:
            return _of_recordings(path)
    elif path.suffix.lower() in FORMATS and path.is_file():
        files = {"": [path]}
    else:
        return Preview()
    return _of_table(next(iter(read_tables(files, cache, source).values())), label)


def _of_recordings(folder: Path) -> Preview:
    first = next((file for file in sorted(folder.rglob("*")) if is_sound(file)), None)
    if first is None:
        return Preview()
    try:
        rate = decode_sound(read_file(first), 16_000).rate
    except DecodeError as error:
        raise DataError(f"{first} {error.reason}. Repair it or leave it out.") from error
    classes = tuple(sorted(one.name for one in folder.iterdir() if one.is_dir() and one.name not in SPLIT_NAMES))
    return Preview(categories={"folder": classes}, label="folder", sample_rate=rate)


def _of_table(table: ArrowTable, label: str | None) -> Preview:
    import pyarrow.compute

    kinds = table.kinds()
    some = table.select(list(kinds)).whole().slice(0, _ROWS)
    texts = [name for name, kind in kinds.items() if kind == "text"]
    different = {name: set(filter(None, some.column(name).unique().to_pylist())) for name in texts}
    named = next((name for want in LABEL_NAMES for name in kinds if name.lower() == want), None)
    return Preview(
        columns=kinds,
        categories={n: tuple(sorted(found)) for n, found in different.items() if 0 < len(found) <= _MOST_CATEGORIES},
        missing={
            name: pyarrow.compute.mean(some.column(name)).as_py() if kind in ("scalar", "number") else None
            for name, kind in kinds.items()
            if some.column(name).null_count
        },
        label=label or named,
    )
