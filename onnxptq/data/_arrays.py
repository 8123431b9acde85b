"""`.npz` files: one array a column, the samples in the first dimension."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.cache import content_key
from onnxptq.data._columns import Columns, Kind, choose_columns
from onnxptq.data._kept import keep, kept
from onnxptq.data._raw import SPLIT_NAMES, RawSplit
from onnxptq.data.dataset import TRUTH, Indices
from onnxptq.data.isolated import DecodeError, ask, memory_for, seconds_for
from onnxptq.errors import DataError, OutputError
from onnxptq.files import check_unpacked, digest_file

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class ArrayRows:
    """Reads one sample of each array as a row {name: array or text, "_name": "row 3"}; `truths` lie under `TRUTH`."""

    arrays: Mapping[str, Array]
    truths: Mapping[str, Array] = field(default_factory=dict)

    def __call__(self, indices: Indices) -> list[dict[str, Any]]:
        """The rows at `indices`."""
        rows = []
        for index in indices.tolist():
            sample = {name: array[index] for name, array in self.arrays.items()}
            plain = {name: str(v) if isinstance(v, str) else np.asarray(v) for name, v in sample.items()}
            truth = {name: array[index] for name, array in self.truths.items()}
            rows.append({**plain, "_name": f"row {index}", **({TRUTH: truth} if truth else {})})
        return rows


def open_npz(path: Path, columns: Columns, cache: Path, *, trusted: bool = False) -> dict[str, RawSplit]:
    """The splits of an `.npz`, {"": only} where its arrays have no split in their names (`x_train`, `test_images`).

    It is unpacked once, in the decoder's process, into a folder of `cache` that is named after its content, and mapped.

    Args:
        path: the file.
        columns: as the user named them.
        cache: the folder.
        trusted: it may unpack to any size.

    Raises:
        DataError: not an `.npz`, pickled objects inside, no array, arrays of different lengths, or more than data
            unpacks to.
        OutputError: the cache cannot be written.
    """
    place = cache / content_key("npz", file=digest_file(path), numpy=np.__version__)[:32]
    found = kept(place)
    if found is None:
        _unpack(path, place, trusted)
        found = kept(place)
        if found is None:
            raise OutputError(f"the cache folder {cache} does not keep what is written to it. Set ONNXPTQ_CACHE.")
    try:
        arrays = {name: np.load(files[0], mmap_mode="r", allow_pickle=False) for name, files in found.items()}
    except ValueError as error:
        raise DataError(f"{path} cannot be read as .npz: {error}. {_EXPECTED}") from error
    groups: dict[str, dict[str, Array]] = {}
    for name, array in arrays.items():
        split, column = _split_of(name)
        groups.setdefault(split, {})[column] = array
    if "" in groups and len(groups) > 1:
        groups = {"": arrays}
    if not groups:
        raise DataError(f"{path} has no array. Expected inputs by name (or x) and labels (y), one sample a row.")
    return {split: _open_split(group, columns, str(path)) for split, group in groups.items()}


def stored_arrays(path: Path) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    """Shape and dtype of the arrays of an `.npz`, read from their headers; {} where it cannot be read."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.namelist():
                with archive.open(entry) as member:
                    version = np.lib.format.read_magic(member)
                    read = (
                        np.lib.format.read_array_header_1_0
                        if version == (1, 0)
                        else np.lib.format.read_array_header_2_0
                    )
                    shape, _, dtype = read(member)
                found[entry.removesuffix(".npy")] = shape, dtype
    except Exception:  # A damaged archive fails in a dozen ways; whoever opens it says which.
        return {}
    return found


def _unpack(path: Path, place: Path, trusted: bool) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    except Exception as error:  # A damaged archive fails in a dozen ways.
        raise DataError(f"{path} cannot be read as .npz: {error}. {_EXPECTED}") from error
    if not trusted:
        check_unpacked(path, size, str(path))

    def write(folder: Path) -> dict[str, list[Path]]:
        names, _ = ask(
            "npz",
            path=str(path.resolve()),
            folder=str(folder),
            seconds=seconds_for(size),
            memory=memory_for(size),
            written=2 * size + _HEADER_BYTES,
        )
        return {name: [folder / f"{number}.npy"] for number, name in enumerate(names)}

    try:
        keep(place, write)
    except DecodeError as error:
        raise DataError(f"{path} cannot be read as .npz: {error.reason}. {_EXPECTED}") from error


_EXPECTED = "Expected what numpy.savez writes, arrays of numbers or text."
_HEADER_BYTES = 2**20


def _split_of(name: str) -> tuple[str, str]:
    """("train", "x") for "x_train" and "train_x", ("", "x") for "x"."""
    first, _, rest = name.partition("_")
    if rest and first.lower() in SPLIT_NAMES:
        return SPLIT_NAMES[first.lower()], rest
    rest, _, last = name.rpartition("_")
    if rest and last.lower() in SPLIT_NAMES:
        return SPLIT_NAMES[last.lower()], rest
    return "", name


def _open_split(arrays: Mapping[str, Array], columns: Columns, where: str) -> RawSplit:
    inputs = columns.inputs_of(arrays)
    # Labels are often stored as (N, 1).
    flat = {
        n: a[:, 0] if a.ndim == 2 and a.shape[1] == 1 and a.dtype.kind in "iub" and n not in inputs else a
        for n, a in arrays.items()
    }
    lengths = {name: a.shape[0] if a.ndim else None for name, a in flat.items()}
    if None in lengths.values() or len(set(lengths.values())) > 1:
        shapes = ", ".join(f"{name} {a.shape}" for name, a in flat.items())
        raise DataError(f"the arrays of {where} differ in length: {shapes}. Expected one sample a row in all of them.")
    kinds = {name: _kind(array) for name, array in flat.items()}
    if not any(kind == "tensor" for kind in kinds.values()):
        kinds = {name: "tensor" if kind == "number" else kind for name, kind in kinds.items()}
    for name in inputs:
        if kinds.get(name) in ("scalar", "number"):
            kinds[name] = "tensor"
    chosen = choose_columns(kinds, (), columns, where)
    return RawSplit(
        rows=ArrayRows(
            {name: flat[name] for name in chosen.inputs},
            {name: arrays[name] for name in columns.truths if name in arrays and name not in chosen.inputs},
        ),
        count=len(next(iter(flat.values()))),
        labels=None if chosen.label is None else flat[chosen.label].tolist(),
        declared=None,
        attributes={name: flat[name].tolist() for name in chosen.attributes},
    )


def _kind(array: Array) -> Kind:
    if array.ndim > 1 and array.dtype.kind in "iubf":
        return "tensor"
    if array.dtype.kind == "U":
        return "text"
    if array.dtype.kind in "iub":
        return "scalar"
    return "number" if array.dtype.kind == "f" else "other"
