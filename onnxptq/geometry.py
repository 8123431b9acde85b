"""Where a picture lies in the input of a model: what resizing, letterboxes and cutting do to its coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data import resized_size

RESIZES = ("stretch", "shortest", "letterbox", "none")
ALIGNMENTS = ("center", "corner")

Boxes = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Placement:
    """Where one picture lies in the model's input, in pixels of the input.

    Attributes:
        height, width: of the picture once it was resized.
        top, left: of its first pixel in the input; negative where it is cut off.
        original: height and width before.
    """

    height: int
    width: int
    top: int
    left: int
    original: tuple[int, int]

    @property
    def scale(self) -> npt.NDArray[np.float64]:
        """float64, (4,): factor on left, top, right and bottom."""
        across, down = self.width / self.original[1], self.height / self.original[0]
        return np.array([across, down, across, down])

    @property
    def offset(self) -> npt.NDArray[np.float64]:
        """float64, (4,): added to left, top, right and bottom after scaling."""
        return np.array([self.left, self.top, self.left, self.top], np.float64)

    def to_original(self, boxes: npt.NDArray[Any]) -> Boxes:
        """Boxes (K, 4) of corners in pixels of the input, as pixels of the original picture, cut at its edges."""
        height, width = self.original
        back = (boxes - self.offset) / self.scale
        return np.clip(back, 0, [width, height, width, height]).astype(np.float32)

    def to_input(self, boxes: npt.NDArray[Any]) -> Boxes:
        """Boxes (K, 4) of corners in pixels of the original picture, as pixels of the input."""
        return (boxes * self.scale + self.offset).astype(np.float32)


@dataclass(frozen=True)
class Geometry:
    """How pictures of any size become the model's input.

    Attributes:
        size: height and width of the input.
        resize: "stretch", "shortest", "letterbox" or "none", see `ImageSpecification`.
        resize_to: height and width that "stretch" and "shortest" resize to.
        align: where a letterbox puts the picture, "center" or "corner" (top left).
    """

    size: tuple[int, int]
    resize: str
    resize_to: tuple[int, int]
    align: str = "center"

    @property
    def target(self) -> tuple[int, int] | None:
        """Height and width that resizing aims at; None where it does nothing."""
        return None if self.resize == "none" else self.size if self.resize == "letterbox" else self.resize_to

    def place(self, height: int, width: int) -> Placement:
        """Where a picture of this size comes to lie."""
        original = height, width
        height, width = resized_size(height, width, self.target or original, self.resize)
        if self.resize == "letterbox":
            top, left = (
                (0, 0) if self.align == "corner" else ((self.size[0] - height) // 2, (self.size[1] - width) // 2)
            )
        else:
            top, left = -round((height - self.size[0]) / 2), -round((width - self.size[1]) / 2)
        return Placement(height, width, top, left, original)


def geometry_of(specification: Mapping[str, Any]) -> Geometry | None:
    """The geometry that a complete image specification describes; None where it is not one of images."""
    size = specification.get("size")
    if size is None:
        return None
    sides = (int(size), int(size)) if isinstance(size, int) else (int(size[0]), int(size[1]))
    target = specification.get("resize_to") or sides
    resize_to = (int(target), int(target)) if isinstance(target, int) else (int(target[0]), int(target[1]))
    return Geometry(
        sides, specification.get("resize") or "stretch", resize_to, specification.get("align") or ALIGNMENTS[0]
    )
