"""A detector of blood cells: `python -m onnxptq.models.recipes.detector --data blood_cells/ [-o cells.onnx]`.

The folder holds `Annotations/*.xml` (Pascal VOC) and `JPEGImages/`, as the BCCD data set (MIT license) does. An
anchor-free net of one scale writes what YOLOv8 writes: float32 (N, 4 + classes, A), boxes as center and size in pixels
of the input and one probability a class. A file name whose number is divisible by 4 is left out of training, so that
the net can be judged on those. Five minutes on two cores.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from onnxptq.errors import DataError
from onnxptq.models._training import export_onnx, fit, prepared, run, write_file

CLASSES = ("RBC", "WBC", "Platelets")
SIZE = 192  # a red cell of the pictures is then about 30 pixels wide, a platelet 12
STRIDE = 8
EPOCHS = 60
BATCH = 16
RATE = 2e-3
TRAIN_SEED = 0
GRAY = 114  # what a letterbox is filled with
HELD_OUT = 4


@dataclass(frozen=True)
class DrawnPicture:
    """One letterboxed picture.

    Attributes:
        pixels: uint8, (SIZE, SIZE, 3).
        boxes: float32, (K, 4): left, top, right, bottom in pixels.
        classes: int64, (K,).
    """

    pixels: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    classes: npt.NDArray[np.int64]


def is_held_out(name: str) -> bool:
    """Whether a picture is kept for judging, by the number in its name."""
    digits = "".join(character for character in name if character.isdigit())
    return int(digits or 0) % HELD_OUT == 0


def load_pictures(folder: str) -> list[DrawnPicture]:
    """The pictures to train on. Raises DataError where the folder holds none, or another class."""
    files = sorted(Path(folder, "Annotations").glob("*.xml"))
    found = [_picture(file) for file in files if not is_held_out(file.stem)]
    if not found:
        raise DataError(f"{folder} has no Annotations/*.xml to train on; expected a folder in the Pascal VOC format.")
    return found


def read_boxes(file: Path) -> tuple[Path, npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """One annotation: the picture's path, boxes (K, 4) in its own pixels, and classes (K,).

    Raises:
        DataError: it holds a class that this recipe does not know.
    """
    root = ElementTree.parse(file).getroot()
    name = root.findtext("filename") or f"{file.stem}.jpg"
    boxes, classes = [], []
    for found in root.iter("object"):
        label = found.findtext("name", "")
        if label not in CLASSES:
            raise DataError(f"{file} has an object {label!r}; this recipe knows {', '.join(CLASSES)}.")
        corners = [float(found.findtext(f"bndbox/{end}", "0")) for end in ("xmin", "ymin", "xmax", "ymax")]
        if corners[2] > corners[0] and corners[3] > corners[1]:
            boxes.append(corners)
            classes.append(CLASSES.index(label))
    image = file.parent.parent / "JPEGImages" / name
    return image, np.asarray(boxes, np.float32).reshape(-1, 4), np.asarray(classes, np.int64)


def _picture(file: Path) -> DrawnPicture:
    """A picture and its boxes, letterboxed to SIZE x SIZE."""
    from PIL import Image

    path, boxes, classes = read_boxes(file)
    with Image.open(path) as image:
        scale = SIZE / max(image.size)
        width, height = (round(side * scale) for side in image.size)
        small = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR))
    pixels = np.full((SIZE, SIZE, 3), GRAY, np.uint8)
    left, top = (SIZE - width) // 2, (SIZE - height) // 2
    pixels[top : top + height, left : left + width] = small
    placed = boxes * np.float32(scale) + np.asarray([left, top, left, top], np.float32)
    return DrawnPicture(pixels, placed, classes)


def build_network() -> Any:
    """The net, a torch.nn.Module: float32 (N, 3, SIZE, SIZE) in [0, 1] -> boxes and scores (N, 4 + classes, A).

    In training mode it returns the distances to the four sides in strides and the logits instead, (N, A, 4) and
    (N, A, classes), as FCOS defines them (Tian et al., 2019, arXiv 1904.01355).
    """
    import torch
    from torch import nn

    def conv(inputs: int, outputs: int, stride: int = 1, size: int = 3) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    class Detector(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.early = nn.Sequential(conv(3, 16, 2), conv(16, 32, 2), conv(32, 64, 2), conv(64, 64))
            self.late = nn.Sequential(conv(64, 96, 2), conv(96, 96), conv(96, 96))
            self.wide = nn.Sequential(conv(96, 96, 2), conv(96, 96))
            self.join = nn.Sequential(conv(96 + 96, 96, size=1), conv(96, 64))
            self.merge = nn.Sequential(conv(64 + 64, 64, size=1), conv(64, 64))
            self.boxes = nn.Sequential(conv(64, 64), nn.Conv2d(64, 4, 1))
            self.scores = nn.Sequential(conv(64, 64), nn.Conv2d(64, len(CLASSES), 1))
            nn.init.constant_(self.scores[-1].bias, -4.0)  # objects are rare, as in the focal loss's paper
            axis = (torch.arange(SIZE // STRIDE) + 0.5) * STRIDE
            rows, columns = torch.meshgrid(axis, axis, indexing="ij")
            self.register_buffer("centers", torch.stack([columns.flatten(), rows.flatten()])[None])

        def forward(self, images: Any) -> Any:
            early = self.early(images)
            late = self.late(early)
            wide = nn.functional.interpolate(self.wide(late), scale_factor=2.0, mode="nearest")
            late = self.join(torch.cat([late, wide], 1))
            merged = self.merge(
                torch.cat([early, nn.functional.interpolate(late, scale_factor=2.0, mode="nearest")], 1)
            )
            sides = nn.functional.softplus(self.boxes(merged)).flatten(2)
            logits = self.scores(merged).flatten(2)
            if self.training:
                return sides.transpose(1, 2), logits.transpose(1, 2)
            corners = self.centers + sides[:, :2] * -STRIDE, self.centers + sides[:, 2:] * STRIDE
            center, extent = (corners[0] + corners[1]) / 2, corners[1] - corners[0]
            return torch.cat([center, extent, logits.sigmoid()], 1)

    return Detector()


def targets(picture: DrawnPicture) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """For each place of the grid the class, -1 for none, and the distances to the sides of its box in strides.

    A place belongs to the smallest box in whose middle it lies.
    """
    axis = (np.arange(SIZE // STRIDE) + 0.5) * STRIDE
    columns, rows = (side.ravel() for side in np.meshgrid(axis, axis))
    classes = np.full(len(rows), -1, np.int64)
    sides = np.zeros((len(rows), 4), np.float32)
    areas = np.prod(picture.boxes[:, 2:] - picture.boxes[:, :2], axis=1)
    for index in np.argsort(-areas):
        left, top, right, bottom = picture.boxes[index]
        reach_x, reach_y = (max(0.25 * extent, 0.75 * STRIDE) for extent in (right - left, bottom - top))
        inside = np.abs(columns - (left + right) / 2) <= reach_x
        inside &= np.abs(rows - (top + bottom) / 2) <= reach_y
        classes[inside] = picture.classes[index]
        ends = np.stack([columns - left, rows - top, right - columns, bottom - rows], axis=1)
        sides[inside] = np.maximum(ends[inside] / STRIDE, 0.05)
    return classes, sides


def losses(sides: Any, logits: Any, classes: Any, wanted: Any) -> Any:
    """Focal loss (Lin et al., 2017) of the classes and generalized IoU loss (Rezatofighi et al., 2019) of the boxes."""
    import torch
    from torch.nn import functional

    positive = classes >= 0
    truth = torch.zeros_like(logits)
    truth[positive] = functional.one_hot(classes[positive], len(CLASSES)).float()
    chance = logits.sigmoid()
    weight = torch.where(truth > 0, 0.25 * (1 - chance) ** 2, 0.75 * chance**2)
    focal = (weight * functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")).sum()
    mine, theirs = sides[positive], wanted[positive]

    def area(ends: Any) -> Any:
        return (ends[:, 0] + ends[:, 2]) * (ends[:, 1] + ends[:, 3])

    overlap, hull = area(torch.minimum(mine, theirs)), area(torch.maximum(mine, theirs))
    union = area(mine) + area(theirs) - overlap
    boxes = (1 - overlap / union + (hull - union) / hull).sum()
    return (focal + boxes) / max(1, int(positive.sum()))


def train_network(pictures: Sequence[DrawnPicture], epochs: int = EPOCHS) -> Any:
    """Trains the net (AdamW, one-cycle learning rate; mirrored, dimmed copies) and returns it in evaluation mode."""
    import torch

    torch.manual_seed(TRAIN_SEED)
    network = build_network().train()
    images = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2).float() / 255
    made = [targets(picture) for picture in pictures]
    classes, sides = (torch.from_numpy(np.stack(part)) for part in zip(*made, strict=True))
    cells = SIZE // STRIDE
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)

    def loss(rows: Any) -> Any:
        batch, kinds = images[rows], classes[rows].view(-1, cells, cells)
        ends = sides[rows].view(-1, cells, cells, 4)
        if torch.rand(()) < 0.5:
            batch, kinds, ends = batch.flip(3), kinds.flip(2), ends.flip(2)[..., [2, 1, 0, 3]]
        if torch.rand(()) < 0.5:
            batch, kinds, ends = batch.flip(2), kinds.flip(1), ends.flip(1)[..., [0, 3, 2, 1]]
        batch = (batch * (0.7 + 0.6 * torch.rand(len(rows), 1, 1, 1))).clamp(0, 1)
        predicted, logits = network(batch)
        return losses(predicted, logits, kinds.flatten(1), ends.flatten(1, 2))

    fit(loss, len(images), epochs=epochs, batch=BATCH, optimizer=optimizer, highest_rate=RATE, clip=5.0)
    return network.eval()


def export_network(network: Any, path: Path) -> None:
    """Writes the trained net with a dynamic batch, and how to use it as metadata."""
    import torch

    export_onnx(
        network,
        (torch.zeros(2, 3, SIZE, SIZE),),
        path,
        inputs=["images"],
        outputs=["output0"],
        dynamic=({0: torch.export.Dim("batch")},),
        task="image-detection",
        specification={
            "input": "images",
            "layout": "NCHW",
            "size": [SIZE, SIZE],
            "resize": "letterbox",
            "color": "RGB",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "decoder": "yolov8",
            "classes": list(CLASSES),
        },
    )


def write_model(source: str, path: Path, epochs: int = EPOCHS) -> None:
    """Trains the net on a VOC folder and writes it to `path`, replacing an older one.

    Raises:
        UsageError: a package of the extra `train` is missing.
        DataError: the folder cannot be used.
        OutputError: the file cannot be written.
    """
    prepared(path)
    network = train_network(load_pictures(source), epochs)
    write_file(path, partial(export_network, network))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run("onnxptq.models.recipes.detector", "cells.onnx", __doc__, write_model, arguments)


if __name__ == "__main__":
    sys.exit(main())
