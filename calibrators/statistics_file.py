"""Statistics on disk: one zip file of four entries, the same bytes for the same statistics.

    header.json   format, names, samples, provenance, and where each tensor's bins begin
    extremes.npy  float32, (T, 2): minimum and maximum, tensors in the order of the header
    bins.npy      uint32, (B,): the bins of all tensors, one after the other, as steps from the bin before: most are 1,
                  and so compress to a fifth, in a quarter of the time
    counts.npy    uint32 or int64, (B,): the smaller one that holds them

NumPy's own `.npz` would hold three arrays a tensor, each with a file header: slow at a thousand tensors.
"""

from __future__ import annotations

import io
import json
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.calibrators.histogram_bins import SHIFT
from onnxptq.calibrators.statistics import CalibrationStatistics, TensorStatistics
from onnxptq.errors import DataError, OutputError
from onnxptq.files import check_unpacked
from onnxptq.text_files import json_object

FORMAT = "onnxptq calibration statistics"
VERSION = 2

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The only date a zip entry can have that says nothing of when it was written."""


def write_statistics(statistics: CalibrationStatistics, path: Path) -> None:
    """Writes to a temporary name beside `path` and renames: there is never half a file.

    Raises:
        OutputError: the folder is missing, not writable or full.
    """
    try:
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    except OSError as error:
        raise OutputError(f"statistics cannot be written to {path}: {error}. Choose another folder.") from error
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write(statistics, file)
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"statistics cannot be written to {path}: {error}. Free some space.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(statistics: CalibrationStatistics, file: Any) -> None:
    names = sorted(statistics.environments)
    parts = [(name, tensor, statistics.environments[name][tensor]) for name in names for tensor in statistics.tensors]
    header = {
        "format": FORMAT,
        "version": VERSION,
        "shift": SHIFT,
        "tensors": statistics.tensors,
        "environments": names,
        "samples": {name: statistics.samples[name] for name in names},
        "provenance": dict(statistics.provenance),
        "counts": [part.count for _, _, part in parts],
        "bins": [part.bins.size for _, _, part in parts],
    }
    bins = np.concatenate([np.zeros(0, "<u4"), *(part.bins for _, _, part in parts)]).astype("<u4")
    counts = np.concatenate([np.zeros(0, "<i8"), *(part.counts for _, _, part in parts)])
    arrays = {
        "extremes": np.array([(part.minimum, part.maximum) for _, _, part in parts], "<f4").reshape(-1, 2),
        # Unsigned differences wrap around at the first bin of a tensor, and sums wrap back.
        "bins": np.diff(bins, prepend=np.zeros(1, "<u4")),
        "counts": counts.astype("<u4" if counts.max(initial=0) < 1 << 32 else "<i8"),
    }
    with zipfile.ZipFile(file, "w") as archive:
        text = json.dumps(header, ensure_ascii=False, sort_keys=True).encode()
        _entry(archive, "header.json", text)
        for name, array in arrays.items():
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, array, version=(1, 0), allow_pickle=False)
            _entry(archive, f"{name}.npy", buffer.getvalue())


def _entry(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED, compresslevel=1)


def read_statistics(path: Path) -> CalibrationStatistics:
    """Reads what `write_statistics` wrote.

    Raises:
        DataError: no such file, truncated or damaged, not statistics, or written by another version of the format.
    """
    if not path.exists():
        raise DataError(f"the statistics {path} are missing; onnxptq calibrate makes them.")
    try:
        with zipfile.ZipFile(path) as archive:
            check_unpacked(path, sum(entry.file_size for entry in archive.infolist()), f"the statistics {path}")
            header = json_object(archive.read("header.json").decode(), f"the header of {path}", DataError)
            arrays = {name: _array(archive.read(f"{name}.npy")) for name in ("extremes", "bins", "counts")}
    except Exception as error:  # A damaged archive fails in a dozen ways of zipfile, zlib, NumPy and its parser.
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"{path} cannot be read as calibration statistics ({error}): the file is missing, truncated or damaged. "
            "Write it again with `onnxptq calibrate`."
        ) from error
    found = (header.get("format"), header.get("version"), header.get("shift"))
    if found != (FORMAT, VERSION, SHIFT):
        raise DataError(
            f"{path} holds {found[0]!r} version {found[1]} with shift {found[2]}, but this onnxptq reads {FORMAT!r} "
            f"version {VERSION} with shift {SHIFT}. Write it again with `onnxptq calibrate`."
        )
    try:
        return _assemble(path, header, arrays)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
        raise DataError(
            f"{path} is damaged: its header does not fit its content ({type(error).__name__}: {error}). Write it again."
        ) from error


def _array(data: bytes) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    return array


def _assemble(path: Path, header: dict[str, Any], arrays: dict[str, npt.NDArray[Any]]) -> CalibrationStatistics:
    texts = header["provenance"]
    if not all(type(count) is int and count >= 0 for count in (*header["bins"], *header["samples"].values())):
        raise ValueError("a number of bins or samples is no whole number")
    if not all(isinstance(text, str) for text in (*header["environments"], *header["tensors"], *texts.values())):
        raise ValueError("a name is no text")
    if set(header["samples"]) != set(header["environments"]):
        raise ValueError("its samples are not those of its environments")
    ends = np.cumsum([0, *header["bins"]])
    if ends[-1] != arrays["bins"].size or arrays["bins"].size != arrays["counts"].size:
        raise DataError(f"{path} is damaged: its header and its histograms disagree. Write it again.")
    bins = np.cumsum(arrays["bins"], dtype=np.uint32)
    environments: dict[str, dict[str, TensorStatistics]] = {}
    keys = [(name, tensor) for name in header["environments"] for tensor in header["tensors"]]
    for i, (name, tensor) in enumerate(keys):
        part = TensorStatistics(
            minimum=np.float32(arrays["extremes"][i, 0]),
            maximum=np.float32(arrays["extremes"][i, 1]),
            count=int(header["counts"][i]),
            bins=bins[ends[i] : ends[i + 1]],
            counts=arrays["counts"][ends[i] : ends[i + 1]].astype(np.int64),
        )
        if part.bins.size and part.counts.sum() != part.count:
            raise DataError(f"{path} is damaged: the histogram of {tensor!r} does not add up. Write it again.")
        environments.setdefault(name, {})[tensor] = part
    return CalibrationStatistics(environments, header["samples"], header["provenance"])
