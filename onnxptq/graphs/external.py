"""Models whose weights lie in a file of their own, as those above protobuf's limit of 2 GiB must."""

from __future__ import annotations

import hashlib
import os
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from onnxptq.errors import ModelError
from onnxptq.files import digest_file, replacing
from onnxptq.graphs.load import Model, all_tensors
from onnxptq.graphs.skeleton import skeleton

if TYPE_CHECKING:
    import onnx

SINGLE_FILE_LIMIT = 1_500_000_000
"""Bytes of a model that still go into one file. protobuf refuses 2 GiB; shapes, scales and zero points come on top."""

DATA_SUFFIX = ".data"
"""ONNX Runtime's quantizer calls the weights of `int8.onnx` `int8.onnx.data`; so do we, everywhere."""


def is_large(model: Model) -> bool:
    """Whether a model has to keep its weights in a file of their own."""
    return model.size > SINGLE_FILE_LIMIT


def external_locations(proto: onnx.ModelProto) -> tuple[str, ...]:
    """The files that hold weights of a model, relative to its folder; none where all weights are in the model."""
    found = (entry.value for tensor in all_tensors(proto) for entry in tensor.external_data if entry.key == "location")
    return tuple(dict.fromkeys(found))


def has_external_data(path: Path) -> bool:
    """Whether weights of the model at `path` lie in files of their own."""
    return bool(external_locations(skeleton(path)))


def digest_model(path: Path) -> str:
    """SHA-256 of a model file and of its external data, 64 hexadecimal digits; of the bytes alone without any."""
    locations = external_locations(skeleton(path))
    if not locations:
        return digest_file(path)
    parts = [digest_file(file) for file in (path, *(path.parent / location for location in locations))]
    return hashlib.sha256("".join(parts).encode()).hexdigest()


def save_with_links(proto: onnx.ModelProto, source: Path, target: Path) -> None:
    """Writes a changed model, loaded without its external data, to another folder, and makes the data found there.

    Args:
        proto: the changed model.
        source: the file that it was loaded from.
        target: the file to write; its external data lie beside it under the names that they have at the source.
    """
    import onnx

    onnx.save(proto, str(target))
    _link_data(external_locations(proto), source, target)


def copy_with_links(source: Path, target: Path) -> None:
    """Copies a model to another folder, and makes its external data found there as `save_with_links` does."""
    shutil.copyfile(source, target)
    _link_data(external_locations(skeleton(source)), source, target)


def _link_data(locations: tuple[str, ...], source: Path, target: Path) -> None:
    for location in locations:
        copy = target.parent / location
        copy.parent.mkdir(parents=True, exist_ok=True)
        if copy.exists():
            continue
        try:
            # ONNX Runtime refuses symbolic links; a hard link costs nothing, but not every file system has them.
            os.link(source.parent / location, copy)
        except OSError:
            shutil.copyfile(source.parent / location, copy)


def load_with_weights(path: Path) -> onnx.ModelProto:
    """The model at `path` with its external data, also through links of `save_with_links`, which onnx refuses."""
    import onnx

    proto = onnx.load(str(path), load_external_data=False)
    for tensor in all_tensors(proto):
        entries = {entry.key: entry.value for entry in tensor.external_data}
        if "location" not in entries:
            continue
        with (path.parent / entries["location"]).open("rb") as file:
            file.seek(int(entries.get("offset", 0)))
            tensor.raw_data = file.read(int(entries["length"]) if "length" in entries else -1)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT
    return proto


def install(written: Path, output: Path, proto: onnx.ModelProto | None = None) -> None:
    """Copies a model to its place, its external data first and as `<output>.data`, each by way of a temporary name.

    So a model never stands there without its weights. Between the two renamings, an older model would see the new
    weights; there is no way to replace two files at once.

    Args:
        written: the model file; its external data, if it has any, lie in one file beside it.
        output: its place.
        proto: the model as it is to be written, loaded without external data; None takes `written` as it is.

    Raises:
        ModelError: the external data lie in several files.
        OutputError: `output` cannot be written.
    """
    import onnx

    if proto is None and not external_locations(skeleton(written)):
        with replacing(output) as temporary:
            shutil.copyfile(written, temporary)
        return
    if proto is None:
        proto = onnx.load(str(written), load_external_data=False)
    locations = external_locations(proto)
    if len(locations) > 1:
        raise ModelError(
            f"the weights of {written} lie in {len(locations)} files; expected one. Save it again with "
            "onnx.save_model(..., save_as_external_data=True, all_tensors_to_one_file=True)."
        )
    # Entered in this order, so that the data take their place before the model does.
    with ExitStack() as stack:
        temporary = stack.enter_context(replacing(output))
        for location in locations:
            data = output.with_name(output.name + DATA_SUFFIX)
            shutil.copyfile(written.parent / location, stack.enter_context(replacing(data)))
            _point_to(proto, data.name)
        onnx.save(proto, str(temporary))


def _point_to(proto: onnx.ModelProto, location: str) -> None:
    for tensor in all_tensors(proto):
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
