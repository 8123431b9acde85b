"""Tables (Parquet, Arrow, CSV, TSV, JSON lines, saved `datasets` folders) by way of the `datasets` library.

Whatever the format, `datasets` turns it into Arrow files that are mapped into memory: rows are read when they are
asked for, and a table may be larger than memory.
"""

from __future__ import annotations

import codecs
import csv
import glob
import importlib.metadata
import io
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.cache import content_key
from onnxptq.data._columns import IMAGE_NAMES, PATH_NAMES, SOUND_NAMES, TEXT_NAMES, Columns, choose_columns
from onnxptq.data._folder import IMAGE_SUFFIXES, is_image, read_file
from onnxptq.data._kept import keep, kept
from onnxptq.data._raw import SPLIT_NAMES, RawSplit
from onnxptq.data._sounds import SOUND_SUFFIXES, is_sound
from onnxptq.data.arrow_table import ArrowTable, to_numpy
from onnxptq.data.dataset import TRUTH, Indices
from onnxptq.data.isolated import DecodeError, ask, memory_for, seconds_for
from onnxptq.errors import DataError, OutputError
from onnxptq.files import UNPACKED_FREE, UNPACKED_RATIO, check_unpacked, digest_file
from onnxptq.text_files import read_json

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = {
    ".parquet": "parquet", ".arrow": "arrow", ".csv": "csv", ".tsv": "csv",
    ".jsonl": "json", ".ndjson": "json", ".json": "json",
}  # fmt: skip
"""File name endings, and the reader of `datasets` for each."""

METADATA_STEM = "metadata"
"""A table of this name tells about the images beside it; any other table beside images is not data."""


@dataclass(frozen=True)
class TableRows:
    """Reads rows {column: encoded bytes, text or array, "_name": "row 3 (file)"} of a mapped table.

    Attributes:
        table: the input columns only.
        kinds: what each column holds; "path" is text that names an image file.
        base: the folder from which paths are counted.
        where: the source, for messages.
        trusted: paths may lead out of that folder.
        truths: columns of the truth, read as they are: nested lists and tables as Python has them.
    """

    table: ArrowTable
    kinds: Mapping[str, str]
    base: Path
    where: str
    trusted: bool = False
    truths: tuple[str, ...] = ()

    def __call__(self, indices: Indices) -> list[dict[str, Any]]:
        """The rows at `indices`. Raises DataError naming a row without a value or a file that cannot be read."""
        if len(indices) == 0:
            return []
        batch = self.table.rows(indices)
        rows: list[dict[str, Any]] = [{"_name": f"row {index}"} for index in indices.tolist()]
        for name, kind in self.kinds.items():
            column = batch.column(name)
            values = column if kind == "tensor" else column.to_pylist()
            for row, value in zip(rows, values, strict=True):
                row[name] = self._value(kind, value, name, row)
        for name in self.truths:
            for row, value in zip(rows, batch.column(name).to_pylist(), strict=True):
                row.setdefault(TRUTH, {})[name] = value
        return rows

    def _value(self, kind: str, value: Any, name: str, row: dict[str, Any]) -> Any:
        if kind == "cell":
            return value
        if kind == "tensor":
            value = _array(value, f"{self.where}: {row['_name']}, column {name!r}")
        elif kind == "path" and value is not None:
            row["_name"] += f" ({value})"
            value = self._file(value)
        elif isinstance(value, dict):
            encoded, path = value.get("bytes"), value.get("path")
            if path:
                row["_name"] += f" ({path})"
            value = self._file(path) if encoded is None and path else encoded
        if value is None:
            raise DataError(
                f"{self.where}: {row['_name']} has nothing in column {name!r}. Fill it or leave the row out."
            )
        return value

    def _file(self, name: str) -> bytes:
        return read_file(self.base / name, None if self.trusted else self.base)


def table_files(folder: Path) -> dict[str, list[Path]] | None:
    """The data files of a folder by split, {"": all} where no name tells a split, or None where there are none.

    The split is told by the beginning of a file's name (`train-00000-of-00002.parquet`) or by its folder.

    Raises:
        DataError: files of several formats, or some that belong to a split beside some that belong to none.
    """
    files = [
        path
        for path in sorted([*folder.glob("*"), *folder.glob("*/*")])
        if path.suffix.lower() in FORMATS and not path.name.startswith(".")
    ]
    if any(is_image(path) or is_sound(path) for path in folder.rglob("*")):
        files = [path for path in files if path.stem.lower() == METADATA_STEM]
    if not files:
        return None
    formats = {FORMATS[path.suffix.lower()] for path in files}
    if len(formats) > 1:
        raise DataError(
            f"{folder} holds files of several formats ({', '.join(sorted({f.suffix for f in files}))}). "
            "Give one of the files."
        )
    splits: dict[str, list[Path]] = {}
    for path in files:
        words = [re.split(r"[-_.]", path.name)[0].lower(), *(p.lower() for p in path.relative_to(folder).parts[:-1])]
        splits.setdefault(next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), ""), []).append(path)
    if "" in splits and len(splits) > 1:
        raise DataError(
            f"in {folder}, {splits[''][0].name} belongs to no split, but other files do. Begin every file's name "
            "with train, validation or test, or give one of the files."
        )
    return splits


def read_tables(
    splits: Mapping[str, Sequence[Path]], cache: Path, source: str, *, trusted: bool = False, without: bool = False
) -> dict[str, ArrowTable]:
    """The tables in `splits`, as Arrow files in a folder of `cache` that is named after the files' content.

    They are written in the decoder's process, where every value is looked at, and sealed; afterwards they are only
    mapped. `datasets` itself tells a changed file by its time of change only, which a copy or a fast edit can keep.

    Args:
        splits: split -> files.
        cache: the folder.
        source: as the user wrote it.
        trusted: a file may unpack to any size.
        without: leave out lines of CSV that have more fields than the header (`ragged_lines`).

    Raises:
        DataError: a file is empty, is not of its format, unpacks to far more than data does, or has columns that
            differ from the others'.
        OutputError: the cache cannot be written.
    """
    first = next(iter(splits.values()))[0]
    kind = FORMATS[first.suffix.lower()]
    files = [path for found in splits.values() for path in found]
    digests = [_digest(path) for path in files]
    options = _csv_options(first) if kind == "csv" else {}
    if without:
        options["on_bad_lines"] = "skip"
    names = {name or "whole": len(found) for name, found in splits.items()}
    key = content_key("table", files=digests, kind=kind, options=options, splits=names, reader=_reader_versions())
    place = cache / key[:32]
    found = kept(place)
    if found is None:
        named = {name or "whole": [glob.escape(str(p.resolve())) for p in found] for name, found in splits.items()}
        size = sum(path.stat().st_size for path in files)
        if kind == "parquet" and not trusted:
            _check_parquet_sizes(files, source)
        _write(place, kind, named, options, size, source, trusted)
        found = kept(place)
        if found is None:
            raise OutputError(f"the cache folder {cache} does not keep what is written to it. Set ONNXPTQ_CACHE.")
    return {name: ArrowTable.of_files(found[name or "whole"]) for name in splits}


def ragged_lines(splits: Mapping[str, Sequence[Path]]) -> dict[str, tuple[str, ...]]:
    """By split a line of text for each line of its CSV files that has more fields than the header."""
    return {
        name: tuple(said for path in files if FORMATS[path.suffix.lower()] == "csv" for said in _ragged(path))
        for name, files in splits.items()
    }


def _ragged(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        reader = csv.reader(file, delimiter=_csv_options(path).get("sep", ","))
        try:
            wanted = len(next(reader, ()))
            for fields in reader:
                if len(fields) > wanted:
                    yield f"{path}: line {reader.line_num} has {len(fields)} fields, and its header {wanted}"
        except csv.Error:
            return  # The reader that reads all of it says what is wrong.


def _digest(path: Path) -> str:
    try:
        if path.stat().st_size == 0:
            raise DataError(f"{path} is empty (0 bytes). Write or copy it again.")
        return digest_file(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}.") from error


def _reader_versions() -> list[str]:
    return [importlib.metadata.version(name) for name in ("datasets", "pyarrow")]


def _write(
    place: Path,
    kind: str,
    files: Mapping[str, list[str]],
    options: Mapping[str, Any],
    size: int,
    source: str,
    trusted: bool,
) -> None:
    """Makes the Arrow files of a table, in the decoder's process."""

    def write(folder: Path) -> dict[str, list[Path]]:
        paths, _ = ask(
            "tables",
            kind=kind,
            files=files,
            folder=str(folder),
            options=options,
            seconds=seconds_for(size),
            memory=memory_for(size),
            written=None if trusted else 4 * max(UNPACKED_FREE, UNPACKED_RATIO * size),
        )
        return {name: list(map(Path, found)) for name, found in paths.items()}

    try:
        keep(place, write)
    except DecodeError as error:
        if "No space left" in error.reason:
            raise OutputError(f"no space left in the cache folder {place.parent} to read {source}.") from error
        ragged = _RAGGED.search(error.reason)
        if ragged:
            wanted, line, found = ragged.groups()
            raise DataError(
                f"{source}: line {line} has {found} fields, and its header {wanted}. Put text that holds the separator "
                "in quotes, repair the line, or leave such lines out with --skip-bad."
            ) from error
        raise DataError(
            f"{source} cannot be read as {kind}: {error.reason}. Expected a table with at least one row."
        ) from error


_RAGGED = re.compile(r"Expected (\d+) fields in line (\d+), saw (\d+)")
"""What pandas says of a line that is too long."""


def _check_parquet_sizes(files: Sequence[Path], source: str) -> None:
    """Raises DataError where a file says that it unpacks to far more than data does, before it is unpacked."""
    try:
        sizes, _ = ask("parquet_size", paths=[str(path.absolute()) for path in files])
    except DecodeError as error:
        raise DataError(
            f"{source} cannot be read as parquet: {error.reason}. Expected a table with at least one row."
        ) from error
    for path, (cells, unpacked) in zip(files, sizes, strict=True):
        # Values that repeat take no space in the file, and 8 bytes each in memory.
        check_unpacked(path, max(8 * cells, unpacked), str(path))


def _csv_options(path: Path) -> dict[str, Any]:
    """What the reader of CSV must be told: the separator, and the names of two columns that have no header line.

    Text data sets are often written as `sentence<TAB>0` without one. A name is never a number, so a first line of one
    number and one text is a sample.
    """
    options: dict[str, Any] = {"sep": "\t"} if path.suffix.lower() == ".tsv" else {}
    with path.open("rb") as binary:
        if binary.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            raise DataError(f"{path} is UTF-16. Save it as UTF-8 (in a spreadsheet: CSV UTF-8).")
    with path.open(encoding="utf-8", errors="replace", newline="") as file:
        head = file.read(_HEAD_LETTERS)
    first = head.partition("\n")[0]
    if not options and "," not in first and ";" in first:
        options["sep"] = ";"  # As spreadsheets write it where the comma is the decimal point.
        if "," in head[len(first) :]:
            options["decimal"] = ","
    try:
        cells = next(csv.reader(io.StringIO(head, newline=""), delimiter=options.get("sep", ",")), [])
    except csv.Error:
        return options  # The reader that reads all of it says what is wrong.
    numbers = [cell.strip().lstrip("-").isdecimal() for cell in cells]
    twice = next((cell for cell in cells if cell.strip() and cells.count(cell) > 1), None)
    if twice is not None and not any(numbers):
        raise DataError(f"{path} names the column {twice!r} twice. Rename one of them, or leave it out.")
    if len(cells) == 2 and sum(numbers) == 1:
        options["column_names"] = ["label" if number else TEXT_NAMES[0] for number in numbers]
    elif first.strip().isprintable() and len(head) < _HEAD_LETTERS and not head.partition("\n")[2].strip():
        raise DataError(f"{path} has a header line and no row. Expected at least one sample.")
    return options


_HEAD_LETTERS = 64 * 1024
"""How far the first line is looked for."""


def read_saved(folder: Path) -> dict[str, ArrowTable]:
    """What `save_to_disk` of the `datasets` library wrote, mapped where it lies.

    Raises:
        DataError: the folder is incomplete or damaged.
    """
    _vet_saved(folder)
    with quiet_datasets() as datasets:
        try:
            loaded = datasets.load_from_disk(str(folder))
        except Exception as error:  # As above.
            raise DataError(
                f"{folder} cannot be read as a saved datasets folder: {cause_of(error)}. "
                "Save it again with save_to_disk."
            ) from error
    tables = dict(loaded) if isinstance(loaded, dict) else {"": loaded}
    return {name: as_arrow(table) for name, table in tables.items()}


def as_arrow(table: Any) -> ArrowTable:
    """A `datasets.Dataset` as it is mapped, in its own order."""
    return ArrowTable.of_table(table.with_format("arrow")[:] if table._indices is not None else table.data.table)


def _vet_saved(folder: Path) -> None:
    """Looks at every value of its Arrow files in the decoder's process, and that it names no others."""
    remedy = "Save it again with save_to_disk."
    states = [*folder.glob("state.json"), *folder.glob("*/state.json")]
    files: list[Path] = []
    for state in states:
        named: Any = read_json(state, "file", DataError).get("_data_files")
        names = [entry.get("filename") if isinstance(entry, dict) else None for entry in named or ()]
        if not all(isinstance(name, str) and name == Path(name).name for name in names):
            raise DataError(f"{state} names files that do not lie beside it. {remedy}")
        files += [state.parent / str(name) for name in names]
    missing = next((file for file in files if not file.is_file()), None)
    if missing is not None:
        raise DataError(f"{folder} cannot be read as a saved datasets folder: there is no {missing}. {remedy}")
    size = sum(file.stat().st_size for file in files)
    try:
        ask("arrow", files=[str(file.absolute()) for file in files], seconds=seconds_for(size), memory=memory_for(size))
    except DecodeError as error:
        raise DataError(f"{folder} cannot be read as a saved datasets folder: {error.reason}. {remedy}") from error


def raw_split(table: ArrowTable, base: Path, columns: Columns, where: str, *, trusted: bool = False) -> RawSplit:
    """One table as inputs, labels and attributes.

    Raises:
        DataError: no row, or no input column.
        UsageError: a named column does not exist.
    """
    if table.num_rows == 0:
        raise DataError(f"{where} has no row. Expected at least one sample.")
    class_names = table.class_names()
    chosen = choose_columns(table.kinds(), list(class_names), columns, where)
    truths = tuple(name for name in columns.truths if name in table.names and name not in chosen.inputs)
    paths = {name: _are_paths(table, name) for name, kind in chosen.inputs.items() if kind == "text"}
    scalars = [*chosen.attributes, *([chosen.label] if chosen.label else [])]
    values = table.select(scalars).whole() if scalars else None
    return RawSplit(
        rows=TableRows(
            table.select([*chosen.inputs, *truths]),
            {name: "path" if paths.get(name) else kind for name, kind in chosen.inputs.items()},
            base,
            where,
            trusted,
            truths,
        ),
        count=table.num_rows,
        labels=None if chosen.label is None or values is None else values.column(chosen.label).to_pylist(),
        declared=class_names.get(chosen.label or ""),
        attributes={
            name: _attribute(values.column(name).to_pylist(), class_names.get(name))
            for name in chosen.attributes
            if values is not None
        },
    )


@contextmanager
def quiet_datasets() -> Iterator[Any]:
    """The `datasets` module without progress bars and log lines: what is wrong is said by our errors.

    Nor does it count downloads, which it does over the network for every table that it reads, local ones too.
    """
    import datasets

    bars, verbosity = not datasets.are_progress_bars_disabled(), datasets.logging.get_verbosity()
    counted, datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = datasets.config.HF_UPDATE_DOWNLOAD_COUNTS, False
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(logging.CRITICAL)
    try:
        yield datasets
    finally:
        datasets.config.HF_UPDATE_DOWNLOAD_COUNTS = counted
        datasets.logging.set_verbosity(verbosity)
        if bars:
            datasets.enable_progress_bars()


def _innermost(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def cause_of(error: BaseException) -> str:
    """The innermost reason, on one line."""
    error = _innermost(error)
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _are_paths(table: ArrowTable, name: str) -> bool:
    first = table.select([name]).rows(np.zeros(1, np.int64)).column(name)[0].as_py()
    suffixes = IMAGE_SUFFIXES | SOUND_SUFFIXES
    return name.lower() in (*IMAGE_NAMES, *SOUND_NAMES, *PATH_NAMES) or Path(first or "").suffix.lower() in suffixes


def _attribute(values: list[Any], names: Sequence[str] | None) -> list[Any]:
    return values if names is None else [None if v is None or v < 0 else names[v] for v in values]


def _array(scalar: pa.Scalar, where: str) -> npt.NDArray[Any] | None:
    """A nested list as an array of its own dtype. Raises DataError where the lists differ in length or hold nulls."""
    import pyarrow as pa

    if not scalar.is_valid:
        return None
    values = (scalar.value if isinstance(scalar, pa.ExtensionScalar) else scalar).values
    shape = [len(values)]
    while pa.types.is_nested(values.type):
        lengths = set(values.value_lengths().to_pylist())
        if len(lengths) != 1 or None in lengths:
            raise DataError(f"{where}: its lists are empty or differ in length. Expected equal lengths on each level.")
        shape.append(lengths.pop())
        values = values.flatten()
    if values.null_count:
        raise DataError(f"{where}: it holds nulls. Fill them or leave the sample out.")
    return to_numpy(values).reshape(shape)
