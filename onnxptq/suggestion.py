"""What a specification may say that neither the model nor a file beside it says, proposed from the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from onnxptq.data.preview import Preview
from onnxptq.signature import Signature, TensorSpec
from onnxptq.tasks import AUDIO, TABLE

_WAVEFORM = 1000
"""A last dimension of at least this, or an open one, may be a waveform; tables are narrower."""

Suggestion = tuple[dict[str, Any], tuple[str, ...]]
"""Keys of a specification, and what to look at before they are believed."""


def suggested(signature: Signature, preview: Preview) -> Suggestion:
    """Keys that fit a model of tensors and what its data holds; ({}, ()) where nothing fits.

    Args:
        signature: of the model, whose input nobody described.
        preview: of the data.
    """
    source = _float_input(signature)
    if source is None:
        return {}, ()
    if preview.sample_rate is not None and _may_be_waveform(source):
        return (
            {"task": AUDIO, "sample_rate": preview.sample_rate, **_classes(preview, signature.outputs)},
            (
                f"sample_rate {preview.sample_rate} is that of the first recording: it must be the one that the model "
                "was trained at (docs/audio.md).",
            ),
        )
    width = source.shape[-1]
    if not preview.columns or len(source.shape) != 2 or width is None:
        return {}, ()
    return _columns(preview, width, signature.outputs)


def hints(signature: Signature) -> tuple[str, ...]:
    """What would help where there is no data to propose from."""
    source = _float_input(signature)
    if source is None:
        return ()
    lines = []
    if len(source.shape) == 2 and source.shape[-1] is not None and 1 < source.shape[-1] < _WAVEFORM:
        lines.append(
            f"if {source.name} is a row of a table: name its columns. onnxptq inspect MODEL --data TABLE "
            "--label-column NAME --write proposes them (docs/tables.md)."
        )
    if _may_be_waveform(source):
        lines.append(f"if {source.name} is a waveform: --sample-rate 16000, or what it was trained at (docs/audio.md).")
    return tuple(lines)


def _float_input(signature: Signature) -> TensorSpec | None:
    floats = [spec for spec in signature.inputs if spec.dtype == "float32" and len(spec.shape) in (2, 3)]
    return floats[0] if len(floats) == len(signature.inputs) == 1 else None


def _may_be_waveform(source: TensorSpec) -> bool:
    last, middle = source.shape[-1], source.shape[1:-1]
    return (last is None or last >= _WAVEFORM) and all(size in (1, None) for size in middle)


def _columns(preview: Preview, width: int, outputs: Sequence[TensorSpec]) -> Suggestion:
    """The columns of the data that may be the model's: its numbers alone, or those and its categories, if they fit."""
    usable = {name: kind for name, kind in preview.columns.items() if name != preview.label}
    numbers = [name for name, kind in usable.items() if kind in ("scalar", "number")]
    texts = [name for name, kind in usable.items() if kind == "text" and name in preview.categories]
    coded = {name: {value: i for i, value in enumerate(preview.categories[name])} for name in texts}
    hot = {name: list(preview.categories[name]) for name in texts}
    in_order = [name for name in usable if name in numbers or name in texts]
    tried: list[tuple[list[str], Mapping[str, Any]]] = [
        (numbers, {}),
        (in_order, {name: {"one_hot": values} for name, values in hot.items()}),
        (in_order, {name: {"values": values} for name, values in coded.items()}),
    ]
    doubt = "order, coding and units of the columns, and the order of the classes, must be those of the training."
    for names, how in tried:
        if names and sum(len(how.get(name, {}).get("one_hot", [0])) for name in names) == width:
            columns = [_column(name, how, preview) for name in names]
            return {"task": TABLE, "columns": columns, **_classes(preview, outputs)}, (doubt,)
    found = ", ".join([*numbers, *(f"{name} ({len(hot[name])} categories)" for name in texts)])
    return {}, (
        f"the model takes {width} numbers a row, and no choice of the columns of the data makes {width}: {found}. Name "
        "them yourself (docs/tables.md).",
    )


def _classes(preview: Preview, outputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """The names of the labels, sorted, where there are as many as the model has scores."""
    names = preview.categories.get(preview.label or "", ())
    fits = any(len(spec.shape) == 2 and spec.shape[-1] == len(names) > 1 for spec in outputs)
    return {"classes": list(names)} if fits else {}


def _column(name: str, how: Mapping[str, Any], preview: Preview) -> str | dict[str, Any]:
    if name not in preview.missing:
        return {"name": name, **how[name]} if name in how else name
    mean = preview.missing[name]
    return {"name": name, **how.get(name, {}), **({"unknown": "zero"} if mean is None else {"missing": mean})}
