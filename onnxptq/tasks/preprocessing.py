"""Finding out how a model wants its input, in this order (the first that says anything wins; flags override it):

1. the model's metadata: `onnxptq.task` and `onnxptq.preprocessing` (JSON), which every model that we write carries;
2. a JSON file beside the model with the same stem (`model.json` beside `model.onnx`);
3. `preprocessor_config.json` of Hugging Face in the model's folder (or above it, where the folder is called `onnx`),
   with the class names of `config.json`;
4. `tokenizer.json` of Hugging Face there, for a model that reads tokens: texts;
5. the model's signature: one float32 input of four dimensions with 1 or 3 channels is taken for an image whose
   pixels are divided by 255, with a warning; everything else for tensors that are stored as the model takes them.

All of them may leave the head open; `heads.choose_head` then decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxptq.errors import DataError, UsageError
from onnxptq.signature import Signature
from onnxptq.tasks._constants import without
from onnxptq.tasks._hugging_face import class_names, image_keys, text_keys
from onnxptq.tasks._keys import check_keys, meant_key
from onnxptq.tasks._task import split_name
from onnxptq.tasks._text_specification import INPUTS
from onnxptq.tasks._tokenizer_json import KIND
from onnxptq.text_files import json_object, read_json

IMAGE = "image"
AUDIO = "audio"
TABLE = "table"
TENSOR = "tensor"
TEXT = "text"

TOKENIZER_FILE = "tokenizer.json"

SIGNATURE = "the model's signature"
"""Where a guess comes from."""

USUAL_SIDE = 224
"""Height and width of images for a model that takes any, where nobody says more: what ImageNet's nets are shown."""

METADATA_TASK = "onnxptq.task"
METADATA_PREPROCESSING = "onnxptq.preprocessing"

_KNOWN_KEYS = frozenset(
    {
        "task",
        "input",
        "output",
        "layout",
        "size",
        "color",
        "scale",
        "mean",
        "std",
        "classes",
        "shape",
        "tokenizer",
        "head",
        "expected_score",
        "outputs",
        "input_range",
        "kind",
        "normalizer",
        "sample_rate",
        "columns",
        "constants",
        "decoder",
        "decoding",
        "error_scale",
        "ignore_index",
        "vocabulary",
    }
)

"""A JSON file beside a model that has none of these, nor one of them misspelt, is about something else."""


_ABOUT_IMAGES = frozenset({"layout", "size", "resize", "color", "scale", "mean", "std"})
"""Who gives one of these means images, even where the model's input cannot be one: an error then says so."""

_IMAGE_KEYS = frozenset({"image_mean", "do_resize", "do_rescale", "size", "crop_size"})
"""A `preprocessor_config.json` without any of these is about sound or text."""


@dataclass(frozen=True)
class Preprocessing:
    """What was found.

    Attributes:
        task: the name of the task, or of its input where nobody said which head it is.
        specification: for the task's `build`.
        where: where it was found, for the report.
        warning: what the user should know, or None.
    """

    task: str
    specification: dict[str, Any]
    where: str
    warning: str | None = None


def find_specification(
    model: Path, metadata: Mapping[str, str], flags: Mapping[str, Any], signature: Signature
) -> Preprocessing:
    """Finds the task and the preprocessing of a model.

    Args:
        model: the ONNX file; nothing of it is read.
        metadata: its metadata_props.
        flags: what the user said ("task", and keys of a specification); entries that are None say nothing.
        signature: its inputs and outputs.

    Raises:
        DataError: a file or the metadata is not the JSON that it should be.
        UsageError: `preprocessor_config.json` cannot be expressed, or a flag is about images and the task is not.
    """
    said = {key: value for key, value in flags.items() if value is not None}
    task = said.pop("task", None)
    found = (
        _in_metadata(metadata) or _in_json(model.with_suffix(".json"), signature) or _in_hugging_face(model, signature)
    )
    if found is None:
        found = _from_signature(signature, said, task)
    if task is not None and split_name(task)[1] is None and split_name(found.task)[0] == split_name(task)[0]:
        task = found.task  # The same input, and what was found says more.
    _check_about_images(task or found.task, said, model)
    if split_name(task or found.task)[0] in (IMAGE, TENSOR, TEXT, AUDIO, TABLE):
        check_keys(found.specification, found.where)
        check_keys(said, "the preprocessing that was given")
    specification = _with_tokenizer({**found.specification, **said}, model)
    if "size" in said and "resize_to" not in said:
        specification.pop("resize_to", None)  # It was meant for another size.
    where = f"{found.where}, changed by flags" if said else found.where
    return Preprocessing(task or found.task, specification, where, found.warning)


def _check_about_images(task: str, said: Mapping[str, Any], model: Path) -> None:
    useless = [key for key in ("size", "mean", "std") if key in said]
    if split_name(task)[0] in (TENSOR, TEXT, AUDIO, TABLE) and useless:
        raise UsageError(
            f"{' and '.join(useless)} are about images, and {model.name} takes none: its task is {task}. "
            f"Leave out {', '.join(f'--{key}' for key in useless)}, or give --task {IMAGE}."
        )
    if split_name(task)[0] in (IMAGE, TENSOR, TEXT, TABLE) and "sample_rate" in said:
        raise UsageError(
            f"--sample-rate is about recordings, and {model.name} takes none: its task is {task}. Leave it out, or "
            f"give --task {AUDIO}."
        )
    if split_name(task)[0] in (IMAGE, TEXT, AUDIO) and "input_range" in said:
        raise UsageError(
            f"--input-range is for inputs that are tensors, and the task of {model.name} is {task}, whose "
            "preprocessing tells what its input can hold. Leave it out."
        )


def _in_metadata(metadata: Mapping[str, str]) -> Preprocessing | None:
    text = metadata.get(METADATA_PREPROCESSING)
    if text is None:
        return None
    specification = _object(text, f"the metadata {METADATA_PREPROCESSING} of the model")
    task = metadata.get(METADATA_TASK) or str(specification.get("task", IMAGE))
    return Preprocessing(task, _without_task(specification), "the model's metadata")


def _in_json(file: Path, signature: Signature) -> Preprocessing | None:
    specification = _read(file)
    if specification is None or not (_KNOWN_KEYS & specification.keys() or any(map(meant_key, specification))):
        return None
    if not isinstance(specification.get("task", ""), str):
        raise DataError(f"{file}: the key 'task' must be a text, got {specification['task']!r}.")
    signature = without(signature, list(specification.get("constants") or ()))
    of_tensors = {"shape", "input_range", "kind", "normalizer"} & specification.keys()
    tensors = of_tensors or not (_takes_images(signature) or _ABOUT_IMAGES & specification.keys())
    default = TEXT if "tokenizer" in specification else TENSOR if tensors else IMAGE
    if "sample_rate" in specification:
        default = AUDIO
    elif "columns" in specification and default != TEXT:
        default = TABLE
    return Preprocessing(str(specification.get("task", default)), _without_task(specification), str(file))


def _in_hugging_face(model: Path, signature: Signature) -> Preprocessing | None:
    folder = model.parent.parent if model.parent.name == "onnx" else model.parent
    for place in dict.fromkeys((model.parent, folder)):
        if (place / TOKENIZER_FILE).is_file() and INPUTS["ids"][0] in (spec.name for spec in signature.inputs):
            keys = text_keys(_read(place / "tokenizer_config.json") or {}, _read(place / "config.json") or {})
            content = _read(place / TOKENIZER_FILE)
            tokenizer = {"kind": KIND, "content": content, **keys.pop("tokenizer")}
            return Preprocessing(TEXT, {"tokenizer": tokenizer, **keys}, str(place / TOKENIZER_FILE))
        config = _read(place / "preprocessor_config.json")
        if config is None or not _IMAGE_KEYS & config.keys():
            continue
        specification = image_keys(config)
        names = class_names(_read(place / "config.json") or {})
        if names:
            specification["classes"] = names
        return Preprocessing(IMAGE, specification, str(place / "preprocessor_config.json"))
    return None


def _with_tokenizer(specification: dict[str, Any], model: Path) -> dict[str, Any]:
    """The content of a tokenizer that is given as a file's name: the specification must stand on its own."""
    named = specification.get("tokenizer")
    if not isinstance(named, str):
        return specification
    content = _read(model.parent / named)
    if content is None:
        raise DataError(f"there is no tokenizer {model.parent / named}. Give its path from the model's folder.")
    tokenizer = content if "kind" in content else {"kind": KIND, "content": content}
    return {**specification, "tokenizer": tokenizer}


def _from_signature(signature: Signature, said: Mapping[str, Any], task: str | None) -> Preprocessing:
    if "sample_rate" in said and task is None:
        return Preprocessing(AUDIO, {}, SIGNATURE)
    if (task is not None and split_name(task)[0] != IMAGE) or not _takes_images(signature):
        return Preprocessing(TENSOR, {}, SIGNATURE)
    size, unknown = _size_of(signature, said)
    if {"mean", "std", "scale"} & said.keys():
        return Preprocessing(IMAGE, size, SIGNATURE, unknown)
    warning = (
        "nothing says how the model wants its images: pixels are divided by 255 and not normalised. If it was trained "
        "otherwise, give --mean and --std, or write them into a JSON file beside the model (docs/data.md)."
    )
    return Preprocessing(IMAGE, size, SIGNATURE, f"{warning} {unknown}" if unknown else warning)


def _size_of(signature: Signature, said: Mapping[str, Any]) -> tuple[dict[str, Any], str | None]:
    """The size of images that `--shape` gives, or a usual one where a side is open; and what to say of that."""
    (spec,) = signature.inputs
    sides = slice(2, 4) if spec.shape[1] in (1, 3) else slice(1, 3)
    if "size" in said or None not in spec.shape[sides]:
        return {}, None
    if (shape := (said.get("shape") or {}).get(spec.name)) and len(shape) == 4 and None not in shape[sides]:
        return {"size": list(shape[sides])}, None
    size = [USUAL_SIDE if side is None else side for side in spec.shape[sides]]
    return {"size": size}, (
        f"The model takes images of any size, and {size[0]} x {size[1]} was taken; --size HEIGHTxWIDTH takes another."
    )


def _takes_images(signature: Signature) -> bool:
    if len(signature.inputs) != 1:
        return False
    (spec,) = signature.inputs
    return spec.dtype == "float32" and len(spec.shape) == 4 and (spec.shape[1] in (1, 3) or spec.shape[3] in (1, 3))


def _without_task(specification: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in specification.items() if key != "task"}


def _read(file: Path) -> dict[str, Any] | None:
    if not file.is_file():
        return None
    try:
        return read_json(file, "file", DataError)
    except DataError as error:
        raise DataError(f"{error} Repair it or move it away.") from error


def _object(text: str, what: str) -> dict[str, Any]:
    try:
        return json_object(text, what, DataError)
    except DataError as error:
        raise DataError(f"{error} Repair it or move it away.") from error
