"""What an image model needs to know about its input: parsed, checked against the model, and written as JSON."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from onnxptq.errors import ModelError, UsageError
from onnxptq.geometry import ALIGNMENTS, RESIZES, Geometry
from onnxptq.signature import Signature, TensorSpec, shown

CHANNELS = {"RGB": 3, "BGR": 3, "L": 1}
LAYOUTS = ("NCHW", "NHWC")
INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")


@dataclass(frozen=True)
class ImageSpecification:
    """Preprocessing of images: `(pixel * scale - mean) / std`, pixel from 0 to 255.

    Attributes:
        input: name of the model's input.
        layout: "NCHW" or "NHWC".
        size: height and width in pixels.
        color: "RGB", "BGR" or "L" (gray), the order of the model's channels and of `mean` and `std`.
        scale: factor on pixels, 1/255 where mean and std are given for [0, 1].
        mean: one a channel.
        std: one a channel.
        resize: how an image becomes `resize_to`, out of whose centre `size` is cut: "stretch" both sides; "shortest"
            keeps the shape and covers it (a square: its shortest side has that length); "none": it stays as it is.
            "letterbox" keeps the shape, fits it into `size` and fills the rest, as detectors want it.
        resize_to: height and width in pixels, at least `size`.
        interpolation: a filter of Pillow.
        fill: gray of a letterbox, 0 to 255.
        align: where a letterbox puts the image, "center" or "corner" (top left).
    """

    input: str
    layout: str
    size: tuple[int, int]
    color: str
    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    resize: str
    resize_to: tuple[int, int]
    interpolation: str
    fill: int = 114
    align: str = "center"

    @property
    def channels(self) -> int:
        """Number of channels, 1 or 3."""
        return CHANNELS[self.color]

    @property
    def geometry(self) -> Geometry:
        """What it does to coordinates."""
        return Geometry(self.size, self.resize, self.resize_to, self.align)

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON; `image_specification` reads it again. A letterbox alone has a fill and an alignment."""
        values = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        if self.resize != "letterbox":
            del values["fill"], values["align"]
        return values


def image_specification(given: Mapping[str, Any], signature: Signature) -> ImageSpecification:
    """Reads a specification and completes it from the model's signature. Keys that it does not know are ignored.

    Raises:
        UsageError: a value of the specification is wrong in itself.
        ModelError: the model's input cannot take such images; the message shows both shapes.
    """
    source = _input(given, signature)
    layout, channels = _layout(given, source)
    color = _one_of(given, "color", tuple(CHANNELS), "L" if channels == 1 else "RGB")
    if channels is not None and channels != CHANNELS[color]:
        raise ModelError(
            f"input {source.name!r} has shape {shown(source.shape)} ({layout}), {channels} channels; {color} images "
            f"have {CHANNELS[color]}. Give the color that the model was trained on (RGB, BGR, L) and the layout."
        )
    size = _size(given, source, layout, CHANNELS[color])
    std = _per_channel(given, "std", CHANNELS[color], 1.0)
    scale = _number(given, "scale", 1 / 255)
    if scale <= 0 or min(std) <= 0:
        raise UsageError(f"preprocessing: scale and std must be above 0, got scale {scale} and std {list(std)}.")
    resize_to = size if given.get("resize_to") is None else _two_sides(given["resize_to"], "resize_to")
    if resize_to[0] < size[0] or resize_to[1] < size[1]:
        raise UsageError(f"preprocessing: resize_to must be at least the size {list(size)}, got {list(resize_to)}.")
    return ImageSpecification(
        input=source.name,
        layout=layout,
        size=size,
        color=color,
        scale=scale,
        mean=_per_channel(given, "mean", CHANNELS[color], 0.0),
        std=std,
        resize=_one_of(given, "resize", RESIZES, "stretch"),
        resize_to=resize_to,
        interpolation=_one_of(given, "interpolation", INTERPOLATIONS, "bilinear"),
        fill=_gray(given),
        align=_one_of(given, "align", ALIGNMENTS, "center"),
    )


def _input(given: Mapping[str, Any], signature: Signature) -> TensorSpec:
    if len(signature.inputs) != 1:
        names = ", ".join(spec.name for spec in signature.inputs) or "none"
        raise ModelError(f"the task image needs a model with one input; this one has: {names}.")
    source = signature.inputs[0]
    if given.get("input") not in (None, source.name):
        raise UsageError(f"the model has no input {given['input']!r}; its input is {source.name!r}.")
    if source.dtype != "float32":
        raise ModelError(
            f"input {source.name!r} is {source.dtype}; images are fed as float32. "
            "Export the model in float32, with its pre-processing left out."
        )
    if len(source.shape) != 4:
        raise ModelError(
            f"input {source.name!r} has shape {shown(source.shape)}; images need four dimensions, (N, C, H, W) or "
            "(N, H, W, C). For other inputs use the task tensor."
        )
    return source


def _layout(given: Mapping[str, Any], source: TensorSpec) -> tuple[str, int | None]:
    """The layout and the model's number of channels (None where it is dynamic)."""
    _, first, _, last = source.shape
    guess = "NHWC" if last in (1, 3) and first not in (1, 3) else "NCHW"
    layout = _one_of(given, "layout", LAYOUTS, guess)
    return layout, first if layout == "NCHW" else last


def _size(given: Mapping[str, Any], source: TensorSpec, layout: str, channels: int) -> tuple[int, int]:
    model = source.shape[2:] if layout == "NCHW" else source.shape[1:3]
    size = given.get("size")
    if size is None:
        if None in model:
            raise ModelError(
                f"input {source.name!r} has shape {shown(source.shape)}: its height or width is dynamic and nothing "
                "fixes it. Say how large the images are, with --size HEIGHTxWIDTH or size in the preprocessing."
            )
        size = model
    height, width = _two_sides(size, "size")
    if model[0] not in (None, height) or model[1] not in (None, width):
        wanted = (None, channels, height, width) if layout == "NCHW" else (None, height, width, channels)
        raise ModelError(
            f"input {source.name!r} has shape {shown(source.shape)}, but the preprocessing makes images of "
            f"{shown(wanted)}. Give the size that the model was exported with, or export it with a dynamic one."
        )
    return height, width


def _two_sides(value: Any, key: str) -> tuple[int, int]:
    sides = [value, value] if isinstance(value, int) else value
    if (
        not isinstance(sides, (list, tuple))
        or len(sides) != 2
        or any(not isinstance(side, int) or isinstance(side, bool) or side < 1 for side in sides)
    ):
        raise UsageError(f"preprocessing: {key} must be [height, width] in pixels, got {value!r}.")
    return sides[0], sides[1]


def _per_channel(given: Mapping[str, Any], key: str, channels: int, default: float) -> tuple[float, ...]:
    values = given.get(key)
    values = [default] if values is None else values if isinstance(values, (list, tuple)) else [values]
    if len(values) not in (1, channels) or not all(_is_number(value) for value in values):
        raise UsageError(f"preprocessing: {key} must be one number or {channels} (one a channel), got {values}.")
    return tuple(float(value) for value in values) * (channels if len(values) == 1 else 1)


def _number(given: Mapping[str, Any], key: str, default: float) -> float:
    value = given.get(key)
    if value is not None and not _is_number(value):
        raise UsageError(f"preprocessing: {key} must be a number, got {value!r}.")
    return default if value is None else float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _one_of(given: Mapping[str, Any], key: str, allowed: tuple[str, ...], default: str) -> str:
    value = given.get(key)
    if value is not None and value not in allowed:
        raise UsageError(f"preprocessing: {key} must be one of {', '.join(allowed)}, got {value!r}.")
    return default if value is None else str(value)


def _gray(given: Mapping[str, Any]) -> int:
    value = 114 if given.get("fill") is None else given["fill"]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 255:
        raise UsageError(f"preprocessing: fill must be a gray from 0 to 255, got {value!r}.")
    return value
