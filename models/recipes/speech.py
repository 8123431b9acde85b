"""A net of spoken digits: `python -m onnxptq.models.recipes.speech --data recordings/ [-o digits.onnx]`.

Reads recordings that are named DIGIT_SPEAKER_NUMBER.wav, as the free spoken digit dataset has them
(https://github.com/Jakobovski/free-spoken-digit-dataset, CC BY-SA 4.0), and tells which of the ten digits was said,
from 40 log-mel bands of one second at 8 kHz. Numbers below 7 are held out, of every digit and speaker. A minute on two
cores. Beside the net it writes `digits.train.csv` and `digits.held.csv`: path, label and speaker of each recording, to
calibrate and to judge on; write the net into the folder of the recordings, and the tables name files beside themselves.
"""

from __future__ import annotations

import csv
import itertools
import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from onnxptq.data import DecodeError, decode_sound
from onnxptq.errors import DataError
from onnxptq.models._training import export_onnx, fit, prepared, run, write_file
from onnxptq.signature import Signature, TensorSpec
from onnxptq.tasks import make_task

RATE = 8000
MELS, FRAMES = 40, 61
CLASSES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SPECIFICATION = {
    "sample_rate": RATE,
    "length": RATE,
    "front_end": {"kind": "log-mel", "n_fft": 256, "hop": 128, "mels": MELS},
    "mean": -9.9,
    "std": 5.0,
    "output": "logits",
    "classes": list(CLASSES),
}
HELD_OUT = 7
EPOCHS = 25
BATCH = 32
LEARNING_RATE = 2e-3
TRAIN_SEED = 0

Recording = tuple[Path, str, str]
"""File, label and speaker."""


def split_recordings(source: str) -> tuple[list[Recording], list[Recording]]:
    """Recordings to train on and recordings that are held out, each in the order of their names.

    Raises:
        DataError: there are none, or one is named otherwise.
    """
    files = sorted(Path(source).glob("*.wav"))
    if not files:
        raise DataError(f"{source} has no .wav file. Expected recordings named DIGIT_SPEAKER_NUMBER.wav.")
    train: list[Recording] = []
    held: list[Recording] = []
    for file in files:
        parts = file.stem.split("_")
        if len(parts) != 3 or not (parts[0].isdigit() and parts[2].isdigit()) or int(parts[0]) >= len(CLASSES):
            raise DataError(f"{file} is not named DIGIT_SPEAKER_NUMBER.wav, as in 7_jackson_32.wav.")
        side = held if int(parts[2]) < HELD_OUT else train
        side.append((file, CLASSES[int(parts[0])], parts[1]))
    if not train or not held:
        raise DataError(f"{source} needs recordings of numbers below {HELD_OUT} and of others.")
    return train, held


def load_features(recordings: Sequence[Recording]) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """What the net is trained on: float32 (N, 1, 40, 61) as the specification makes it, and labels, int64 (N,).

    Raises:
        DataError: a recording cannot be decoded; the message names it.
    """
    task = make_task(
        "audio-classification",
        SPECIFICATION,
        Signature(
            (TensorSpec("x", "float32", (None, 1, MELS, FRAMES)),),
            (TensorSpec("logits", "float32", (None, len(CLASSES))),),
        ),
    )
    waves = []
    for file, _, _ in recordings:
        try:
            waves.append({"audio": decode_sound(file.read_bytes(), RATE).samples, "_name": file.name})
        except DecodeError as error:
            raise DataError(f"{file} cannot be decoded: {error}.") from error
    features = task.feeds(task.load(waves))["x"]
    return features, np.array([CLASSES.index(label) for _, label, _ in recordings])


def build_network() -> Any:
    """The net, a torch.nn.Module: float32 (N, 1, 40, 61) -> logits (N, 10)."""
    from torch import nn

    widths = (1, 16, 32, 48, 64)
    layers: list[Any] = []
    for number, (before, after) in enumerate(itertools.pairwise(widths)):
        layers += [nn.Conv2d(before, after, 3, stride=2 if number else 1, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(64, len(CLASSES)))


def train_network(features: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], epochs: int = EPOCHS) -> Any:
    """Trains the net (AdamW, moved in time and in gain by chance) and returns it in evaluation mode."""
    import torch
    from torch.nn import functional

    torch.manual_seed(TRAIN_SEED)
    network = build_network().train()
    inputs, truth = torch.from_numpy(features), torch.from_numpy(labels)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)

    def loss(rows: Any) -> Any:
        moved = torch.roll(inputs[rows], int(torch.randint(-4, 5, ())), dims=3)
        louder = 0.3 * torch.randn(len(rows), 1, 1, 1)  # A gain is an offset behind a logarithm.
        return functional.cross_entropy(network(moved + louder), truth[rows])

    fit(loss, len(inputs), epochs=epochs, batch=BATCH, optimizer=optimizer, after_epoch=schedule.step)
    return network.eval()


def export_network(network: Any, path: Path) -> None:
    """Writes the trained net with a dynamic batch, and how to use it as metadata."""
    import torch

    export_onnx(
        network,
        (torch.zeros(2, 1, MELS, FRAMES),),
        path,
        inputs=["x"],
        outputs=["logits"],
        dynamic=({0: torch.export.Dim("batch")},),
        task="audio-classification",
        specification=SPECIFICATION,
    )


def write_table(recordings: Sequence[Recording], path: Path) -> None:
    """A CSV file of path (from its own folder), label and speaker."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("path", "label", "speaker"))
        for recording, label, speaker in recordings:
            table.writerow((os.path.relpath(recording, path.parent), label, speaker))


def write_model(source: str, path: Path, epochs: int = EPOCHS) -> None:
    """Trains the net on a folder of recordings and writes it to `path`, and both tables beside it.

    Raises:
        UsageError: a package of the extras `train` or `audio` is missing.
        DataError: the recordings cannot be used.
        OutputError: a file cannot be written.
    """
    prepared(path)
    train, held = split_recordings(source)
    network = train_network(*load_features(train), epochs)
    write_file(path, partial(export_network, network))
    for name, recordings in (("train", train), ("held", held)):
        write_file(path.with_suffix(f".{name}.csv"), partial(write_table, recordings))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    return run("onnxptq.models.recipes.speech", "digits.onnx", __doc__, write_model, arguments)


if __name__ == "__main__":
    sys.exit(main())
