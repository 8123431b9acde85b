"""A segmenter of blood cells: `python -m onnxptq.models.recipes.segmenter --data blood_cells/ [-o cell_masks.onnx]`.

The data is that of the detector's recipe. The BCCD data set has boxes and no masks; the cells are round, so their masks
are the ellipses inside the boxes, which `python -m onnxptq.models.recipes.segmenter --data blood_cells/ --masks DIR`
writes as PNG for judging. A small U-Net (Ronneberger et al., 2015, arXiv 1505.04597) writes logits, float32
(N, 4, 192, 192): background, red cell, white cell, platelet. Five minutes on two cores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.models._training import export_onnx, fit, prepared, run, write_file
from onnxptq.models.recipes.detector import CLASSES as CELLS
from onnxptq.models.recipes.detector import SIZE, DrawnPicture, load_pictures, read_boxes

CLASSES = ("background", *CELLS)
EPOCHS = 30
BATCH = 16
RATE = 3e-3
TRAIN_SEED = 0


def ellipses(width: int, height: int, boxes: npt.NDArray[np.float32], classes: npt.NDArray[np.int64]) -> Any:
    """The mask of boxes: uint8 (height, width), 0 for background and 1 + class in each ellipse, small ones on top."""
    from PIL import Image, ImageDraw

    mask = Image.new("L", (width, height), 0)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    for index in np.argsort(-areas):
        ImageDraw.Draw(mask).ellipse(boxes[index].tolist(), fill=1 + int(classes[index]))
    return np.asarray(mask)


def build_network() -> Any:
    """The net, a torch.nn.Module: float32 (N, 3, H, W) in [0, 1], sides multiples of 8 -> logits (N, 4, H, W)."""
    import torch
    from torch import nn

    def double(inputs: int, outputs: int) -> nn.Sequential:
        layers = []
        for width in (inputs, outputs):
            layers += [nn.Conv2d(width, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        return nn.Sequential(*layers)

    class Segmenter(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            widths = (12, 24, 48, 64)
            self.down = nn.ModuleList(double(a, b) for a, b in zip((3, *widths), widths, strict=False))
            self.up = nn.ModuleList(double(a + b, b) for a, b in zip(widths[:0:-1], widths[-2::-1], strict=True))
            self.head = nn.Conv2d(widths[0], len(CLASSES), 1)

        def forward(self, images: Any) -> Any:
            kept = []
            for depth, block in enumerate(self.down):
                images = block(images if depth == 0 else nn.functional.max_pool2d(images, 2))
                kept.append(images)
            for block, earlier in zip(self.up, kept[-2::-1], strict=True):
                larger = nn.functional.interpolate(images, scale_factor=2.0, mode="nearest")
                images = block(torch.cat([larger, earlier], 1))
            return self.head(images)

    return Segmenter()


def train_network(pictures: Sequence[DrawnPicture], epochs: int = EPOCHS) -> Any:
    """Trains the net (AdamW, one-cycle learning rate; mirrored, dimmed copies) and returns it in evaluation mode."""
    import torch
    from torch.nn import functional

    torch.manual_seed(TRAIN_SEED)
    network = build_network().train()
    images = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2).float() / 255
    masks = [ellipses(SIZE, SIZE, picture.boxes, picture.classes) for picture in pictures]
    truth = torch.from_numpy(np.stack(masks)).long()
    weight = torch.tensor([1.0, 1.0, 2.0, 4.0])  # platelets are few pixels
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.01)

    def loss(rows: Any) -> Any:
        batch, wanted = images[rows], truth[rows]
        for axis in (1, 2):
            if torch.rand(()) < 0.5:
                batch, wanted = batch.flip(axis + 1), wanted.flip(axis)
        batch = (batch * (0.7 + 0.6 * torch.rand(len(rows), 1, 1, 1))).clamp(0, 1)
        return functional.cross_entropy(network(batch), wanted, weight=weight)

    fit(loss, len(images), epochs=epochs, batch=BATCH, optimizer=optimizer, highest_rate=RATE)
    return network.eval()


def export_network(network: Any, path: Path) -> None:
    """Writes the trained net with a dynamic batch, and how to use it as metadata."""
    import torch

    export_onnx(
        network,
        (torch.zeros(2, 3, SIZE, SIZE),),
        path,
        inputs=["images"],
        outputs=["logits"],
        dynamic=({0: torch.export.Dim("batch")},),
        task="image-segmentation",
        specification={
            "input": "images",
            "output": "logits",
            "layout": "NCHW",
            "size": [SIZE, SIZE],
            "resize": "letterbox",
            "color": "RGB",
            "mean": [0.0, 0.0, 0.0],
            "std": [1.0, 1.0, 1.0],
            "classes": list(CLASSES),
        },
    )


def write_masks(source: str, folder: Path) -> int:
    """Writes the mask of every annotated picture as `FOLDER/NAME.png`, in the picture's own size; returns how many."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    files = sorted(Path(source, "Annotations").glob("*.xml"))
    for file in files:
        image, boxes, classes = read_boxes(file)
        with Image.open(image) as opened:
            width, height = opened.size
        Image.fromarray(ellipses(width, height, boxes, classes)).save(folder / f"{image.stem}.png")
    return len(files)


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
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--masks", type=Path)
    parser.add_argument("--data")
    options, _ = parser.parse_known_args(arguments)
    if options.masks and options.data:
        print(f"wrote {write_masks(options.data, options.masks)} masks into {options.masks}")
        return 0
    return run("onnxptq.models.recipes.segmenter", "cell_masks.onnx", __doc__, write_model, arguments)


if __name__ == "__main__":
    sys.exit(main())
