"""Images: decoded, resized and normalized as the specification says."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data.shifts import SHIFTS, Batch
from onnxptq.errors import DataError
from onnxptq.signature import Feeds, Signature
from onnxptq.tasks._base import INPUTS, Input, InputKind, Row
from onnxptq.tasks._image_specification import ImageSpecification, image_specification
from onnxptq.tasks._images import read_image
from onnxptq.tasks._rows import input_columns, row_name
from onnxptq.tasks._synthetic_images import coloured_noise, dead_leaves

EVALUATION_SHIFTS = ("fog@3", "impulse@3", "gamma@3", "motion_blur@3", "shot@3")
"""The default evaluation, of families that no calibration set of ours is made of."""


AUGMENTATIONS = (
    "mixup@3",
    "cutmix@3",
    "autocontrast@3",
    "autocontrast@3+invert@5",
    "permute_channels@3",
    "autocontrast@3+invert@3",
    "autocontrast@3+cutout@3",
)
"""What the robust methods calibrate on beside the set: stretched contrast undoes dark and pale sets, the rest widens.
Severity 5 inverts all, severity 3 what lies above one half (solarize)."""


@dataclass(frozen=True)
class ImageInput(Input):
    """Images as float32 (N, H, W, C) in [0, 1], RGB or gray; feeds in the model's layout and normalisation."""

    details: ImageSpecification

    name = "image"
    modality = "image"

    @property
    def specification(self) -> dict[str, Any]:
        """Input, output, layout, size, color, scale, mean, std, resize and interpolation."""
        return self.details.to_json()

    def load(self, rows: Sequence[Row]) -> Batch:
        """Decodes, recolors and resizes: float32, (N, H, W, C) in [0, 1], C 1 or 3 (RGB also for BGR models).

        Args:
            rows: each with one column: encoded bytes, a path or an array (see `read_image`).

        Raises:
            DataError: an image is corrupt or is not an image, or a row has several inputs; it names the sample.
        """
        batch = np.empty((len(rows), *self.details.size, self.details.channels), np.float32)
        for position, row in enumerate(rows):
            columns = input_columns(row)
            if len(columns) != 1:
                raise DataError(
                    f"{row_name(row)} has the input columns {', '.join(columns) or 'none'}; an image model takes "
                    "one. Name the column of the image."
                )
            batch[position] = read_image(row[columns[0]], self.details, row_name(row))
        return batch

    def feeds(self, batch: Batch) -> Feeds:
        """(pixel * scale - mean) / std in the model's layout: {input: float32, contiguous}."""
        images = batch[..., ::-1] if self.details.color == "BGR" else batch
        axis = 3
        if self.details.layout == "NCHW":
            images, axis = images.transpose(0, 3, 1, 2), 1
        values = np.array(images, np.float32, order="C")
        self._normalise(values, axis)
        return {self.details.input: values}

    def noise(self, count: int, seed: int) -> Batch:
        """Images of independent pixels, uniform in [0, 1): float32, (count, H, W, C)."""
        shape = (count, *self.details.size, self.details.channels)
        return np.random.default_rng(seed).random(shape, dtype=np.float32)

    def synthetic(self, position: int, seed: int) -> Batch:
        """An image of coloured noise at even positions, of dead leaves at odd ones: float32, (1, H, W, C) in [0, 1]."""
        make = coloured_noise if position % 2 == 0 else dead_leaves
        return make(self.details.size, self.details.channels, np.random.default_rng(seed))[None]

    def input_bounds(self) -> Mapping[str, tuple[float, float]]:
        """The ends that black and white images reach."""
        return {self.details.input: self.input_range()}

    def augmentations(self) -> tuple[str, ...]:
        """Those of `AUGMENTATIONS` whose shifts all make sense at this size and color."""
        return tuple(chain for chain in AUGMENTATIONS if all(self.fits(shift) is None for shift in chain.split("+")))

    def evaluation_shifts(self) -> tuple[str, ...]:
        """Those of `EVALUATION_SHIFTS` that make sense at this size and color."""
        return tuple(shift for shift in EVALUATION_SHIFTS if self.fits(shift) is None)

    def fits(self, shift_name: str) -> str | None:
        """None where the shift (`name` or `name@severity`) makes sense for these images, else the reason why not."""
        shift = SHIFTS.get(shift_name.partition("@")[0])
        height, width = self.details.size
        if shift.modality != self.modality:
            return f"{shift.name} is for {shift.modality} samples, not for images"
        if min(height, width) < shift.min_size:
            return f"{shift.name} needs images of {shift.min_size} pixels a side, these are {height} x {width}"
        if shift.needs_color and self.details.channels == 1:
            return f"{shift.name} changes nothing on gray images"
        return None

    def input_range(self) -> tuple[float, float]:
        """The least and the greatest value that an image in [0, 1] can have in the feeds, over all channels.

        They are computed by the arithmetic of `feeds`, which grows with the pixel, so they are exact in float32.
        """
        ends = np.array([0, 1], np.float32)[:, None].repeat(self.details.channels, axis=1)
        self._normalise(ends, 1)
        return float(ends.min()), float(ends.max())

    def _normalise(self, values: npt.NDArray[np.float32], axis: int) -> None:
        """Does it in place; the channels lie along `axis`, in the order of the model."""
        shape = [-1 if number == axis else 1 for number in range(values.ndim)]
        gain = 255 * self.details.scale
        # A scale of 1/255 leaves values from 0 to 1 as they are, to the last bit.
        if not math.isclose(gain, 1):
            values *= np.float32(gain)
        values -= np.array(self.details.mean, np.float32).reshape(shape)
        values /= np.array(self.details.std, np.float32).reshape(shape)


def build(specification: Mapping[str, Any], signature: Signature) -> ImageInput:
    """The input of one model.

    Raises:
        UsageError: a value of the specification is wrong.
        ModelError: the model cannot take the images that the specification makes.
    """
    return ImageInput(image_specification(specification, signature))


INPUTS.register(
    InputKind(
        "image",
        "one image, decoded, resized and normalized",
        build,
        formats=("a folder of images", "a table with images or their paths", ".npz"),
        keys=tuple(one.name for one in fields(ImageSpecification)),
    )
)
