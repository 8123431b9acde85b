"""Arrow files that are mapped into memory: any rows of a table that may be larger than memory.

`datasets` writes them (in the decoder's process, or for whoever saved a folder) and says in the schema what it takes a
column for. They are read without it: importing it takes longer than most tables do.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.data._columns import Kind
from onnxptq.data.dataset import Indices

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class ArrowTable:
    """A table whose rows are read when they are asked for.

    Attributes:
        batches: its rows in order.
        schema: of all of its columns, with what `datasets` wrote about them.
        names: the columns that are read, in this order.
    """

    batches: tuple[pa.RecordBatch, ...]
    schema: pa.Schema
    names: tuple[str, ...]

    @classmethod
    def of_files(cls, paths: Sequence[Path]) -> ArrowTable:
        """The files' rows one after the other; their columns must be the same."""
        opened = [_batches(path) for path in paths]
        schema = opened[0][0]
        return cls(tuple(batch for _, batches in opened for batch in batches), schema, tuple(schema.names))

    @classmethod
    def of_table(cls, table: pa.Table) -> ArrowTable:
        """A table that somebody else opened."""
        return cls(tuple(table.to_batches()), table.schema, tuple(table.column_names))

    @cached_property
    def num_rows(self) -> int:
        """The number of rows."""
        return sum(batch.num_rows for batch in self.batches)

    @cached_property
    def _ends(self) -> Indices:
        return np.cumsum([batch.num_rows for batch in self.batches], dtype=np.int64)

    def kinds(self) -> dict[str, Kind]:
        """What each column holds."""
        return {name: _kind(self.schema.field(name).type, name in self.class_names()) for name in self.names}

    def class_names(self) -> Mapping[str, tuple[str, ...]]:
        """The names into which the integers of a column point, for the columns that declare any."""
        written = json.loads((self.schema.metadata or {}).get(b"huggingface", b"{}"))
        features = written.get("info", {}).get("features") or {}
        return {
            name: tuple(about["names"])
            for name, about in features.items()
            if isinstance(about, dict) and about.get("_type") == "ClassLabel"
        }

    def select(self, names: Sequence[str]) -> ArrowTable:
        """The same rows with some of the columns."""
        return ArrowTable(self.batches, self.schema, tuple(names))

    def whole(self) -> pa.Table:
        """All rows."""
        import pyarrow as pa

        return pa.Table.from_batches(self.batches, self.schema).select(self.names)

    def rows(self, indices: Indices) -> pa.Table:
        """The rows at `indices`, in that order: slices of the mapped files, which copy nothing."""
        import pyarrow as pa

        schema = pa.schema([self.schema.field(name) for name in self.names])
        return pa.Table.from_batches([batch.select(self.names) for batch in self._slices(indices)], schema)

    def _slices(self, indices: Indices) -> Iterator[pa.RecordBatch]:
        breaks = np.flatnonzero(np.diff(indices) != 1) + 1
        for run in np.split(indices, breaks):
            start, stop = int(run[0]), int(run[-1]) + 1
            while start < stop:
                number = int(np.searchsorted(self._ends, start, side="right"))
                batch, end = self.batches[number], int(self._ends[number])
                first, length = start - (end - batch.num_rows), min(stop, end) - start
                yield batch.slice(first, length)
                start += length


def _batches(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    import pyarrow as pa

    source = pa.memory_map(str(path))
    try:
        stream = pa.ipc.open_stream(source)
        return stream.schema, list(stream)
    except pa.ArrowInvalid:
        file = pa.ipc.open_file(source)
        return file.schema, [file.get_batch(number) for number in range(file.num_record_batches)]


def _kind(type_: Any, is_class: bool) -> Kind:
    from pyarrow import types

    type_ = getattr(type_, "storage_type", type_)
    if is_class:
        return "scalar"
    if types.is_struct(type_):
        return "image" if type_.get_field_index("bytes") >= 0 else "other"
    if _is_list(type_):
        while _is_list(type_):
            type_ = type_.value_type
        return "tensor" if _value_kind(type_) in ("scalar", "number") else "other"
    return _value_kind(type_)


def _is_list(type_: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_))


def _value_kind(type_: Any) -> Kind:
    from pyarrow import types

    if types.is_binary(type_) or types.is_large_binary(type_) or types.is_fixed_size_binary(type_):
        return "image"
    if types.is_string(type_) or types.is_large_string(type_):
        return "text"
    if types.is_integer(type_) or types.is_boolean(type_):
        return "scalar"
    return "number" if types.is_floating(type_) else "other"


def to_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """An Arrow array as NumPy has it: numbers (null is NaN), bool, or objects (null is None).

    What `Array.to_numpy` gives, which imports pandas for it.
    """
    from pyarrow import types

    if not (types.is_integer(array.type) or types.is_floating(array.type)):
        return np.array(array.to_pylist(), bool if types.is_boolean(array.type) and not array.null_count else object)
    dtype = array.type.to_pandas_dtype()
    if array.null_count:
        values = [np.nan if value is None else value for value in array.to_pylist()]
        return np.array(values, dtype if types.is_floating(array.type) else np.float64)
    return np.from_dlpack(array) if len(array) else np.empty(0, dtype)
