"""Which columns of a source are inputs, which one is the label, and which ones can be grouped by."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from onnxptq.errors import DataError, UsageError, did_you_mean

Kind = Literal["image", "tensor", "text", "scalar", "number", "other", "cell"]
"""What a column holds: encoded images; arrays; strings, which may be text, paths or names; integers and booleans;
floats, which can be labels but not groups; anything else; and what an input of a table makes of a column."""

IMAGE_NAMES = ("image", "img", "picture", "photo", "image_path", "img_path", "image_file")
"""Names under which images, and paths of images, are found first, the most telling first."""

SOUND_NAMES = ("audio", "sound", "recording", "wav", "speech", "utterance", "audio_path", "wav_path")
"""Names under which recordings, and paths of recordings, are found, where a source has no images."""

PATH_NAMES = ("file_name", "filename", "file", "filepath", "file_path", "path")
"""Names under which paths of images are found where a source has neither images nor arrays."""

TEXT_NAMES = ("text", "sentence")
"""Names under which a text input is found where a source has neither images nor arrays."""

LABEL_NAMES = ("label", "labels", "class", "target", "targets", "category", "y", "fine_label", "class_name", "cls")
"""Names under which the label column is found, the most telling first."""


@dataclass(frozen=True)
class Columns:
    """Columns named by the user; what is left out is found automatically.

    Attributes:
        inputs: the input columns (an image column, or one column an input of the model).
        label: the label column.
        truths: columns that hold the truth of a task, of those that the source has; they are no inputs.
        model_inputs: names of the model's inputs: where the source has a column for each, these are the inputs.
        tabular: those are cells of a table, which may be missing, and all of which the source must have.
        defect: what is wrong with a row as the task reads it, or None.
    """

    inputs: tuple[str, ...] = ()
    label: str | None = None
    truths: tuple[str, ...] = ()
    model_inputs: tuple[str, ...] = ()
    tabular: bool = False
    defect: Callable[[Mapping[str, Any]], str | None] | None = field(default=None, compare=False)

    def inputs_of(self, names: Collection[str]) -> tuple[str, ...]:
        """The input columns of a source with these columns; () where they are to be found."""
        whole = self.tabular or set(self.model_inputs) <= set(names)
        return self.inputs or (self.model_inputs if whole else ())


@dataclass(frozen=True)
class Chosen:
    """The use of each column: inputs with their kinds, the label (or None), the attributes to group by."""

    inputs: Mapping[str, Kind]
    label: str | None
    attributes: tuple[str, ...]


def choose_columns(kinds: Mapping[str, Kind], class_labels: Sequence[str], columns: Columns, source: str) -> Chosen:
    """Chooses the use of each column.

    Args:
        kinds: kind of each column, in the order of the source.
        class_labels: the columns that the source itself declares as labels.
        columns: what the user named.
        source: the source, for messages.

    Raises:
        UsageError: a column named by the user does not exist or cannot be used as such.
        DataError: no input column is found.
    """
    for name in (*columns.inputs, *([columns.label] if columns.label else [])):
        if name not in kinds:
            raise UsageError(f"{source} has no column {name!r}. {did_you_mean(name, kinds)}")
    kinds = {name: kind for name, kind in kinds.items() if name not in columns.truths or name in columns.inputs}
    given = columns.inputs_of(kinds)
    label = columns.label or _find_label(kinds, class_labels, given)
    if columns.tabular:
        _check_all_there(given, kinds, source)
    names = given or _find_inputs({name: kind for name, kind in kinds.items() if name != label})
    if not names:
        raise DataError(
            f"no column of {source} looks like an input: {', '.join(map(repr, kinds)) or 'it has none'}. Expected "
            "images, arrays, or a column called image, path or text. If the first line is a sample, add a header line "
            "above it; if another column is the input, name it."
        )
    for name in names:
        if kinds[name] == "other" or (kinds[name] in ("scalar", "number") and name not in columns.model_inputs):
            raise UsageError(
                f"column {name!r} of {source} cannot be an input: expected images, their paths, arrays, numbers or "
                "text."
            )
    # "label" is the name of the label as an attribute, whatever its column is called.
    cells = {n for n in names if kinds[n] in ("scalar", "number") or (columns.tabular and kinds[n] == "text")}
    attributes = tuple(
        n
        for n, kind in kinds.items()
        if kind in ("text", "scalar") and (n in cells or n not in names) and n not in (label, "label")
    )
    return Chosen({name: "cell" if name in cells else kinds[name] for name in names}, label, attributes)


def _check_all_there(wanted: Sequence[str], kinds: Mapping[str, Kind], source: str) -> None:
    for name in wanted:
        if name not in kinds:
            raise DataError(
                f"{source} has no column {name!r}, which the model takes. {did_you_mean(name, kinds)} The "
                "specification names the columns of the model (docs/tables.md)."
            )


def _find_label(kinds: Mapping[str, Kind], class_labels: Sequence[str], inputs: Sequence[str]) -> str | None:
    usable = [n for n, kind in kinds.items() if n not in inputs and kind in ("text", "scalar", "number")]
    by_name = _named(usable, LABEL_NAMES)
    declared = [name for name in usable if name in class_labels]
    both = [name for name in by_name if name in declared]
    return next(iter([*both, *declared, *by_name]), None)


def _find_inputs(kinds: Mapping[str, Kind]) -> tuple[str, ...]:
    images = [name for name, kind in kinds.items() if kind == "image"]
    texts = [name for name, kind in kinds.items() if kind == "text"]
    encoded = _named(images, IMAGE_NAMES) or _named(images, SOUND_NAMES) or images
    if found := encoded or _named(texts, IMAGE_NAMES) or _named(texts, SOUND_NAMES):
        return (found[0],)
    if arrays := tuple(name for name, kind in kinds.items() if kind == "tensor"):
        return arrays
    return tuple((_named(texts, PATH_NAMES) or _named(texts, TEXT_NAMES))[:1])


def _named(names: Sequence[str], wanted: Sequence[str]) -> list[str]:
    """Those of `names` that are among `wanted` (in any case), in the order of `wanted`."""
    return [name for want in wanted for name in names if name.lower() == want]
