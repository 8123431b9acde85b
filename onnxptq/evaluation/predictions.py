"""Predictions: one row per sample, model and runtime. Everything a user reads is computed from them.

The Parquet file (schema version 1, documented in docs/formats.md) may hold several runs, told apart by `run`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.files import replacing
from onnxptq.text_files import json_object

SCHEMA_VERSION = 1
_METADATA_KEY = b"onnxptq.predictions"

_MAGIC = b"PAR1"
"""At both ends of a Parquet file; in front of the last one stands the length of the footer."""


@dataclass(frozen=True)
class Predictions:
    """What one model on one runtime said of N samples.

    Attributes:
        sample_id: str, (N,): unique; the source sample and what was done to it.
        source_id: str, (N,): the original sample behind corrupted copies (digest of its content).
        groups: group columns, each str, (N,).
        label: int64, (N,): -1 where there is none.
        prediction: int64, (N,).
        score: float32, (N,).
        margin: float32, (N,).
        outputs: float32, (N, K): all outputs flattened, or None where K is too large to keep.
        signal_energy: float64, (N,): sum of squares of the reference's outputs, NaN without a reference.
        error_energy: float64, (N,): sum of squared differences to the reference's outputs, NaN without a reference.
        identity: what was run on what, JSON types: `model` (name, digest), `runtime`, `data`, `preprocessing`,
            `task`, `classes`, `corruptions`, `seed`.
    """

    sample_id: npt.NDArray[np.str_]
    source_id: npt.NDArray[np.str_]
    groups: Mapping[str, npt.NDArray[np.str_]]
    label: npt.NDArray[np.int64]
    prediction: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    margin: npt.NDArray[np.float32]
    outputs: npt.NDArray[np.float32] | None
    signal_energy: npt.NDArray[np.float64]
    error_energy: npt.NDArray[np.float64]
    identity: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.sample_id)

    @property
    def labelled(self) -> bool:
        """Whether every sample has a label."""
        return bool((self.label >= 0).all())

    @property
    def runtime(self) -> str:
        """What the model ran on, as `--ep` names it: "cpu", "cpu:exact", "cpu@1.20"."""
        known = self.identity["runtime"]
        return str(known.get("name", known["provider"]))

    @property
    def correct(self) -> npt.NDArray[np.bool_]:
        """bool, (N,): prediction equals label."""
        equal: npt.NDArray[np.bool_] = self.prediction == self.label
        return equal


def save_predictions(path: Path, runs: Sequence[Predictions]) -> None:
    """Writes runs to one Parquet file. Raises OutputError when it cannot be written."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [_to_table(run, number) for number, run in enumerate(runs)]
    table = pa.concat_tables(tables, promote_options="default")
    header = {"schema_version": SCHEMA_VERSION, "runs": [dict(run.identity) for run in runs]}
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
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    table = pq.read_table(path, page_checksum_verification=True)
    metadata = (table.schema.metadata or {}).get(_METADATA_KEY)
    if metadata is None:
        raise DataError(f"{path} is a Parquet file, but not predictions of onnxptq (no {_METADATA_KEY.decode()} key).")
    header = json_object(metadata.decode(), f"the metadata of the predictions {path}", DataError)
    if header["schema_version"] != SCHEMA_VERSION:
        raise DataError(
            f"{path} has predictions of schema {header['schema_version']}; this version reads {SCHEMA_VERSION}. "
            "Update onnxptq."
        )
    if not header["runs"]:
        raise DataError(f"{path} has no run. Make predictions with `onnxptq evaluate --predictions FILE`.")
    for identity in header["runs"]:
        _check_identity(identity)
    _check_columns(table)
    return [
        _from_table(table.filter(pc.equal(table["run"], number)), identity)
        for number, identity in enumerate(header["runs"])
    ]


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
    "classes": list,
    "corruptions": list,
    "seed": int,
}


def _check_columns(table: Any) -> None:
    """Raises KeyError or TypeError where a column is missing, is there twice, or holds something else."""
    if len(set(table.column_names)) < len(table.column_names):
        raise TypeError("a column is there twice")
    for name, kinds in _COLUMNS.items():
        if str(table.schema.field(name).type) not in kinds:
            raise TypeError(f"the column {name!r} holds {table.schema.field(name).type}, expected {kinds[0]}")
        if table[name].null_count:
            raise TypeError(f"the column {name!r} has empty cells")
    for name in table.column_names:
        kind = str(table.schema.field(name).type)
        if name.startswith("group.") and kind not in _TEXTS:
            raise TypeError(f"the column {name!r} holds {kind}, expected string")


_TEXTS = ("string", "large_string")
_COLUMNS = {
    "run": ("int32", "int64"),
    **dict.fromkeys(("sample_id", "source_id"), _TEXTS),
    **dict.fromkeys(("label", "prediction"), ("int64",)),
    **dict.fromkeys(("score", "margin"), ("float", "double")),
    **dict.fromkeys(("signal_energy", "error_energy"), ("double",)),
}
"""Columns that every file has, and the types that they may have."""


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
    for name in ("label", "prediction", "score", "margin", "signal_energy", "error_energy"):
        columns[name] = pa.array(getattr(run, name))
    if run.outputs is not None:
        flat = pa.array(run.outputs.ravel())
        columns["outputs"] = pa.FixedSizeListArray.from_arrays(flat, run.outputs.shape[1])
    return pa.table(columns)


def _from_table(table: Any, identity: Mapping[str, Any]) -> Predictions:
    def column(name: str) -> Any:
        return table[name].combine_chunks().to_numpy(zero_copy_only=False)

    # A column that another run of the file has, and this one has not, is empty here.
    present = [name for name in table.column_names if table[name].null_count < len(table)]
    outputs = None
    if "outputs" in present:
        lists = table["outputs"].combine_chunks()
        outputs = lists.flatten().to_numpy(zero_copy_only=False).reshape(len(table), lists.type.list_size)
    return Predictions(
        sample_id=column("sample_id").astype(np.str_),
        source_id=column("source_id").astype(np.str_),
        groups={
            name.removeprefix("group."): column(name).astype(np.str_) for name in present if name.startswith("group.")
        },
        label=column("label"),
        prediction=column("prediction"),
        score=column("score"),
        margin=column("margin"),
        outputs=outputs,
        signal_energy=column("signal_energy"),
        error_energy=column("error_energy"),
        identity=identity,
    )
