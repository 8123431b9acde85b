"""Predictions: one row per sample, model and runtime. Everything a user reads is computed from them.

The Parquet file (schema version 2, documented in docs/formats.md) may hold several runs, told apart by `run`. Files
of schema 1, which knew classifiers only, are read as well.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.arrow_table import to_numpy
from onnxptq.errors import DataError
from onnxptq.files import replacing
from onnxptq.heads import Head
from onnxptq.text_files import json_object

if TYPE_CHECKING:
    import pyarrow as pa

SCHEMA_VERSION = 2
_METADATA_KEY = b"onnxptq.predictions"

_MAGIC = b"PAR1"
"""At both ends of a Parquet file; in front of the last one stands the length of the footer."""


@dataclass(frozen=True)
class OutputShape:
    """One output of a model in `Predictions.outputs`: its name, numpy dtype name and the shape for one sample."""

    name: str
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Predictions:
    """What one model on one runtime said of N samples.

    Attributes:
        sample_id: str, (N,): unique; the source sample and what was done to it.
        source_id: str, (N,): the original sample behind corrupted copies (digest of its content).
        groups: group columns, each str, (N,).
        label: int64, (N,): the class of the data, -1 where there is none.
        signal_energy: float64, (N,): sum of squares of the reference's outputs, NaN without a reference.
        error_energy: float64, (N,): sum of squared differences to the reference's outputs, NaN without a reference.
        identity: what was run on what, JSON types: `model` (name, digest), `runtime`, `data`, `preprocessing`,
            `task`, `head`, `judged` (names of outputs), `against` (digest of the reference), `classes`, `corruptions`,
            `seed`.
        code: int64, (N,): equal where the answer is the same (the class); None where answers are continuous.
        scores: by measure, float32, (N,), in [0, 1]: how good the answer is; NaN where there is no truth. The first is
            the head's default measure.
        fidelity: float32, (N,), in [0, 1]: how near the answer is to the reference's; None where it is not known.
        certainty: float32, (N,): how far the answer is from another one (a classifier's margin), or None.
        records: what totals are computed from, by name: an array (N,), or N flat lists.
        outputs: float32, (N, K): all outputs flattened, or None where they are too large to keep, differ in shape
            between samples, or hold text or integers that float32 cannot.
        shapes: what `outputs` is made of, in order; () without, and in files of schema 1.
        energies: by output (floats and images only): signal and error energy, each float64, (N,).
        head: of the task, where they were made just now; files do not hold it.
    """

    sample_id: npt.NDArray[np.str_]
    source_id: npt.NDArray[np.str_]
    groups: Mapping[str, npt.NDArray[np.str_]]
    label: npt.NDArray[np.int64]
    signal_energy: npt.NDArray[np.float64]
    error_energy: npt.NDArray[np.float64]
    identity: Mapping[str, Any]
    code: npt.NDArray[np.int64] | None = None
    scores: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    fidelity: npt.NDArray[np.float32] | None = None
    certainty: npt.NDArray[np.float32] | None = None
    records: Mapping[str, Any] = field(default_factory=dict)
    outputs: npt.NDArray[np.float32] | None = None
    shapes: tuple[OutputShape, ...] = ()
    energies: Mapping[str, tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]] = field(default_factory=dict)
    head: Head | None = field(default=None, compare=False, repr=False)

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def labelled(self) -> bool:
        """Whether the answer to every sample can be held against the truth."""
        if self.scores:
            return not np.isnan(next(iter(self.scores.values()))).any()
        return self.code is not None and bool((self.label >= 0).all())

    @property
    def runtime(self) -> str:
        """What the model ran on, as `--ep` names it: "cpu", "cpu:exact", "cpu@1.20"."""
        known = self.identity["runtime"]
        return str(known.get("name", known["provider"]))

    @property
    def judged(self) -> tuple[str, ...]:
        """Names of the outputs that the answers were read from; () in files of schema 1, which do not say."""
        return tuple(self.identity.get("judged") or ())

    def unflattened(self) -> list[npt.NDArray[Any]]:
        """The outputs that were kept, (N, ...) each in the model's dtype. Call it only where `shapes` are known."""
        assert self.outputs is not None and self.shapes
        found, start = [], 0
        for one in self.shapes:
            width = math.prod(one.shape)
            part = self.outputs[:, start : start + width]
            found.append(part.reshape(len(self), *one.shape).astype(one.dtype, copy=False))
            start += width
        return found


def save_predictions(path: Path, runs: Sequence[Predictions]) -> None:
    """Writes runs to one Parquet file. Raises OutputError when it cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [_to_table(run, number) for number, run in enumerate(runs)]
    table = pa.concat_tables(tables, promote_options="default")
    header = {
        "schema_version": SCHEMA_VERSION,
        "runs": [dict(run.identity) for run in runs],
        "shapes": [[asdict(shape) for shape in run.shapes] for run in runs],
    }
    table = table.replace_schema_metadata({_METADATA_KEY: json.dumps(header, sort_keys=True).encode()})
    with replacing(path) as temporary:
        # With checksums, so that a flipped bit is found by whoever reads it, and is no prediction.
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def load_predictions(path: Path) -> list[Predictions]:
    """The runs of a Parquet file. Raises DataError when it is not one of ours, damaged, or of a newer schema."""
    try:
        return _read(path)
    except DataError:
        raise
    except OSError as error:
        raise DataError(f"the predictions {path} cannot be read: {error}") from error
    except Exception as error:  # A damaged file fails in many ways: Arrow's, JSON's, a missing column or key.
        raise DataError(
            f"the predictions {path} cannot be read, they are damaged ({type(error).__name__}: {error}). "
            "Make them again with `onnxptq evaluate --predictions FILE`."
        ) from error


def predictions_stand(path: Path) -> bool:
    """Whether a file of predictions is there from its first byte to its last, without reading what is between.

    One that was cut off, or of which a part is missing, has no Parquet footer at its end. Bytes that were changed in
    its middle are found by `load_predictions`.
    """
    try:
        with path.open("rb") as file:
            begins = file.read(len(_MAGIC)) == _MAGIC
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            footer, ends = int.from_bytes(file.read(4), "little"), file.read() == _MAGIC
    except OSError:
        return False
    return begins and ends and 0 < footer <= size - 12


def _read(path: Path) -> list[Predictions]:
    import pyarrow.parquet as pq

    # `read_table` imports pandas by way of pyarrow.dataset, which takes longer than reading most files.
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        table = file.read()
    metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
    if metadata is None:
        raise DataError(f"{path} is a Parquet file, but not predictions of onnxptq (no {_METADATA_KEY.decode()} key).")
    header = json_object(metadata.decode(), f"the metadata of the predictions {path}", DataError)
    version = header["schema_version"]
    if version not in (1, SCHEMA_VERSION):
        raise DataError(
            f"{path} has predictions of schema {version}; this version reads 1 and {SCHEMA_VERSION}. Update onnxptq."
        )
    if not header["runs"]:
        raise DataError(f"{path} has no run. Make predictions with `onnxptq evaluate --predictions FILE`.")
    for identity in header["runs"]:
        _check_identity(identity)
    _check_columns(table, _COLUMNS_OF_CLASSES if version == 1 else {})
    tables = _by_run(table, len(header["runs"]))
    if version == 1:
        return [_from_table_of_classes(*pair) for pair in zip(tables, header["runs"], strict=True)]
    shapes = [
        tuple(OutputShape(one["name"], one["dtype"], tuple(one["shape"])) for one in of_run)
        for of_run in header["shapes"]
    ]
    return [_from_table(*of_run) for of_run in zip(tables, header["runs"], shapes, strict=True)]


def _by_run(table: pa.Table, runs: int) -> list[pa.Table]:
    """The rows of each run; a file that was written in order, as ours are, is only cut."""
    numbers = to_numpy(table["run"].combine_chunks())
    if np.all(numbers[1:] >= numbers[:-1]):
        ends = np.searchsorted(numbers, np.arange(runs + 1))
        return [table.slice(first, last - first) for first, last in pairwise(ends.tolist())]
    return [table.filter(numbers == number) for number in range(runs)]


def _check_identity(identity: Mapping[str, Any]) -> None:
    """Raises KeyError or TypeError where a run does not say what it is."""
    named = (identity["model"]["name"], identity["model"].get("digest", ""), identity["runtime"]["provider"])
    if not all(isinstance(text, str) for text in named):
        raise TypeError(f"a run is named {named}")
    for key, kind in _IDENTITY.items():
        if not isinstance(identity.get(key), kind | None):
            raise TypeError(f"{key!r} of a run is {identity[key]!r}")


_IDENTITY: dict[str, Any] = {
    "runtime": dict,
    "data": dict | str,
    "preprocessing": dict,
    "task": str,
    "head": str,
    "judged": list,
    "classes": list,
    "corruptions": list,
    "seed": int,
}


def _check_columns(table: Any, more: Mapping[str, tuple[str, ...]]) -> None:
    """Raises KeyError or TypeError where a column is missing, is there twice, or holds something else."""
    if len(set(table.column_names)) < len(table.column_names):
        raise TypeError("a column is there twice")
    for name, kinds in {**_COLUMNS, **more}.items():
        if str(table.schema.field(name).type) not in kinds:
            raise TypeError(f"the column {name!r} holds {table.schema.field(name).type}, expected {kinds[0]}")
        if table[name].null_count:
            raise TypeError(f"the column {name!r} has empty cells")
    for name in table.column_names:
        kind = str(table.schema.field(name).type)
        for prefix, kinds in _PREFIXES.items():
            if name.startswith(prefix) and kind not in kinds:
                raise TypeError(f"the column {name!r} holds {kind}, expected {kinds[0]}")


_TEXTS = ("string", "large_string")
_COLUMNS = {
    "run": ("int32", "int64"),
    **dict.fromkeys(("sample_id", "source_id"), _TEXTS),
    "label": ("int64",),
    **dict.fromkeys(("signal_energy", "error_energy"), ("double",)),
}
"""Columns that every file has, and the types that they may have."""

_COLUMNS_OF_CLASSES = {"prediction": ("int64",), **dict.fromkeys(("score", "margin"), ("float", "double"))}
"""Those that a file of schema 1 has beside."""

_PREFIXES = {
    "group.": _TEXTS,
    "score.": ("float", "double"),
    **dict.fromkeys(("signal_energy.", "error_energy."), ("double",)),
}
"""Columns that a file may have, by the beginning of their names."""


def _to_table(run: Predictions, number: int) -> Any:
    import pyarrow as pa

    def texts(values: npt.NDArray[np.str_]) -> Any:
        return pa.array(values.tolist(), pa.string())  # Arrow takes twice as long over an array of str.

    columns: dict[str, Any] = {
        "run": pa.array(np.full(len(run), number, dtype=np.int32)),
        "model": pa.repeat(pa.scalar(run.identity["model"]["name"], pa.string()), len(run)),
        "runtime": pa.repeat(pa.scalar(run.runtime, pa.string()), len(run)),
        "sample_id": texts(run.sample_id),
        "source_id": texts(run.source_id),
    }
    for name, values in run.groups.items():
        columns[f"group.{name}"] = texts(values)
    columns["label"] = pa.array(run.label)
    for name in ("code", "fidelity", "certainty"):
        if (values := getattr(run, name)) is not None:
            columns[name] = pa.array(values)
    columns |= {f"score.{name}": pa.array(values) for name, values in run.scores.items()}
    columns |= {f"record.{name}": pa.array(values) for name, values in run.records.items()}
    for name in ("signal_energy", "error_energy"):
        columns[name] = pa.array(getattr(run, name))
    for name, (signal, error) in run.energies.items():
        columns |= {f"signal_energy.{name}": pa.array(signal), f"error_energy.{name}": pa.array(error)}
    if run.outputs is not None:
        flat = pa.array(run.outputs.ravel())
        columns["outputs"] = pa.FixedSizeListArray.from_arrays(flat, run.outputs.shape[1])
    return pa.table(columns)


class _Columns:
    """The columns of one run. One that another run of the file has, and this one has not, is empty here."""

    def __init__(self, table: Any) -> None:
        self._table = table
        self.names = [name for name in table.column_names if table[name].null_count < len(table)]

    def __getitem__(self, name: str) -> Any:
        return to_numpy(self._table[name].combine_chunks())

    def maybe(self, name: str) -> Any:
        return self[name] if name in self.names else None

    def texts(self, name: str) -> npt.NDArray[np.str_]:
        return np.asarray(self[name].astype(np.str_))

    def beginning(self, prefix: str) -> list[str]:
        return [name.removeprefix(prefix) for name in self.names if name.startswith(prefix)]

    def record(self, name: str) -> Any:
        values = self._table[f"record.{name}"]
        nested = str(values.type).startswith(("list", "large_list")) or str(values.type) == "string"
        return values.to_pylist() if nested else self[f"record.{name}"]

    def outputs(self) -> npt.NDArray[np.float32] | None:
        if "outputs" not in self.names:
            return None
        lists = self._table["outputs"].combine_chunks()
        size = lists.type.list_size
        flat = to_numpy(lists.values.slice(lists.offset * size, len(lists) * size))  # `flatten` imports pandas.
        return np.asarray(flat.reshape(len(lists), size))


def _from_table(table: Any, identity: Mapping[str, Any], shapes: tuple[OutputShape, ...]) -> Predictions:
    columns = _Columns(table)
    return Predictions(
        sample_id=columns.texts("sample_id"),
        source_id=columns.texts("source_id"),
        groups={name: columns.texts(f"group.{name}") for name in columns.beginning("group.")},
        label=columns["label"],
        signal_energy=columns["signal_energy"],
        error_energy=columns["error_energy"],
        identity=identity,
        code=columns.maybe("code"),
        scores={name: columns[f"score.{name}"] for name in columns.beginning("score.")},
        fidelity=columns.maybe("fidelity"),
        certainty=columns.maybe("certainty"),
        records={name: columns.record(name) for name in columns.beginning("record.")},
        outputs=columns.outputs(),
        shapes=shapes,
        energies={
            name: (columns[f"signal_energy.{name}"], columns[f"error_energy.{name}"])
            for name in columns.beginning("signal_energy.")
        },
    )


def _from_table_of_classes(table: Any, identity: Mapping[str, Any]) -> Predictions:
    """A run of schema 1: class, confidence ("score") and margin of a classifier."""
    columns = _Columns(table)
    label, prediction = columns["label"], columns["prediction"]
    right = (prediction == label).astype(np.float32)
    right[label < 0] = np.nan
    return Predictions(
        sample_id=columns.texts("sample_id"),
        source_id=columns.texts("source_id"),
        groups={name: columns.texts(f"group.{name}") for name in columns.beginning("group.")},
        label=label,
        signal_energy=columns["signal_energy"],
        error_energy=columns["error_energy"],
        identity=identity,
        code=prediction,
        scores={"accuracy": right},
        certainty=columns["margin"],
        records={"confidence": columns["score"]},
        outputs=columns.outputs(),
    )
