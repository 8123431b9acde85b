"""Images for a model that decodes them itself: JPEG or PNG bytes in.

Pixels come from the model's own decoder and resizing, and go back into its own normalisation, so that what is
calibrated and judged is what is deployed. Shifts work on the pixels between the two.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data import DecodeError, decode_picture
from onnxptq.data.shifts import SHIFTS, Batch
from onnxptq.errors import DataError, ModelError, OnnxptqError
from onnxptq.signature import Feeds
from onnxptq.tasks._base import Input, Row
from onnxptq.tasks._rows import input_columns, row_name
from onnxptq.tasks.image_input import EVALUATION_SHIFTS

FORMATS = ("JPEG", "PNG")
"""What onnxruntime-extensions decodes. Anything else ends the process, without an exception."""

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class OwnPreprocessing:
    """The pre-processing that a model brings with it, in two steps.

    Attributes:
        digest: of the graph.
        size: height and width of the pixels, or None where it depends on the image.
        decode: encoded bytes -> uint8, (H, W, 3), RGB.
        finish: uint8, (H, W, 3), RGB -> the feeds of the rest of the model, (1, ...) each.
    """

    digest: str
    size: tuple[int, int] | None
    decode: Callable[[bytes], Pixels] = field(compare=False, repr=False)
    finish: Callable[[Pixels], Feeds] = field(compare=False, repr=False)


@dataclass(frozen=True)
class EncodedImageInput(Input):
    """Images as float32 (N, H, W, 3) in [0, 1], RGB; feeds are those of the model behind its pre-processing.

    Attributes:
        own: the model's pre-processing.
    """

    own: OwnPreprocessing

    name = "encoded-image"
    modality = "image"

    @property
    def specification(self) -> dict[str, Any]:
        """Digest of the pre-processing."""
        return {"own_preprocessing": self.own.digest}

    def load(self, rows: Sequence[Row]) -> Batch:
        """The pixels that the model's own decoder makes: float32, (N, H, W, 3) in [0, 1].

        Args:
            rows: each with one column, encoded bytes or the path of a file.

        Raises:
            DataError: an image is corrupt, is no JPEG or PNG, or the model's pre-processing fails on it; it names the
                sample.
        """
        images = [self._decoded(row) for row in rows]
        return np.stack(images).astype(np.float32) / np.float32(255)

    def loadable_together(self, rows: Sequence[Row]) -> list[list[int]]:
        """All of them, or each alone where the model's pre-processing leaves images of any size."""
        if self.own.size is not None:
            return super().loadable_together(rows)
        return [[position] for position in range(len(rows))]

    def feeds(self, batch: Batch) -> Feeds:
        """What the model computes of the pixels before its first layer, one image after another."""
        # Exact for an image without a shift: 0 to 255 survive the way to [0, 1] and back.
        pixels = np.rint(np.clip(batch, 0, 1) * np.float32(255)).astype(np.uint8)
        finished = [self.own.finish(image) for image in pixels]
        return {name: np.concatenate([feeds[name] for feeds in finished]) for name in finished[0]}

    def noise(self, count: int, seed: int) -> Batch:
        """Images of independent pixels, uniform in [0, 1): float32, (count, H, W, 3).

        Raises:
            ModelError: the model's pre-processing does not say how large its images are.
        """
        if self.own.size is None:
            raise ModelError(
                "the model's pre-processing makes images of any size, so noise has none. Calibrate with images."
            )
        return np.random.default_rng(seed).random((count, *self.own.size, 3), dtype=np.float32)

    def evaluation_shifts(self) -> tuple[str, ...]:
        """Those of images that make sense at this size."""
        return tuple(shift for shift in EVALUATION_SHIFTS if self.fits(shift) is None)

    def fits(self, shift_name: str) -> str | None:
        """None where the shift (`name` or `name@severity`) makes sense for these images, else the reason why not."""
        shift = SHIFTS.get(shift_name.partition("@")[0])
        if shift.modality != self.modality:
            return f"{shift.name} is for {shift.modality} samples, not for images"
        if self.own.size is not None and min(self.own.size) < shift.min_size:
            height, width = self.own.size
            return f"{shift.name} needs images of {shift.min_size} pixels a side, these are {height} x {width}"
        return None

    def _decoded(self, row: Row) -> Pixels:
        columns = input_columns(row)
        if len(columns) != 1:
            raise DataError(
                f"{row_name(row)} has the input columns {', '.join(columns) or 'none'}; the model takes one image. "
                "Name the column of the image."
            )
        encoded = _encoded(row[columns[0]], row_name(row))
        _verify(encoded, row_name(row))
        try:
            return self.own.decode(encoded)
        except OnnxptqError as error:
            raise DataError(
                f"the model's own pre-processing does not take the image {row_name(row)}: {error} Convert the image "
                "(gray JPEG to RGB), or leave it out."
            ) from error


def _encoded(raw: Any, name: str) -> bytes:
    if isinstance(raw, np.ndarray):
        raise DataError(
            f"{name} is an array of shape {raw.shape}; the model decodes its images itself, so it takes the bytes of "
            "JPEG or PNG files. Give a folder of them, or a table with encoded images."
        )
    try:
        return raw if isinstance(raw, bytes) else Path(raw).read_bytes()
    except OSError as error:
        raise DataError(f"the image {name} cannot be read: {error.strerror or error}.") from error


def _verify(encoded: bytes, name: str) -> None:
    """Decodes with Pillow first: what the extension's decoder cannot read ends the process, without an exception."""
    try:
        form = decode_picture(encoded).form
    except DecodeError as error:
        raise DataError(
            f"the image {name} cannot be decoded: {error}. Restore or remove it, or leave out bad ones with --skip-bad."
        ) from error
    if form not in FORMATS:
        raise DataError(
            f"the image {name} is {form}; the model's own decoder takes {' and '.join(FORMATS)}. Convert it."
        )
