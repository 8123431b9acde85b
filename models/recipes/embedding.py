"""An embedding of pictures: `python -m onnxptq.models.recipes.embedding --data train.parquet [-o embedding.onnx]`.

The data is any source of small pictures with labels that `onnxptq --data` takes, such as CIFAR-10. The net maps a
picture to a vector of length 1, float32 (N, 64), close for pictures of one class, so that a picture is found by its
neighbors. Trained with the supervised contrastive loss (Khosla et al., 2020, arXiv 2004.11362). Five minutes on two
cores.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.cache import user_cache
from onnxptq.data import open_source
from onnxptq.errors import DataError
from onnxptq.models._training import export_onnx, fit, prepared, run, write_file

SIZE = 32
WIDTH = 64
TEMPERATURE = 0.1
EPOCHS = 6
BATCH = 256
RATE = 4e-3
TRAIN_SEED = 0
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.247, 0.2435, 0.2616)  # of CIFAR-10's training pixels


def load_pictures(source: str) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Pictures, uint8 (N, SIZE, SIZE, 3), and labels, int64 (N,); of named splits the one for training.

    Raises:
        DataError: the source cannot be read, or has no labels.
    """
    from PIL import Image

    opened = open_source(source, cache=user_cache().folder("datasets"))
    dataset = opened.splits.get("train") or next(iter(opened.splits.values()))
    if dataset.labels is None:
        raise DataError(f"{source} has no labels; this recipe learns which pictures belong together from them.")
    pixels = np.empty((len(dataset), SIZE, SIZE, 3), np.uint8)
    for position, row in enumerate(dataset.read(np.arange(len(dataset)))):
        value = next(value for name, value in row.items() if not name.startswith("_"))
        data = value["bytes"] if isinstance(value, dict) else value
        with Image.open(io.BytesIO(data) if isinstance(data, bytes) else data) as image:
            pixels[position] = np.asarray(image.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))
    return pixels, dataset.labels.astype(np.int64)


def build_network() -> Any:
    """The net, a torch.nn.Module: float32 (N, 3, 32, 32), normalized -> float32 (N, 64) of length 1."""
    from torch import nn

    def conv(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())

    class EmbeddingNet(nn.Module):  # type: ignore[misc]  # torch is not installed where types are checked
        def __init__(self) -> None:
            super().__init__()
            self.stem = conv(3, 24)
            self.one = nn.Sequential(conv(24, 48, 2), conv(48, 48))
            self.two = nn.Sequential(conv(48, 96, 2), conv(96, 96))
            self.three = nn.Sequential(conv(96, 128, 2), conv(128, 128))
            self.head = nn.Linear(128, WIDTH)

        def forward(self, images: Any) -> Any:
            features = self.three(self.two(self.one(self.stem(images))))
            vector = self.head(features.mean((2, 3)))
            return vector / (vector * vector).sum(1, keepdim=True).clamp(min=1e-12).sqrt()

    return EmbeddingNet()


def contrastive_loss(vectors: Any, labels: Any) -> Any:
    """The supervised contrastive loss, L_out of its paper, over one batch."""
    import torch

    itself = torch.eye(len(vectors), dtype=torch.bool)
    logits = (vectors @ vectors.T / TEMPERATURE).masked_fill(itself, -1e9)
    chances = logits - logits.logsumexp(1, keepdim=True)
    same = (labels[:, None] == labels[None, :]) & ~itself
    return -((chances * same).sum(1) / same.sum(1).clamp(min=1)).mean()


def train_network(pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64], epochs: int = EPOCHS) -> Any:
    """Trains the net (AdamW, one-cycle learning rate; two moved, mirrored copies) and returns it for evaluation."""
    import torch

    torch.manual_seed(TRAIN_SEED)
    network = build_network().train()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    truth = torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)

    def loss(rows: Any) -> Any:
        vectors = network(_varied(images[rows].float() / 255))
        return contrastive_loss(vectors, truth[rows])

    fit(loss, len(images), epochs=epochs, batch=BATCH, optimizer=optimizer, highest_rate=RATE)
    return network.eval()


def _varied(images: Any) -> Any:
    """Mirrored, moved and normalized copies of pictures in [0, 1]."""
    import torch
    from torch.nn import functional

    images = torch.where(torch.rand(len(images), 1, 1, 1) < 0.5, images.flip(3), images)
    padded = functional.pad(images, (4, 4, 4, 4), mode="reflect")
    down, right = torch.randint(0, 9, (2,)).tolist()
    cut = padded[:, :, down : down + SIZE, right : right + SIZE]
    return (cut - torch.tensor(MEAN).view(1, 3, 1, 1)) / torch.tensor(STD).view(1, 3, 1, 1)


def export_network(network: Any, path: Path) -> None:
    """Writes the trained net with a dynamic batch, and how to use it as metadata."""
    import torch

    export_onnx(
        network,
        (torch.zeros(2, 3, SIZE, SIZE),),
        path,
        inputs=["input"],
        outputs=["embedding"],
        dynamic=({0: torch.export.Dim("batch")},),
        task="image-embedding",
        specification={
            "input": "input",
            "output": "embedding",
            "layout": "NCHW",
            "size": [SIZE, SIZE],
            "color": "RGB",
            "mean": list(MEAN),
            "std": list(STD),
        },
    )


def write_model(source: str, path: Path, epochs: int = EPOCHS) -> None:
    """Trains the net on labeled pictures and writes it to `path`, replacing an older one.

    Raises:
        UsageError: a package of the extra `train` is missing.
        DataError: the pictures cannot be used.
        OutputError: the file cannot be written.
    """
    prepared(path)
    network = train_network(*load_pictures(source), epochs)
    write_file(path, partial(export_network, network))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run("onnxptq.models.recipes.embedding", "embedding.onnx", __doc__, write_model, arguments)


if __name__ == "__main__":
    sys.exit(main())
