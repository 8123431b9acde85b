"""The recipe of the built-in model: `python -m onnxptq.models.digits.train [-o FOLDER]`.

Writes `train.parquet`, `test.parquet` and `digits.onnx`. Needs the extra `train` (torch, onnxscript, scikit-learn) and
half a minute on two cores. Everything is seeded; weights repeat to the bit only with the same torch on the same CPU.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.errors import EXIT_BAD_INPUT, EXIT_DONE, OnnxptqError, OutputError
from onnxptq.files import replacing
from onnxptq.models._training import TRAINING, export_onnx, fit, require

CLASSES = tuple("0123456789")
SIZE = 8
TEST_PER_CLASS = 90  # half of the digits, and the same n in every group of the evaluation
SPLIT_SEED = 0
TRAIN_SEED = 0
EPOCHS = 120
BATCH = 64
MEAN, STD = 0.3062, 0.3762  # of the training pixels in [0, 1]
NEEDS = {**TRAINING, "sklearn": "scikit-learn"}


@dataclass(frozen=True)
class Digits:
    """Some of the digits.

    Attributes:
        pixels: uint8, (N, 8, 8), 0 is paper and 255 is ink.
        labels: int64, (N,), 0 to 9.
        ids: N names, "digit-0000" and on, after the position in scikit-learn's copy.
    """

    pixels: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    ids: tuple[str, ...]

    def take(self, rows: npt.NDArray[np.int64]) -> Digits:
        """The digits at `rows`, in that order."""
        return Digits(self.pixels[rows], self.labels[rows], tuple(self.ids[row] for row in rows))


def load_split() -> tuple[Digits, Digits]:
    """The 1,797 digits of scikit-learn as (train, test): 90 of each class are test, drawn at random with `SPLIT_SEED`.

    Source: sklearn.datasets.load_digits; counts 0 to 16 become 8-bit gray, x * 255 / 16 rounded.
    """
    from sklearn.datasets import load_digits

    raw = load_digits()
    pixels = np.rint(raw.images * 255 / 16).astype(np.uint8)
    digits = Digits(pixels, raw.target.astype(np.int64), tuple(f"digit-{i:04d}" for i in range(len(pixels))))
    rng = np.random.default_rng(SPLIT_SEED)
    is_test = np.zeros(len(pixels), dtype=bool)
    for label in range(len(CLASSES)):
        is_test[rng.permutation(np.flatnonzero(digits.labels == label))[:TEST_PER_CLASS]] = True
    return digits.take(np.flatnonzero(~is_test)), digits.take(np.flatnonzero(is_test))


def write_parquet(digits: Digits, path: Path) -> None:
    """Writes the digits as PNG in the image format of Hugging Face `datasets`: columns image, label, id."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    from PIL import Image

    images = []
    for pixels, name in zip(digits.pixels, digits.ids, strict=True):
        png = io.BytesIO()
        Image.fromarray(pixels).save(png, format="PNG", optimize=True)
        images.append({"bytes": png.getvalue(), "path": f"{name}.png"})
    features = {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
        "id": {"dtype": "string", "_type": "Value"},
    }
    schema = pa.schema(
        [
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("label", pa.int64()),
            ("id", pa.string()),
        ],
        metadata={"huggingface": json.dumps({"info": {"features": features}})},
    )
    table = pa.table([pa.array(images, schema.field("image").type), digits.labels, list(digits.ids)], schema=schema)
    pq.write_table(table, path, compression="zstd")


def build_network() -> Any:
    """The net, a torch.nn.Module: float32 (N, 1, 8, 8), normalised -> float32 logits (N, 10).

    Depthwise-separable blocks as in MobileNet (Howard et al., 2017, arXiv 1704.04861), the last one residual.
    """
    from torch import nn

    def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
            nn.Conv2d(inputs, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )

    class DigitsNet(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU())
            self.block1 = separable(32, 64)
            self.block2 = separable(64, 96, stride=2)
            self.block3 = separable(96, 96)
            self.head = nn.Linear(96, len(CLASSES))

        def forward(self, images: Any) -> Any:
            features = self.block2(self.block1(self.stem(images)))
            features = features + self.block3(features)
            return self.head(features.mean((2, 3)))  # AdaptiveAvgPool2d would export as a chain of Reshape and Concat

    return DigitsNet()


def augment(images: Any) -> Any:
    """Slightly turned, moved, dimmed, hazy and noisy copies of `images`: float32 (N, 1, 8, 8), values in [0, 1]."""
    import torch
    from torch.nn import functional

    n = len(images)
    angle = (torch.rand(n) - 0.5) * 0.4  # radians, up to 11 degrees either way
    zoom = 1 + (torch.rand(n) - 0.5) * 0.2
    shift = (torch.rand(n, 2) - 0.5) * 0.4  # of half the side: up to 0.8 pixels
    cos, sin = zoom * angle.cos(), zoom * angle.sin()
    affine = torch.stack([cos, -sin, shift[:, 0], sin, cos, shift[:, 1]], dim=1).view(n, 2, 3)
    grid = functional.affine_grid(affine, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, align_corners=False)
    dimmed = moved * (0.6 + 0.4 * torch.rand(n, 1, 1, 1))
    thickness = torch.rand(n, 1, 1, 1) * (torch.rand(n, 1, 1, 1) < 0.3)  # no haze on most copies
    haze = functional.interpolate(torch.rand(n, 1, 3, 3), size=SIZE, mode="bilinear") * thickness
    hazy = (dimmed + haze) / (1 + haze.amax((2, 3), keepdim=True))
    noisy = hazy + torch.randn_like(hazy) * (0.1 * torch.rand(n, 1, 1, 1))
    return noisy.clamp(0, 1)


def train_network(digits: Digits, epochs: int = EPOCHS) -> Any:
    """Trains the net on `digits` (Adam, one-cycle learning rate) and returns it in evaluation mode."""
    import torch
    from torch.nn import functional

    torch.manual_seed(TRAIN_SEED)
    network = build_network().train()
    images = torch.from_numpy(digits.pixels).float().unsqueeze(1) / 255
    labels = torch.from_numpy(digits.labels)
    optimizer = torch.optim.Adam(network.parameters(), weight_decay=1e-4)

    def loss(rows: Any) -> Any:
        logits = network((augment(images[rows]) - MEAN) / STD)
        return functional.cross_entropy(logits, labels[rows], label_smoothing=0.05)

    fit(loss, len(images), epochs=epochs, batch=BATCH, optimizer=optimizer, highest_rate=0.01)
    return network.eval()


def export_network(network: Any, path: Path) -> None:
    """Writes the trained net with a dynamic batch, BatchNormalization unfolded, and how to use it as metadata."""
    import torch

    export_onnx(
        network,
        (torch.zeros(2, 1, SIZE, SIZE),),
        path,
        inputs=["input"],
        outputs=["logits"],
        dynamic=({0: torch.export.Dim("batch")},),
        task="image-classification",
        specification={
            "input": "input",
            "output": "logits",
            "layout": "NCHW",
            "size": [SIZE, SIZE],
            "color": "L",
            "rescale": "x/255, then (x-mean)/std",
            "mean": [MEAN],
            "std": [STD],
            "classes": list(CLASSES),
        },
        fold=False,
    )


def write_all(folder: Path, epochs: int = EPOCHS) -> None:
    """Trains the net and writes `train.parquet`, `test.parquet` and `digits.onnx` into `folder`, replacing older ones.

    Raises:
        UsageError: a package of the extra `train` is missing.
        OutputError: the folder cannot be made or written.
    """
    require(NEEDS)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the folder {folder}: {error.strerror}. Choose another with -o.") from error
    train, test = load_split()
    network = train_network(train, epochs)
    writers: dict[str, Callable[[Path], None]] = {
        "train.parquet": lambda path: write_parquet(train, path),
        "test.parquet": lambda path: write_parquet(test, path),
        "digits.onnx": lambda path: export_network(network, path),
    }
    for name, write in writers.items():
        with replacing(folder / name) as partial:
            write(partial)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m onnxptq.models.digits.train", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("digits"), help="folder (default: ./digits)")
    options = parser.parse_args(arguments)
    try:
        write_all(options.output)
    except OnnxptqError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_BAD_INPUT
    return EXIT_DONE


if __name__ == "__main__":
    sys.exit(main())
