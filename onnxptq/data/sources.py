"""Opening a source: what the user wrote becomes splits of samples with labels, attributes and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from onnxptq.data._annotations import open_annotated
from onnxptq.data._arrays import open_npz
from onnxptq.data._columns import Columns
from onnxptq.data._folder import IMAGE_SUFFIXES, open_folder
from onnxptq.data._hub import PREFIX, open_hub
from onnxptq.data._labels import encode_labels, label_names_of, plain_labels
from onnxptq.data._masks import open_masked
from onnxptq.data._raw import RawSplit
from onnxptq.data._samples import UNDECODED, defects, encoded_kind, fingerprint, truth_digest
from onnxptq.data._sounds import SOUND_SUFFIXES
from onnxptq.data._tables import FORMATS, ragged_lines, raw_split, read_saved, read_tables, table_files
from onnxptq.data.dataset import TRUTH, Dataset, Indices, name_split
from onnxptq.errors import DataError, did_you_mean
from onnxptq.foreign_text import one_line

CHUNK_ROWS = 64
"""Rows held in memory while digests are computed: 300 MB of the largest photographs, 5 MB each."""

MISSING = "missing"
"""The group of samples that have nothing in an attribute's column."""


@dataclass(frozen=True)
class Source:
    """What `open_source` found.

    Attributes:
        name: as the user wrote it.
        splits: {"": only} where the source has no named splits, else by the source's own names.
        skipped: one line for each sample that was left out with `skip_bad`.
    """

    name: str
    splits: Mapping[str, Dataset]
    skipped: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """Digest of all splits: 64 hexadecimal digits of SHA-256."""
        state = hashlib.sha256()
        for name in sorted(self.splits):
            state.update(f"{name}\0{self.splits[name].digest}\n".encode())
        return state.hexdigest()


def open_source(
    source: str, *, columns: Columns | None = None, cache: Path, skip_bad: bool = False, trusted: bool = False
) -> Source:
    """Opens a folder of images, pictures with boxes, a table, an `.npz`, a saved `datasets` folder, or `hub:NAME`.

    Every row's raw content is read once, in pieces, for its digest, and looked at: headers, checksums and ends of
    images, NaN and infinity in arrays. All pixels are decoded only with `skip_bad`.

    Args:
        source: a path, or `hub:NAME[:CONFIGURATION]`; only the latter touches the network.
        columns: columns that the user named; the others are found.
        cache: the folder where `datasets` keeps tables as Arrow files, by their content.
        skip_bad: leave out, and count, samples whose image cannot be decoded or read, or that hold NaN or infinity.
        trusted: the user vouches for the data: it may name files anywhere, and unpack to any size.

    Raises:
        DataError: the source is missing, empty, damaged or of no known kind, a sample cannot be read, or an array holds
            NaN or infinity.
        OutputError: the cache cannot be written.
        UsageError: a named column does not exist.
    """
    columns = columns or Columns()
    try:
        raws = _read(source, columns, cache, trusted, skip_bad)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}.") from error
    except UnicodeDecodeError as error:  # Parquet promises UTF-8, and nobody looks before a text is used.
        raise DataError(
            f"{source} is damaged: a text in it is not UTF-8 ({error}). Copy or export it again."
        ) from error
    return _assemble(source, raws, skip_bad, columns)


def _read(source: str, columns: Columns, cache: Path, trusted: bool, skip_bad: bool) -> Mapping[str, RawSplit]:
    if source.startswith(PREFIX):
        hub = open_hub(source)
        # `datasets` keeps the pictures of some data sets as files in the hub's own cache folder, and names them.
        return {
            name: raw_split(table, Path(), columns, f"{source} [{name}]", trusted=True) for name, table in hub.items()
        }
    path = Path(source)
    _check_path(path)
    # A folder may hold boxes and masks; the task says which it needs.
    openers = (open_masked, open_annotated) if "mask" in columns.truths else (open_annotated, open_masked)
    for opened in openers:
        if (splits := opened(path)) is not None:
            return splits
    if path.is_file() and path.suffix.lower() == ".npz":
        return open_npz(path, columns, cache, trusted=trusted)
    if path.is_file():
        if path.suffix.lower() not in FORMATS:
            raise DataError(_unknown_kind(path))
        files = {"": [path]}
    elif (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        saved = read_saved(path)
        return {
            name: raw_split(table, path, columns, name_split(source, name), trusted=trusted)
            for name, table in saved.items()
        }
    else:
        found = table_files(path)
        if found is None:
            return open_folder(path)
        files = found
    ragged = ragged_lines(files) if skip_bad else {}
    tables = read_tables(files, cache, source, trusted=trusted, without=any(ragged.values()))
    return {
        name: replace(
            raw_split(table, files[name][0].parent, columns, name_split(source, name), trusted=trusted),
            skipped=ragged.get(name, ()),
        )
        for name, table in tables.items()
    }


def _check_path(path: Path) -> None:
    if path.exists():
        return
    message = f"there is no data {path}."
    if not path.parent.is_dir():
        raise DataError(f"{message} There is no folder {path.parent} either.")
    names = [other.name for other in path.parent.iterdir() if not other.name.startswith(".")]
    hint = did_you_mean(path.name, names)
    nearest = f" {hint}" if hint.startswith("Did") else ""
    raise DataError(f"{message}{nearest} (A dataset of the Hugging Face hub is written {PREFIX}NAME.)")


def _unknown_kind(path: Path) -> str:
    expected = f"Expected a folder, or a file that ends in {', '.join(sorted([*FORMATS, '.npz']))}."
    for suffixes, kind in ((IMAGE_SUFFIXES, "image"), (SOUND_SUFFIXES, "recording")):
        if path.suffix.lower() in suffixes:
            return f"{path} is one {kind}. Give the folder that it lies in."
    return f"{path} is of no known kind. {expected}"


def _assemble(source: str, raws: Mapping[str, RawSplit], skip_bad: bool, columns: Columns) -> Source:
    where = {name: name_split(source, name) for name in raws}
    labels = {name: None if raw.labels is None else plain_labels(raw.labels, where[name]) for name, raw in raws.items()}
    declared = next((raw.declared for raw in raws.values() if raw.declared), None)
    names = label_names_of(list(labels.values()), declared)
    splits: dict[str, Dataset] = {}
    skipped: list[str] = []
    for name, raw in raws.items():
        if raw.count == 0:
            raise DataError(f"{where[name]} has no row. Expected at least one sample.")
        kept, fingerprints, truths, left_out = _scan(raw, where[name], skip_bad, columns)
        skipped.extend((*raw.skipped, *left_out))
        if not len(kept):
            raise DataError(f"{where[name]} has no usable sample: all {raw.count} are bad, the first: {left_out[0]}")
        values = labels[name]
        if values is not None and skip_bad and (bare := _bare([values[i] for i in kept])) is not None:
            skipped.extend(f"{where[name]}: row {row} has no label" for row in kept[bare].tolist())
            kept, fingerprints = kept[~bare], fingerprints[~bare]
            truths = None if truths is None else truths[~bare]
        attributes = {key: _texts(column)[kept] for key, column in raw.attributes.items()}
        encoded = None
        if values is not None:
            encoded = encode_labels([values[i] for i in kept], names, declared is not None, where[name])
        if encoded is not None:
            attributes["label"] = np.asarray(names, np.str_)[encoded]
        splits[name] = Dataset(
            source=source,
            split=name or None,
            rows=raw.rows,
            indices=kept,
            labels=encoded,
            label_names=names if encoded is not None else (),
            attributes=attributes,
            fingerprints=fingerprints,
            truths=truths,
        )
    return Source(source, splits, tuple(skipped))


def _bare(labels: Sequence[int | str | None]) -> Any:
    """bool, (N,): which samples have no label, or None where all have one or none has."""
    bare = np.array([label is None for label in labels], np.bool_)
    return bare if bare.any() and not bare.all() else None


def _scan(raw: RawSplit, where: str, skip_bad: bool, columns: Columns) -> tuple[Indices, Any, Any, list[str]]:
    """Which rows are usable, digests of them and of their truth (str, (N,), or None), one line for each that is not."""
    kept: list[int] = []
    truths: list[str] = []
    fingerprints: list[str] = []
    skipped: list[str] = []
    step = 1 if skip_bad else CHUNK_ROWS
    for start in range(0, raw.count, step):
        indices = np.arange(start, min(start + step, raw.count), dtype=np.int64)
        try:
            rows = raw.rows(indices)
        except DataError as error:
            if not skip_bad:
                raise
            skipped.append(str(error))
            continue
        # Decoding every image once more takes long; the task says which one is damaged inside when it comes to it.
        found = defects(rows, whole=skip_bad, cells=columns.model_inputs if columns.tabular else ())
        for index, row, reason in zip(indices.tolist(), rows, found, strict=True):
            own = columns.defect(row) if reason is None and columns.defect is not None else None
            if reason is not None or own is not None:
                if not skip_bad:
                    raise DataError(f"{where}: {_said(row, reason) if reason else str(row['_name']) + f': {own}'}")
                skipped.append(f"{where}: {row['_name']}: {reason or own}")
                continue
            kept.append(index)
            fingerprints.append(fingerprint(row))
            if TRUTH in row:
                truths.append(truth_digest(row[TRUTH]))
    known = np.array(truths, np.str_) if truths and len(truths) == len(kept) else None
    return np.array(kept, np.int64), np.array(fingerprints, np.str_), known, skipped


def _said(row: Mapping[str, Any], reason: str) -> str:
    """What is wrong with a row, in whole sentences."""
    what = f"the {encoded_kind(row)} {row['_name']} " if reason.startswith(UNDECODED) else f"{row['_name']}: "
    return f"{what}{reason}. Repair it, or leave bad samples out with --skip-bad."


def _texts(values: Any) -> Any:
    return np.array([MISSING if value is None else one_line(str(value)) for value in values], np.str_)
